"""PyTorch's weights files: a state_dict, saved by `torch.save` and loaded by `torch.load(weights_only=True)`."""

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
from alexnet_mf.backends.torch import weights
from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Network, arithmetic, zoo
from alexnet_mf.spec.layers import LEARNERS, Conv2d, Flatten, Normalize, even_padding
from alexnet_mf.weights.parameters import STATE, Parameters

TORCHVISION = "torchvision"


def encode(file_format: str, network: Network, parameters: Parameters) -> bytes:
    """Return a state_dict under canonical names or torchvision's.

    Raises:
        ParametersError: for torchvision's names of another network.
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
    """Return the tensors of a state_dict, under their canonical names if they have one.

    Raises:
        ParametersError: if it is not a state_dict, or would have to be unpickled.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # for example about an odd pickle protocol: only the result matters
            tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickler, zip reader and tensors raise for a file from outside
        # PyTorch's own message on pickles advises to switch its protection off.
        reason = "it is not one, or contains other objects" if isinstance(error, pickle.UnpicklingError) else \
            (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ParametersError(f"cannot be read as a PyTorch file of tensors alone ({reason}); save "
                              "model.state_dict() and nothing else") from error
    if not isinstance(tensors, Mapping) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise ParametersError("contains other objects than a state_dict's tensors; save model.state_dict() and nothing "
                              "else")
    canonical = other_names(network)
    return {_name(str(name), canonical, tensors): _array(str(name), value) for name, value in tensors.items()
            if not str(name).endswith(weights.COUNTER)}


def other_names(network: Network) -> dict[str, str]:
    """Return the canonical name for each name in common modules.

    A flat `Sequential` numbers its modules, activations and `ZeroPad2d` included; the book keeps it in `net`.
    torchvision numbers `features`, and after the flattening `classifier`, each from 0. None of them normalizes pixels;
    torchvision's transforms do.
    """
    result: dict[str, str] = {}
    position, flattened = 0, None
    inputs = arithmetic.input_shapes(network)
    for layer in network.layers:
        if isinstance(layer, Normalize):
            continue
        position += isinstance(layer, Conv2d) and even_padding(layer, inputs[layer.name]) is None
        if isinstance(layer, LEARNERS):
            torchvision = f"features.{position}" if flattened is None else f"classifier.{position - flattened}"
            for theirs in (f"{position}", f"net.{position}", torchvision):
                result |= {f"{theirs}.{part}": f"{layer.name}.{part}" for part in ("weight", "bias", *STATE)}
            position += bool(layer.activation)
        position += 1
        if isinstance(layer, Flatten):
            flattened = position
    return result


def _name(theirs: str, canonical: Mapping[str, str], tensors: Mapping[str, Any]) -> str:
    """Return the canonical name of a tensor; its own if the file has both, which makes it surplus."""
    name = canonical.get(theirs, theirs)
    return theirs if name in tensors else name


def _array(name: str, value: torch.Tensor) -> NDArray[Any]:
    try:
        return value.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise ParametersError(f"{name} is a tensor of {str(value.dtype).removeprefix('torch.')} ({value.layout}, "
                              f"{value.device}), not of float32; save the model in float32") from error
