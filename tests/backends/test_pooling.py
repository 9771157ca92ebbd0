"""Bias, ReLU and max-pooling as one kernel, on a GPU and, in float32, by Triton's interpreter on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CASES = [((2, 6, 13, 11), 3, 2), ((3, 70, 8, 8), 2, 2), ((5, 7, 13, 13), 3, 1), ((2, 4, 10, 10), 2, 3)]
"""Input shape, kernel and stride."""


def compare(shape: tuple[int, ...], kernel: int, stride: int, dtype: str, device: str) -> None:
    """Check that outputs are the same bits, ties and NaN included, and that gradients differ by rounding alone."""
    import torch
    from torch.nn import functional

    from alexnet_mf.backends.torch.pooling import BiasReluMaxPool

    random = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=random).round(decimals=1)  # with ties
    x[0, 0, :3, :3] = float("nan")
    x = x.to(device, getattr(torch, dtype), memory_format=torch.channels_last)
    bias = torch.randn(shape[1], generator=random).to(device)
    fused, separate = [], []
    for results, call in ((fused, lambda x, b: BiasReluMaxPool.apply(x, b, kernel, stride)),
                          (separate, lambda x, b: functional.max_pool2d(
                              functional.relu(x + b.to(x.dtype).view(-1, 1, 1)), kernel, stride))):
        inputs = [tensor.clone().requires_grad_() for tensor in (x, bias)]
        y = call(*inputs)
        y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(device, y.dtype))
        results += [y.detach(), *(tensor.grad for tensor in inputs)]
    torch.testing.assert_close(fused[0], separate[0], rtol=0, atol=0, equal_nan=True)
    exact = dtype == "float32"
    torch.testing.assert_close(fused[1], separate[1], rtol=1e-5 if exact else 1e-2, atol=1e-6)
    flowing = separate[1].double().sum((0, 2, 3))
    assert float((fused[2] - flowing).norm() / flowing.norm()) < (1e-5 if exact else 1e-2)


def test_the_kernel_equals_the_separate_layers(requires):
    """The test needs a new process, because Triton chooses its interpreter when it is imported."""
    requires("torch")
    pytest.importorskip("triton", reason="PyTorch installs Triton on Linux only")
    process = subprocess.run([sys.executable, __file__], env={**os.environ, "TRITON_INTERPRET": "1"}, text=True,
                             capture_output=True, timeout=300)
    assert process.returncode == 0, process.stderr


def test_only_a_convolution_with_bias_and_relu_is_pooled_by_the_kernel(requires):
    requires("torch")
    from torch import nn

    from alexnet_mf.backends.torch.layers import can_pool

    pool = nn.MaxPool2d(3, 2)
    assert can_pool([nn.Conv2d(2, 4, 3), nn.ReLU(), pool])
    assert not can_pool([nn.Conv2d(2, 4, 3, bias=False), nn.ReLU(), pool])
    assert not can_pool([nn.Conv2d(2, 4, 3), nn.LeakyReLU(0.1), pool])


@pytest.mark.parametrize("shape, kernel, stride", CASES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_kernel_equals_the_separate_layers_on_a_gpu(requires, shape, kernel, stride, dtype):
    requires("torch")
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    compare(shape, kernel, stride, dtype, "cuda")


def test_missing_requirements_of_triton_are_named(requires, monkeypatch):
    requires("torch")
    from alexnet_mf.backends.torch import backend

    monkeypatch.setattr(backend.torch.cuda, "get_device_capability", lambda device: (6, 1))
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("CC", sys.executable)
    assert backend.missing_for_triton("cuda:0") == "a GPU of the Volta generation or later"
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "install gcc or set CC" in str(backend.missing_for_triton("cuda:0"))
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    assert "Triton" in str(backend.missing_for_triton("cuda:0"))


def test_only_small_poolings_after_convolution_and_relu_are_fused(requires):
    requires("torch")
    pytest.importorskip("triton", reason="PyTorch installs Triton on Linux only")
    from torch import nn

    from alexnet_mf.backends.torch.pooling import steps

    def pooled(*modules: nn.Module) -> int:
        return len(list(steps(list(modules))))

    convolution, relu = nn.Conv2d(1, 2, 3), nn.ReLU()
    assert pooled(convolution, relu, nn.MaxPool2d(3, 2), nn.Flatten()) == 2
    assert pooled(convolution, relu, nn.MaxPool2d(8, 8)) == 3
    assert pooled(convolution, relu, nn.MaxPool2d(3, 2, padding=1)) == 3
    assert pooled(convolution, relu, nn.MaxPool2d(3, 2, ceil_mode=True)) == 3
    assert pooled(convolution, relu, nn.ConstantPad2d(1, -float("inf")), nn.MaxPool2d(3, 2)) == 4
    assert pooled(nn.ZeroPad2d((0, 1, 0, 1)), convolution, relu, nn.MaxPool2d(3, 2)) == 2
    assert pooled(convolution, nn.Sigmoid(), nn.MaxPool2d(3, 2)) == 3
    assert pooled(convolution, relu, nn.LocalResponseNorm(5), nn.MaxPool2d(3, 2)) == 4
    assert pooled(convolution, relu, nn.AvgPool2d(2)) == 3


if __name__ == "__main__":
    for case in CASES:
        compare(*case, "float32", "cpu")
