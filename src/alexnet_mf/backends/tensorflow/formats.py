"""Keras's weights files: `.weights.h5`, and whole models in `.keras`.

In a weights file Keras does not store the order of layers. It numbers them by class: `layers/conv2d`,
`layers/conv2d_1`, ..., `layers/dense`, ..., each with `vars/0`, the kernel, and `vars/1`, the bias. Any model with the
same convolutions and dense layers in the same order loads such a file, whatever lies between them. Of batch
normalization, `layers/batch_normalization`, all four are kept.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import keras

from alexnet_mf.backends.tensorflow import layers, weights
from alexnet_mf.backends.tensorflow import network as native
from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Network, comparison
from alexnet_mf.weights.parameters import Parameters


def encode(file_format: str, network: Network, parameters: Parameters) -> bytes:
    """Return the file that Keras's `save_weights` or `save` writes. A model has no layers that change nothing.

    Raises:
        ParametersError: for a model with layers that Keras does not have.
    """
    is_model = file_format == "keras-model"
    if is_model:
        network = dataclasses.replace(network, layers=tuple(comparison.without_identities(network)))
    net = native.build(network)
    foreign = [layer.name for layer in net.layers if type(layer).__module__ == layers.__name__ or
               getattr(layer, "activation", None) is layers.gelu_tanh]
    if is_model and foreign:
        raise ParametersError(f"Keras has no layer for {', '.join(foreign)} of {network.name}; use "
                              "`destination_format='keras'`")
    weights.load(net, network, parameters)
    if is_model and network.output == "softmax":
        net.add(keras.layers.Softmax(name="softmax"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("model.keras" if is_model else "model.weights.h5")
        if is_model:
            net.save(path)
        else:
            net.save_weights(path)
        return path.read_bytes()
