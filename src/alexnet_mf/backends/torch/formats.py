"""PyTorch's weights files: a state_dict, saved by `torch.save`."""

from __future__ import annotations

import io

import numpy as np
import torch

from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Network
from alexnet_mf.weights import names
from alexnet_mf.weights.parameters import Parameters


def encode(file_format: str, network: Network, parameters: Parameters) -> bytes:
    """Return a state_dict under canonical names, torchvision's, or those of the book's class.

    Raises:
        ParametersError: for torchvision's names of another network.
    """
    modules = {}
    if file_format == "torchvision":
        if not names.is_alexnet_owt(network):
            raise ParametersError(f"torchvision's AlexNet is alexnet-owt, not {network.name}; "
                                  "use `destination_format='torch'`")
        modules = names.torchvision(network)
    elif file_format == "torch-book":
        modules = {layer: f"net.{number}" for layer, number in names.numbered(network).items()}
    file = io.BytesIO()
    torch.save({names.rename(name, modules): torch.from_numpy(np.ascontiguousarray(value))
                for name, value in parameters.items()}, file)
    return file.getvalue()
