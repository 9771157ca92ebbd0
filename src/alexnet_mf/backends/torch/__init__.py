"""The PyTorch backend."""

from alexnet_mf.backends.torch.backend import TorchBackend

BACKEND = TorchBackend()
