"""Layers that PyTorch lacks, and convolutions that it computes slowly or inexactly."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

MOST_CHANNELS = 4
"""Largest number of input channels for which folding is faster: tensor cores multiply eight or more at a time."""

LARGEST_POOLING = 7


class Normalize(nn.Module):
    """torchvision's transform of this name as a module, which moves to the device with its network.

    Its numbers are buffers outside the state_dict, which holds the parameters only.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.std


class PixelAvgPool2d(nn.AvgPool2d):
    """`nn.AvgPool2d` of a padded image, with the mean over each window's pixels of the image alone."""

    def __init__(self, kernel_size: int, stride: int, pixels: tuple[list[int], list[int]]) -> None:
        super().__init__(kernel_size, stride, divisor_override=1)
        self.register_buffer("counts", torch.outer(*map(torch.tensor, pixels)), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) / self.counts


class _BatchVariance(nn.modules.batchnorm._BatchNorm):
    """Batch normalization whose running variance follows the variance of the batch, divided by n. PyTorch's own
    follows n / (n - 1) of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        mean, variance = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        # With a momentum of 1, PyTorch overwrites these with the batch's own statistics.
        y = torch.batch_norm(x, self.weight, self.bias, mean, variance, True, 1.0, self.eps,
                             torch.backends.cudnn.enabled)
        count = x.numel() // x.shape[1]
        with torch.no_grad():
            variance = variance * (count - 1) / count if count > 1 else torch.zeros_like(variance)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance, self.momentum)
        return y


class BatchNorm1d(_BatchVariance, nn.BatchNorm1d):
    """`nn.BatchNorm1d` with the running variance of `_BatchVariance`."""


class BatchNorm2d(_BatchVariance, nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the running variance of `_BatchVariance`."""


def normalize_by_batch(net: nn.Sequential) -> None:
    """Switch a network to evaluation, but batch normalization to the batch's statistics."""
    net.eval()
    for module in net:
        if isinstance(module, _BatchVariance):
            module.train()


class FoldedConv2d(nn.Conv2d):
    """`nn.Conv2d` with the same parameters and results, computed with stride 1 on s*s times the channels.

    AlexNet's conv1 (1 channel, 11x11, stride 4) is computed as 16 channels, 3x3, stride 1. Padding the kernel to a
    multiple of the stride adds products with zero: 144 for 121.
    """

    def _conv_forward(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        stride, (kernel, _), (top, left) = self.stride[0], self.kernel_size, self.padding
        blocks = -(-kernel // stride)
        bottom, right = (stride * ((size + 2 * before - kernel) // stride + blocks) - size - before
                         for size, before in zip(x.shape[2:], (top, left)))
        x = functional.pad(x, (left, right, top, bottom))
        weight = functional.pad(weight, (0, stride * blocks - kernel) * 2)
        x, weight = (fold_blocks(tensor, stride) for tensor in (x, weight))
        return functional.conv2d(x, weight, bias)


class IeeeConv2d(nn.Conv2d):
    """`nn.Conv2d` with 5x5 kernels and stride 1, whose weight gradient has the precision of IEEE float32.

    On a GPU cuDNN may compute that gradient by Winograd's algorithm, whose error in float32 is 1e-3 (cuDNN 9.19, H200),
    as large as TF32's. It has no such algorithm for 5x6 kernels: this layer adds a sixth column of zeros and drops its
    gradient.
    """

    def _conv_forward(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        y: torch.Tensor = _IeeeConvolution.apply(x, weight, self.padding, self.groups)
        return y if bias is None else y + bias.view(-1, 1, 1)


class _IeeeConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, padding: tuple[int, int],
                groups: int) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.groups = padding, groups
        return functional.conv2d(x, weight, None, 1, padding, 1, groups)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        (x, weight), padding, groups = ctx.saved_tensors, ctx.padding, ctx.groups
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = torch.nn.grad.conv2d_input(x.shape, weight, gradient, 1, padding, 1, groups)
        if ctx.needs_input_grad[1]:
            height, width = padding
            wide = functional.pad(x, (width, width + 1, height, height))
            size = (*weight.shape[:3], weight.shape[3] + 1)
            of_weight = torch.nn.grad.conv2d_weight(wide, size, gradient, 1, 0, 1, groups)[..., :-1]
        return of_x, of_weight, None, None


def keep_to_ieee(net: nn.Sequential) -> None:
    """Replace each convolution that cuDNN might compute by Winograd's algorithm in place; it keeps its parameters."""
    for module in net:
        if type(module) is nn.Conv2d and (module.kernel_size, module.stride) == ((5, 5), (1, 1)):
            module.__class__ = IeeeConv2d


def can_pool(modules: list[nn.Module]) -> bool:
    """Return True for a convolution with a bias, its ReLU and a max-pooling of small windows without padding, which
    `pooling` computes in one."""
    match modules:
        case [nn.Conv2d(bias=torch.Tensor()), nn.ReLU(),
              nn.MaxPool2d(kernel_size=int(kernel), padding=0, ceil_mode=False)]:
            return kernel <= LARGEST_POOLING
    return False


def fold_blocks(x: torch.Tensor, side: int) -> torch.Tensor:
    """Move blocks of side x side pixels into the channels: (n, c, h, w) to (n, c * side**2, h / side, w / side).

    `pixel_unshuffle`, but the result is in channels_last memory, which tensor cores read as it is.
    """
    n, channels, height, width = x.shape
    x = x.reshape(n, channels, height // side, side, width // side, side).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(n, height // side, width // side, channels * side**2).permute(0, 3, 1, 2)


def fold(net: nn.Sequential) -> None:
    """Replace each strided convolution of few channels and one group in place; it keeps its parameters."""
    for module in net:
        if (type(module) is nn.Conv2d and module.stride[0] > 1 and module.groups == 1
                and module.in_channels <= MOST_CHANNELS):
            module.__class__ = FoldedConv2d
