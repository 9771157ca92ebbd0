"""Compare two networks layer by layer, without regard to names and to what only training uses."""

from __future__ import annotations

import dataclasses
import math

from alexnet_mf.spec import arithmetic
from alexnet_mf.spec.layers import AdaptiveAvgPool2d, Dropout, Layer, Normalize
from alexnet_mf.spec.network import Network


def differences(described: Network, network: Network) -> list[str]:
    """Return a clause for each layer or field of `network` that differs in the network that a file describes.

    Dropout is left out, and so are the momentum of batch normalization and means over areas of one pixel. If the file
    has no `Normalize`, the other network may have one: in other programs it is a transform of the data.
    """
    faults = []
    if described.input != network.input:
        faults.append(f"input is {_text(described.input)} in the file, {_text(network.input)} in {network.name}")
    theirs, ours = _computing(described), _computing(network)
    if ours and isinstance(ours[0], Normalize) and not (theirs and isinstance(theirs[0], Normalize)):
        ours = ours[1:]
    for their, our in zip(theirs, ours):
        if type(their) is not type(our):
            return [*faults, f"{our.name} is {type(our).__name__} in {network.name}, but the file has "
                             f"{type(their).__name__} there"]
        for field in dataclasses.fields(our):
            his, my = getattr(their, field.name), getattr(our, field.name)
            if field.name not in ("name", "momentum") and not is_close(his, my):
                faults.append(f"{our.name}: {field.name} is {_text(his)} in the file, {_text(my)} in {network.name}")
    for longer, shorter, place in ((theirs, ours, "the file"), (ours, theirs, network.name)):
        if len(longer) > len(shorter):
            faults.append(f"only {place} has {', '.join(layer.name for layer in longer[len(shorter):])}")
    return faults


def _computing(network: Network) -> list[Layer]:
    """Return the layers that change their input in evaluation."""
    return [layer for layer in without_identities(network) if not isinstance(layer, Dropout)]


def without_identities(network: Network) -> list[Layer]:
    """Return the layers without those that never change their input: means over areas of one pixel."""
    inputs = arithmetic.input_shapes(network)
    return [layer for layer in network.layers if not
            (isinstance(layer, AdaptiveAvgPool2d) and inputs[layer.name][1:] == (layer.size, layer.size))]


def is_close(value: object, other: object) -> bool:
    """Return True for equal values. Numbers may differ by a rounding to float32, as files store them."""
    if isinstance(value, tuple) and isinstance(other, tuple):
        return len(value) == len(other) and all(map(is_close, value, other))
    return value == other or (isinstance(value, float) and isinstance(other, float) and
                              math.isclose(value, other, rel_tol=1e-6, abs_tol=1e-37))


def _text(value: object) -> str:
    if isinstance(value, tuple) and all(isinstance(size, int) for size in value):
        return "x".join(map(str, value))
    return "none" if value is None else str(value)
