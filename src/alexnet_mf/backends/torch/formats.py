"""PyTorch's files of weights: a state_dict, saved by `torch.save` and loaded by `torch.load(weights_only=True)`."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet_mf import spec
from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Network, zoo
from alexnet_mf.spec.layers import Conv2d, Dense, Flatten, Normalize
from alexnet_mf.weights.parameters import Parameters

TORCHVISION = "torchvision"


def encode(file_format: str, network: Network, parameters: Parameters) -> bytes:
    """A state_dict under canonical names, or torchvision's.

    Raises:
        ParametersError: for torchvision's names of a network that it does not have.
    """
    names = {name: name for name in parameters}
    if file_format == TORCHVISION:
        if spec.digest(network) != spec.digest(zoo.ALEXNET_OWT):
            raise ParametersError(f"torchvision's AlexNet is alexnet-owt, not {network.name}; "
                                  "use `destination_format='torch'`")
        names = {canonical: theirs for theirs, canonical in other_names(network).items()
                 if theirs.startswith(("features.", "classifier."))}
    file = io.BytesIO()
    torch.save({names[name]: torch.from_numpy(np.ascontiguousarray(value)) for name, value in parameters.items()}, file)
    return file.getvalue()


def decode(content: bytes, network: Network) -> dict[str, NDArray[Any]]:
    """The tensors of a state_dict, under canonical names where they have one.

    Raises:
        ParametersError: where it is none, or would have to be unpickled.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an odd pickle protocol, say: what matters is what comes out
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # of a file from outside: whatever unpickler, zip reader and tensors raise
        # PyTorch's own message on pickles advises to switch its protection off.
        reason = "it is none, or holds more than tensors" if isinstance(error, pickle.UnpicklingError) else \
            (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ParametersError(f"cannot be read as a PyTorch file that holds tensors alone ({reason}); save "
                              f"model.state_dict() and nothing else") from error
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise ParametersError("holds other things than a state_dict's tensors; save model.state_dict() and nothing "
                              "else")
    canonical = other_names(network)
    return {_name(str(name), canonical, found): _array(str(name), value) for name, value in found.items()}


def other_names(network: Network) -> dict[str, str]:
    """The canonical name for each that other people's modules have.

    A flat `Sequential` numbers its modules, activations too; the book keeps it in `net`. torchvision numbers
    `features`, and from the flattening on `classifier`, each from 0. Pixels are normalised outside of them, as
    by torchvision's transforms: PyTorch has no module for it.
    """
    result: dict[str, str] = {}
    position, flattened = 0, None
    for layer in network.layers:
        if isinstance(layer, Normalize):
            continue
        if isinstance(layer, (Conv2d, Dense)):
            torchvision = f"features.{position}" if flattened is None else f"classifier.{position - flattened}"
            for theirs in (f"{position}", f"net.{position}", torchvision):
                result |= {f"{theirs}.{kind}": f"{layer.name}.{kind}" for kind in ("weight", "bias")}
            position += bool(layer.activation)
        position += 1
        if isinstance(layer, Flatten):
            flattened = position
    return result


def _name(theirs: str, canonical: Mapping[str, str], found: Mapping[str, Any]) -> str:
    """Where a file has both, the canonical one stays and the other is surplus."""
    name = canonical.get(theirs, theirs)
    return theirs if name in found else name


def _array(name: str, value: torch.Tensor) -> NDArray[Any]:
    try:
        return value.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise ParametersError(f"{name} is a tensor of {str(value.dtype).removeprefix('torch.')} ({value.layout}, "
                              f"{value.device}), not of float32; save the model in float32") from error
