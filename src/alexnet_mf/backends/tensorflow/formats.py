"""Keras's weights files: `.weights.h5`.

Keras does not store the names of layers. It numbers them by class, in their order: `layers/conv2d`, `layers/conv2d_1`,
..., `layers/dense`, ..., each with `vars/0`, the kernel, and `vars/1`, the bias. Any model with the same convolutions
and dense layers in the same order loads such a file, whatever lies between them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from alexnet_mf.backends.tensorflow import network as native
from alexnet_mf.backends.tensorflow import weights
from alexnet_mf.spec import Network
from alexnet_mf.weights.parameters import Parameters


def encode(network: Network, parameters: Parameters) -> bytes:
    """Return the file that Keras's `save_weights` writes."""
    net = native.build(network)
    weights.load(net, network, parameters)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.weights.h5"
        net.save_weights(path)
        return path.read_bytes()
