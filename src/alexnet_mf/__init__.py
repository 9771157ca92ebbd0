"""AlexNet from one spec, built natively in PyTorch, TensorFlow and MXNet, and proven to be the same network."""

__version__ = "0.1.0"
