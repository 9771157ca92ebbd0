"""The PyTorch backend."""

from alexnet_mf.backends.torch.openmp import brief_spin

with brief_spin():
    import torch  # noqa: F401

from alexnet_mf.backends.torch.backend import TorchBackend

BACKEND = TorchBackend()
