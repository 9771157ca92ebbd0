"""The spec as an ONNX graph: the checker accepts it, and ONNX Runtime, an independent program, gives the logits."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from sizes import by_size

from alexnet_mf import backends, spec
from alexnet_mf.data.preprocessing import PIXEL_SCALE, to_inputs
from alexnet_mf.errors import ParametersError
from alexnet_mf.parity.tolerances import TIERS, relative_l2
from alexnet_mf.spec import Network, Preprocessing, zoo
from alexnet_mf.spec.preprocessing import CAFFE, FASHION_MNIST, IMAGENET
from alexnet_mf.weights import onnx_graph, parameters

TOLERANCE = TIERS["float32"].output
EVERYTHING = Network("everything", (2, 23, 19), (
    spec.Normalize("normalize", mean=(0.1, 0.4), std=(0.2, 0.7)),
    spec.Conv2d("conv1", channels=6, kernel=4, stride=2, padding=((3, 2), (0, 4)), activation=None, groups=2),
    spec.LocalResponseNorm("norm1", 5, 0.5, 0.75, 2.0),
    spec.MaxPool2d("pool1", kernel=3, stride=2, padding=((1, 2), (0, 1))),
    spec.Conv2d("conv2", channels=4, kernel=1, activation="sigmoid", bias=False),
    spec.AvgPool2d("pool2", kernel=2, stride=1, padding=((0, 1), (1, 0))),
    spec.AdaptiveAvgPool2d("pool3", size=3), spec.Conv2d("conv3", 5, 2, activation="leaky_relu", alpha=0.3),
    spec.Flatten("flatten"), spec.Dropout("drop4", rate=0.5), spec.Dense("fc4", units=7, activation="tanh"),
    spec.Dense("fc5", units=6, activation="elu", alpha=0.6), spec.Dense("fc6", units=6, activation="gelu", bias=False),
    spec.Dense("fc7", units=6, activation="gelu_tanh"), spec.Dense("fc8", units=3)))
"""Every layer type, with numbers that reveal faults: sizes that do not divide, areas that overlap."""


def images(network: Network, count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((count, *network.input), dtype=np.float32)


def runtime_logits(content: bytes, *batches: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return [session.run(["logits"], {"pixels": batch})[0] for batch in batches]


def logits(backend: str, network: Network, weights: parameters.Parameters, batch: np.ndarray) -> np.ndarray:
    model = backends.load(backend).build(network, weights)
    return model.logits(model.place(batch, np.zeros(len(batch), np.int64)), len(batch))


ARCHITECTURES = {spec.digest(network): network.name for network in map(zoo.get_network, zoo.NETWORKS)}
"""Names of networks by architecture: the three tabs have two, one of them that of `alexnet`."""


@pytest.mark.parametrize("net", by_size(ARCHITECTURES.values()))
def test_onnx_runtime_gives_the_logits_of_every_backend(net, present):
    """One test compares all backends, so that a network's weights are drawn once."""
    network = zoo.get_network(net)
    weights = parameters.initialize(network, 0, random_biases=True)
    content = onnx_graph.encode(network, weights)
    batch = images(network, 2)
    actual = runtime_logits(content, batch)[0]
    assert np.ptp(actual) > 0.01
    errors = {name: relative_l2(actual, logits(name, network, weights, batch)) for name in {*present, "numpy"}}
    assert max(errors.values()) < 2 * TOLERANCE, errors  # two float32 computations, each within one of the truth
    assert errors["numpy"] < TOLERANCE, errors


@pytest.mark.parametrize("net", ["tensorflow", "mxnet"])
def test_tabs_without_padding_are_written_without_padding(net):
    network = zoo.TABS[net]
    model = onnx_graph.build(network, {})
    pads = next(attribute.ints for attribute in model.graph.node[0].attribute if attribute.name == "pads")
    assert list(pads) == [0, 0, 0, 0]


def test_every_layer_type_matches_the_reference():
    weights = parameters.initialize(EVERYTHING, 1, random_biases=True)
    model = onnx_graph.build(EVERYTHING, weights)
    layers = [layer.name for layer in EVERYTHING.layers if not isinstance(layer, spec.Dropout)]
    for name in layers[:-1]:  # the last one's is the graph's own
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    batch = images(EVERYTHING)
    actual = dict(zip(layers, session.run([*layers[:-1], "logits"], {"pixels": batch})))
    reference = backends.load("numpy").build(EVERYTHING, weights)
    expected = reference.outputs(reference.place(batch, np.zeros(len(batch), np.int64)))
    for name in layers:
        assert actual[name].shape == expected[name].shape, name
        assert np.ptp(expected[name]) > 0.001, name
        assert relative_l2(actual[name], expected[name]) < TOLERANCE, name


@pytest.mark.parametrize("layer, change", [
    ("normalize", {"mean": (0.4, 0.1)}), ("normalize", {"std": (0.7, 0.2)}), ("normalize", {"std": (1.0, 1.0)}),
    ("norm1", {"alpha": 0.1}), ("norm1", {"size": 3}), ("norm1", {"k": 1.0}), ("pool2", {"count_padding": True}),
    ("pool1", {"padding": ((2, 1), (1, 0))}), ("conv1", {"padding": ((2, 3), (4, 0))}),
    ("conv2", {"activation": "relu"}), ("conv3", {"alpha": 0.2}), ("fc4", {"activation": "relu"}),
    ("fc5", {"alpha": 1.0})])
def test_another_network_changes_the_logits(layer, change):
    """Both networks have the same parameters."""
    other = replace(EVERYTHING, layers=tuple(replace(old, **change) if old.name == layer else old
                                             for old in EVERYTHING.layers))
    weights, batch = parameters.initialize(EVERYTHING, 1, random_biases=True), images(EVERYTHING)
    actual = runtime_logits(onnx_graph.encode(other, weights), batch)[0]
    assert relative_l2(actual, logits("numpy", other, weights, batch)) < TOLERANCE
    assert relative_l2(actual, logits("numpy", EVERYTHING, weights, batch)) > 10 * TOLERANCE


def test_the_file_passes_the_checker_and_takes_any_batch():
    weights = parameters.initialize(EVERYTHING, 1, random_biases=True)
    content = onnx_graph.encode(EVERYTHING, weights)
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    [graph_input], [output] = model.graph.input, model.graph.output
    assert [size.dim_param or size.dim_value for size in graph_input.type.tensor_type.shape.dim] == ["N", 2, 23, 19]
    assert [size.dim_param or size.dim_value for size in output.type.tensor_type.shape.dim] == ["N", 3]
    batch = images(EVERYTHING, 7)
    whole, first = runtime_logits(content, batch, batch[:1])
    assert whole.shape == (7, 3)
    assert relative_l2(first, whole[:1]) < TOLERANCE
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert parameters.digest({name: stored[name] for name in weights}) == parameters.digest(weights)
    assert {prop.key: prop.value for prop in model.metadata_props} == {
        "network": "everything", "spec_sha256": spec.fingerprint(EVERYTHING),
        "spec": json.dumps(spec.as_dict(EVERYTHING))}
    assert model.graph.doc_string == model.doc_string == "pixels: float32 (N, 2, 23, 19); scaled to [0, 1]"


def test_a_softmax_ends_the_graph_alone():
    network = replace(EVERYTHING, output="softmax")
    weights, batch = parameters.initialize(network, 1, random_biases=True), images(network)
    session = onnxruntime.InferenceSession(onnx_graph.encode(network, weights), providers=["CPUExecutionProvider"])
    [probabilities] = session.run(None, {"pixels": batch})
    assert [output.name for output in session.get_outputs()] == ["probabilities"]
    powers = np.exp(logits("numpy", network, weights, batch))
    assert relative_l2(probabilities, powers / powers.sum(axis=1, keepdims=True)) < TOLERANCE
    assert relative_l2(powers, np.exp(logits("numpy", EVERYTHING, weights, batch))) == 0


def test_weights_over_two_gigabytes_are_refused():
    large = Network("large", (1, 1, 1), (spec.Flatten("flatten"), spec.Dense("fc1", units=30_000),
                                         spec.Dense("fc2", units=30_000)))
    weights = {name: np.broadcast_to(np.float32(0), shape) for name, shape in parameters.shapes(large).items()}
    with pytest.raises(ParametersError, match=r"large: its weights take 3\.6 GB, more than the 2 GB of"):
        onnx_graph.encode(large, weights)


# Preprocessing


def small(*shape: int, layers: tuple[spec.Layer, ...] = ()) -> Network:
    return Network("small", shape, (*layers, spec.Conv2d("conv1", channels=4, kernel=3), spec.Flatten("flatten"),
                                    spec.Dense("fc2", units=3)))


def entry(model: onnx.ModelProto, key: str) -> Any:
    """Return an entry of the metadata; None if there is none."""
    return next((json.loads(prop.value) for prop in model.metadata_props if prop.key == key), None)


@pytest.mark.parametrize("network, record, pixels", [
    (zoo.LENET5, FASHION_MNIST, "(N, 1, 28, 28); gray; resized to fit 28x28, centered on black; scaled to [0, 1]"),
    (zoo.ALEXNET, FASHION_MNIST, f"(N, 1, 224, 224); {FASHION_MNIST.describe((224, 224))}"),
    (zoo.ALEXNET_OWT, IMAGENET, f"(N, 3, 224, 224); {IMAGENET.describe()}"),
    (zoo.ALEXNET_OWT, None, "(N, 3, 224, 224); preprocessed as in training; the weights file does not state how")],
    ids=lambda each: getattr(each, "name", ""))
def test_the_file_states_the_preprocessing_of_its_input(network, record, pixels):
    model = onnx_graph.build(network, {}, record, list("abcdefghij"))
    assert model.doc_string == model.graph.doc_string == f"pixels: float32 {pixels}"
    assert entry(model, "preprocessing") == (record and record.as_dict())
    assert entry(model, "classes") == (list("abcdefghij") if network.classes == 10 else None)


@pytest.mark.parametrize("network, record", [
    (small(1, 8, 8), Preprocessing("gray", resize=(8, 8))),
    (small(1, 8, 8), Preprocessing("gray", resize=(8, 8), mean=(0.3,), std=(0.2,))),
    (small(1, 8, 8, layers=(spec.Normalize("n", (0.3,), (0.2,)),)), Preprocessing("gray", resize=(8, 8))),
    (small(1, 8, 8), Preprocessing("gray", resize=(8, 8), scale=1)),
    (small(3, 8, 9), Preprocessing("rgb", resize=8, crop=(8, 9), mean=IMAGENET.mean, std=IMAGENET.std)),
    (small(3, 8, 9), replace(CAFFE, resize=(9, 9), crop=(8, 9))),
    (small(3, 8, 9), Preprocessing("bgr", crop=(8, 9), scale=2 / 255, mean=(1, 0.9, 1.1), std=(0.5, 1, 2)))],
    ids=lambda each: each.describe() if isinstance(each, Preprocessing) else "")
def test_a_baked_graph_takes_levels_and_gives_the_same_logits(network, record):
    weights = parameters.initialize(network, 0, random_biases=True)
    shape = network.input[1:] + (3,) * (network.input[0] == 3)
    levels = np.random.default_rng(0).integers(0, 256, (5, *shape)).astype(np.uint8)
    channels = levels[:, np.newaxis] if levels.ndim == 3 else levels.transpose(0, 3, 1, 2)
    inputs = to_inputs(levels, record)
    inputs = inputs[:, np.newaxis] * PIXEL_SCALE if inputs.dtype == np.uint8 else inputs
    expected = runtime_logits(onnx_graph.encode(network, weights, record), inputs)[0]
    content = onnx_graph.encode(network, weights, record, bake=True)
    assert relative_l2(runtime_logits(content, channels.astype(np.float32))[0], expected) < TOLERANCE
    model = onnx.load_from_string(content)
    left = Preprocessing.from_dict(entry(model, "preprocessing"))  # steps before the graph
    assert left == replace(record, color="gray" if record.color == "gray" else "rgb", scale=1, mean=None, std=None)
    assert model.doc_string.endswith("; levels 0 to 255")
    assert np.ptp(expected) > 0.1


def test_equal_weights_and_metadata_give_equal_bytes():
    weights = parameters.initialize(small(1, 8, 8), 0)
    record = Preprocessing("gray", resize=(8, 8), mean=(0.3,), std=(0.2,))
    for bake in (False, True):
        first, second = (onnx_graph.encode(small(1, 8, 8), weights, record, ["ä", "b", "c"], bake) for _ in range(2))
        assert first == second and entry(onnx.load_from_string(first), "classes") == ["ä", "b", "c"]
