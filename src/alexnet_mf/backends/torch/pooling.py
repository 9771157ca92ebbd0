"""Bias, ReLU and max-pooling of a convolution's output as one kernel, for images in channels_last memory on a GPU.

As separate layers they take seven passes over the largest tensors of the network, forward and backward, and PyTorch's
max-pooling takes five times as long as its memory traffic. The outputs have the same bits as those of the separate
layers: adding a bias rounds to the tensor's type, the first of equal values in a window wins, and no gradient flows
through a window without a positive value. Gradients are summed in another order, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import nn

from alexnet_mf.backends.torch.layers import can_pool

BLOCK = 1024
"""Number of values in a row of pixels that one program computes."""
SPAN, ROWS, COLUMNS = 512, 32, 64
"""Number of pixels whose bias gradient one program sums, and numbers of pixels and channels that it reads at a time."""
NO_WINNER = tl.constexpr(255)
"""Winner of a window without a positive value."""


@triton.jit
def _forward(x, bias, y, winners, height, width, out_height, out_width, channels: tl.constexpr,  # type: ignore[no-untyped-def]
             kernel: tl.constexpr, stride: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    image, top = row // out_height, row % out_height
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < out_width * channels
    left, channel = at // channels * stride, at % channels
    corner = x + (image * height + top * stride) * width * channels
    added = tl.load(bias + channel, mask=inside, other=0.0).to(y.dtype.element_ty).to(tl.float32)
    largest = tl.full((block,), float("-inf"), tl.float32)
    winner = tl.full((block,), 0, tl.int32)
    for i in tl.static_range(kernel):
        for j in tl.static_range(kernel):
            value = tl.load(corner + (i * width + left + j) * channels + channel, mask=inside, other=0.0)
            value = (value.to(tl.float32) + added).to(y.dtype.element_ty).to(tl.float32)
            better = (value > largest) | (value != value)  # NaN wins, as in nn.MaxPool2d
            largest = tl.where(better, value, largest)
            winner = tl.where(better, i * kernel + j, winner)
    out = row * out_width * channels + at
    tl.store(y + out, tl.where(largest <= 0, 0.0, largest).to(y.dtype.element_ty), mask=inside)
    tl.store(winners + out, tl.where(largest <= 0, NO_WINNER, winner).to(tl.uint8), mask=inside)


@triton.jit
def _backward(gradient, winners, result, height, width, out_height, out_width, channels: tl.constexpr,  # type: ignore[no-untyped-def]
              kernel: tl.constexpr, stride: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    image, i = row // height, row % height
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < width * channels
    j, channel = at // channels, at % channels
    total = tl.zeros((block,), tl.float32)
    for a in tl.static_range((kernel + stride - 1) // stride):
        for b in tl.static_range((kernel + stride - 1) // stride):
            top, left = i // stride - a, j // stride - b
            down, across = i - top * stride, j - left * stride
            covers = inside & (top >= 0) & (top < out_height) & (left >= 0) & (left < out_width)
            covers = covers & (down < kernel) & (across < kernel)
            place = ((image * out_height + top) * out_width + left) * channels + channel
            winner = tl.load(winners + place, mask=covers, other=NO_WINNER).to(tl.int32)
            flowing = tl.load(gradient + place, mask=covers, other=0.0).to(tl.float32)
            total += tl.where(winner == down * kernel + across, flowing, 0.0)
    tl.store(result + row * width * channels + at, total.to(result.dtype.element_ty), mask=inside)


@triton.jit
def _bias_gradient(gradient, winners, sums, positions, channels: tl.constexpr, span: tl.constexpr,  # type: ignore[no-untyped-def]
                   rows: tl.constexpr, columns: tl.constexpr):
    channel = tl.program_id(1) * columns + tl.arange(0, columns)
    total = tl.zeros((columns,), tl.float32)
    for start in range(0, span, rows):
        position = tl.program_id(0).to(tl.int64) * span + start + tl.arange(0, rows)
        inside = (position < positions)[:, None] & (channel < channels)[None, :]
        place = position[:, None] * channels + channel[None, :]
        flowing = tl.load(gradient + place, mask=inside, other=0.0).to(tl.float32)
        winner = tl.load(winners + place, mask=inside, other=NO_WINNER).to(tl.int32)
        total += tl.sum(tl.where(winner == NO_WINNER, 0.0, flowing), axis=0)
    tl.store(sums + tl.program_id(0) * channels + channel, total, mask=channel < channels)


class BiasReluMaxPool(torch.autograd.Function):
    """`max_pool2d(relu(x + bias), kernel, stride)` of (n, c, h, w) in channels_last memory."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bias: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
        n, channels, height, width = x.shape
        x = x.contiguous(memory_format=torch.channels_last)
        out_height, out_width = ((size - kernel) // stride + 1 for size in (height, width))
        y = torch.empty((n, channels, out_height, out_width), dtype=x.dtype, device=x.device,
                        memory_format=torch.channels_last)
        winners = torch.empty_like(y, dtype=torch.uint8)
        grid = (n * out_height, triton.cdiv(out_width * channels, BLOCK))
        with torch.cuda.device_of(x):  # Triton launches on the current device
            _forward[grid](x, bias, y, winners, height, width, out_height, out_width, channels, kernel, stride, BLOCK)
        ctx.save_for_backward(winners)
        ctx.geometry = (height, width, kernel, stride)
        ctx.bias_type = bias.dtype
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        (winners,), (height, width, kernel, stride) = ctx.saved_tensors, ctx.geometry
        n, channels, out_height, out_width = gradient.shape
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        result = torch.empty((n, channels, height, width), dtype=gradient.dtype, device=gradient.device,
                             memory_format=torch.channels_last)
        grid = (n * height, triton.cdiv(width * channels, BLOCK))
        with torch.cuda.device_of(gradient):
            _backward[grid](gradient, winners, result, height, width, out_height, out_width, channels, kernel, stride,
                            BLOCK)
        positions = n * out_height * out_width
        sums = torch.empty((triton.cdiv(positions, SPAN), channels), device=gradient.device)
        grid = (len(sums), triton.cdiv(channels, COLUMNS))
        with torch.cuda.device_of(gradient):
            _bias_gradient[grid](gradient, winners, sums, positions, channels, SPAN, ROWS, COLUMNS)
        return result, sums.sum(0).to(ctx.bias_type), None, None


def pooled(net: nn.Sequential) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the network as a function that computes each convolution's bias, ReLU and max-pooling in one."""
    calls = list(steps(list(net)))

    def call(x: torch.Tensor) -> torch.Tensor:
        for step in calls:
            x = step(x)
        return x

    return call


def steps(modules: list[nn.Module]) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """Yield the modules in order, with each convolution, ReLU and max-pooling as one function if possible."""
    while modules:
        if can_pool(modules[:3]):
            yield convolve_and_pool(*modules[:3])
            del modules[:3]
        else:
            yield modules.pop(0)


def convolve_and_pool(convolution: Any, relu: nn.Module, pool: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    def call(x: torch.Tensor) -> torch.Tensor:
        y = convolution._conv_forward(x, convolution.weight, None)
        return BiasReluMaxPool.apply(y, convolution.bias, pool.kernel_size, pool.stride)
    return call
