"""Paddings that are mistaken for a layer's own."""

from __future__ import annotations

from collections.abc import Iterator

from alexnet_mf.spec.layers import Padding, Windowed, same_padding, sides


def other_paddings(layer: Windowed, shape: tuple[int, ...], most: int) -> Iterator[tuple[str, Padding]]:
    """Yield the paddings that are mistaken for a layer's own, in words and as numbers.

    Args:
        shape: its input's, (n, channels, height, width).
        most: largest number of pixels on a side.
    """
    for words, padding in _candidates(layer, shape, most):
        if padding != layer.padding and min(window_counts(shape, layer.kernel, layer.stride, padding)) > 0:
            yield words, padding


def _candidates(layer: Windowed, shape: tuple[int, ...], most: int) -> Iterator[tuple[str, Padding]]:
    right = layer.padding
    for q in range(most + 1):
        yield f"padding {q} instead of {named(right)}", q
    if isinstance(right, tuple):
        height, width = right
        for words, padding in (("its sides are swapped", (height[::-1], width[::-1])),
                               ("its height and width are swapped", (width, height)),
                               ("rounded down instead of up", ((height[0], min(height)), (width[0], min(width))))):
            if len({*padding[0], *padding[1]}) > 1:  # else it is listed above
                yield f"padding {named(padding)} instead of {named(right)}: {words}", padding
    else:
        total = 2 * sides(right)[0][0] or 1
        for before, after in ((before, total - before) for before in range(total + 1)):
            pair = (before, after), (before, after)
            windows = [window_counts(shape, layer.kernel, layer.stride, padding) for padding in (before, pair)]
            if before != after and max(before, after) <= most and windows[0] != windows[1]:  # else as `before`
                yield f"asymmetric padding: {before} at the top and left, {after} at the bottom and right", pair
    same = same_padding(shape[2:], layer.kernel, layer.stride)
    if any(before != after for before, after in same):
        yield f"padding as TensorFlow's `same` has it ({named(same)})", same


def named(padding: Padding) -> str:
    """Return a padding in words: one number, or that of each side."""
    if not isinstance(padding, tuple):
        return f"{padding}"
    (top, bottom), (left, right) = padding
    return f"{top} top, {bottom} bottom, {left} left, {right} right"


def window_counts(shape: tuple[int, ...], kernel: int, stride: int, padding: Padding) -> list[int]:
    """Return the numbers of windows in height and width of an image (n, channels, height, width)."""
    return [(size + sum(pair) - kernel) // stride + 1 for size, pair in zip(shape[2:], sides(padding))]
