"""Tensors under other programs' names, orders, layouts and dtypes; and those that could be read in two ways."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from alexnet_mf import spec
from alexnet_mf.errors import Notice, ParametersError
from alexnet_mf.models import build
from alexnet_mf.spec import Network, zoo
from alexnet_mf.weights import layouts, matching, names, parameters
from alexnet_mf.weights.matching import identify, load, match
from alexnet_mf.weights.stored import Layout, StoredTensor, StoredWeights, from_mapping

SAME = Network("same", (2, 6, 6), (
    spec.Conv2d("conv1", channels=2, kernel=3, padding=1), spec.Conv2d("conv2", channels=2, kernel=3, padding=1),
    spec.MaxPool2d("pool2", 2, 2), spec.Flatten("flatten"), spec.Dense("fc3", 18, activation="relu"),
    spec.Dense("fc4", 18, activation="relu"), spec.Dense("fc5", 3)))
"""Network with layers of equal shapes, and with square weights."""


def stored(tensors: Mapping[str, np.ndarray], layout: Layout | None = "OIHW", **about: Any) -> StoredWeights:
    def tensor(value: np.ndarray) -> StoredTensor:
        return StoredTensor(value.dtype.name, value.shape, lambda: value)
    return StoredWeights({name: tensor(value) for name, value in tensors.items()}, layout, **about)


def weights(network: Network) -> parameters.Parameters:
    return parameters.initialize(network, 0, random_biases=True)


def turned(network: Network) -> dict[str, np.ndarray]:
    """Return the weights in TensorFlow's layout."""
    images = layouts.flattened_shapes(network)
    return {name: layouts.to_native(value, images.get(name)) for name, value in weights(network).items()}


def renamed(network: Network, modules: Mapping[str, str], prefix: str = "") -> dict[str, np.ndarray]:
    return {prefix + names.rename(name, modules): value for name, value in weights(network).items()}


def assert_read(file: StoredWeights, network: Network, *notes: str, any_classes: bool = False) -> None:
    matched = match(file, network, any_classes)
    values, all_notes = load(file, matched)
    assert parameters.digest(values) == parameters.digest(weights(matched.network))
    assert list(values) == list(parameters.shapes(matched.network))
    assert all_notes == notes


# Names


def test_canonical_names_need_no_note(small):
    assert_read(stored(weights(small)), small)
    assert_read(stored(weights(small), None), small)


@pytest.mark.parametrize("scheme", ["numbered", "torchvision", "blocks"])
def test_numbered_names_are_matched(small, scheme):
    assert_read(stored(renamed(small, names.SCHEMES[scheme](small))), small)


@pytest.mark.parametrize("prefix, words", [
    ("module.", "`module.`"), ("_orig_mod.", "`_orig_mod.`"), ("model.", "`model.`"), ("net.", "`net.`"),
    ("module.module.", "`module.`"), ("_orig_mod.module.", "`_orig_mod.` and `module.`"),
    ("module.model.net.", "`module.` and `model.` and `net.`"), ("pl.any.", "`pl.` and `any.`")])
def test_prefixes_are_removed_and_named(small, prefix, words):
    for scheme in (names.numbered, names.torchvision, lambda network: {}):
        assert_read(stored(renamed(small, scheme(small), prefix)), small, f"names without {words}")


def test_a_wrapper_inside_the_names_is_removed(small):
    tensors = {name.replace("features.", "features.module."): value
               for name, value in renamed(small, names.torchvision(small)).items()}
    assert_read(stored(tensors), small, "names without `module.`")


@pytest.mark.parametrize("pattern", ["{layer}/kernel:0 {layer}/bias:0", "{layer}_weight {layer}_bias",
                                     "arg:{layer}_weight arg:{layer}_bias", "{layer}.W {layer}.b",
                                     "{layer}/weights {layer}/biases", "{layer}/vars/0 {layer}/vars/1"])
def test_other_words_for_weight_and_bias_are_known(small, pattern):
    words = dict(zip(("weight", "bias"), pattern.split()))
    tensors = {words[name.split(".")[1]].format(layer=name.split(".")[0]): value
               for name, value in weights(small).items()}
    assert_read(stored(tensors), small)


def test_a_built_in_network_takes_the_files_classes():
    five = spec.with_classes(zoo.LENET5, 5)
    assert five.name == "lenet5-5-classes"
    assert_read(stored(weights(five)), zoo.LENET5, "5 classes, where lenet5 has 10", any_classes=True)
    assert_read(stored(renamed(five, {"conv1": "a", "conv2": "b", "fc3": "c", "fc4": "d", "fc5": "e"})), zoo.LENET5,
                "5 classes, where lenet5 has 10", any_classes=True)
    with pytest.raises(ParametersError, match=r"fc5.weight is \(5, 84\), not \(10, 84\)"):
        match(stored(weights(five)), zoo.LENET5)


# Order and shape


def test_unknown_names_are_matched_by_order_and_shape(small):
    modules = {"conv1": "first", "conv2": "second", "fc3": "third", "fc4": "fourth"}
    assert_read(stored(renamed(small, modules)), small)
    tensors = list(renamed(small, modules).items())
    random.Random(0).shuffle(tensors)
    assert_read(stored(dict(tensors), is_ordered=False), small)


def test_layers_of_equal_shapes_follow_the_files_order():
    modules = {"conv1": "b", "conv2": "a", "fc3": "d", "fc4": "c", "fc5": "last"}
    assert_read(stored(renamed(SAME, modules)), SAME,
                "matched by order and shape: conv1 = b, conv2 = a, fc3 = d, fc4 = c, fc5 = last")
    with pytest.raises(ParametersError, match=r"the order of b, a is not certain, and their shapes are equal; name "
                                              "them conv1, conv2, each with .weight and .bias"):
        match(stored(renamed(SAME, modules), is_ordered=False), SAME)


def test_numbers_in_names_give_an_order_that_the_file_may_not_contradict():
    modules = {"conv1": "block2.conv", "conv2": "block10.conv", "fc3": "fc9", "fc4": "fc10", "fc5": "fc11"}
    tensors = renamed(SAME, modules)
    note = "matched by order and shape: conv1 = block2.conv, conv2 = block10.conv, fc3 = fc9, fc4 = fc10, fc5 = fc11"
    assert_read(stored(tensors), SAME, note)
    assert_read(stored(dict(sorted(tensors.items())), is_ordered=False), SAME, note)
    with pytest.raises(ParametersError, match=r"the order of fc9, fc10 is not certain|block"):
        match(stored(dict(sorted(tensors.items()))), SAME)
    keras = {"conv1": "conv2d", "conv2": "conv2d_1", "fc3": "dense", "fc4": "dense_1", "fc5": "dense_2"}
    assert_read(stored(renamed(SAME, keras)), SAME, "matched by order and shape: conv1 = conv2d, conv2 = conv2d_1, "
                "fc3 = dense, fc4 = dense_1, fc5 = dense_2")


# Layouts


def test_arrays_in_tensorflows_layout_are_recognized_by_all_tensors_together():
    assert_read(stored(turned(SAME), "HWIO"), SAME)
    network = dataclasses.replace(SAME, layers=(spec.Conv2d("conv1", channels=2, kernel=3, padding=1),
                                                *SAME.layers[2:]))
    assert turned(network)["fc4.weight"].shape == (18, 18)
    assert_read(stored(turned(network), None), network, matching.TENSORFLOW_LAYOUT)
    assert_read(stored({name.replace("fc", "dense_"): value for name, value in turned(network).items()}, None), network,
                "matched by order and shape: conv1 = conv1, fc3 = dense_3, fc4 = dense_4, fc5 = dense_5",
                matching.TENSORFLOW_LAYOUT)


def test_a_mixture_of_layouts_is_refused(small):
    network = dataclasses.replace(SAME, layers=(spec.Conv2d("conv1", channels=2, kernel=3, padding=1),
                                                *SAME.layers[2:]))
    mixed = {name: turned(network)[name] if name == "conv1.weight" else value
             for name, value in weights(network).items()}
    with pytest.raises(ParametersError, match=r"conv1.weight is \(3, 3, 2, 2\), not \(2, 2, 3, 3\); conv1.weight would "
                                              "fit in TensorFlow's layout; bring all tensors, square ones too"):
        match(stored(mixed, None), network)


def test_square_weights_under_unknown_names_are_refused():
    dense = Network("dense", (1, 2, 2), (spec.Flatten("flatten"), spec.Dense("fc1", 4), spec.Dense("fc2", 4)))
    assert_read(stored(weights(dense), None), dense)
    kernels = {f"{name.replace('.weight', '/kernel').replace('.bias', '/bias')}:0": value
               for name, value in turned(dense).items()}
    with pytest.raises(ParametersError, match=r"fits in PyTorch's layout and in TensorFlow's; write it under"):
        match(stored(kernels, None), dense)
    assert_read(stored(kernels, "HWIO"), dense)
    with pytest.raises(ParametersError, match=r"fits in PyTorch's layout and in TensorFlow's; write it under"):
        match(stored(renamed(dense, {"fc1": "dense1", "fc2": "dense2"}), None), dense)


# Dtypes and values


@pytest.mark.parametrize("dtype, note", [("float16", "float16 was widened to float32"),
                                         ("float64", "float64 was rounded to float32")])
def test_other_floats_are_converted_and_named(small, dtype, note):
    tensors = {name: value.astype(dtype) for name, value in weights(small).items()}
    values, notes = load(stored(tensors), match(stored(tensors), small))
    assert notes == (note,)
    for name, value in values.items():
        np.testing.assert_array_equal(value, tensors[name].astype(np.float32))


@pytest.mark.parametrize("value, fault", [(np.nan, "NaN or infinity"), (-np.inf, "NaN or infinity"),
                                          (1e39, "values beyond float32")])
def test_values_that_are_no_float32_are_refused(small, value, fault):
    tensors = {name: each.astype(np.float64) for name, each in weights(small).items()}
    tensors["fc3.bias"][3] = value
    with pytest.raises(ParametersError, match=f"fc3.bias contains {fault}"):
        load(stored(tensors), match(stored(tensors), small))


def test_integers_are_refused(small):
    tensors = {name: value.astype(np.int64) for name, value in weights(small).items()}
    with pytest.raises(ParametersError, match=r"conv1.weight is int64, not a float"):
        match(stored(tensors), small)


# The network


def test_a_described_network_is_compared_layer_by_layer(small):
    first = dataclasses.replace(small.layers[0], activation="sigmoid", stride=3)
    other = Network("other", small.input, (first, *small.layers[1:4], *small.layers[4:]))
    described = stored({name.upper(): value for name, value in weights(small).items()}, network=small,
                       names={name: name.upper() for name in weights(small)})
    assert_read(described, small)
    assert identify(described).network == small
    with pytest.raises(ParametersError, match=r"network than other: conv1: stride is 2 in the file, 3 in other; "
                                              "conv1: activation is relu in the file, sigmoid in other; leave"):
        match(described, other)
    pooled = dataclasses.replace(small, name="pooled", layers=tuple(
        spec.AvgPool2d(layer.name, layer.kernel, layer.stride) if isinstance(layer, spec.MaxPool2d) else layer
        for layer in small.layers))
    with pytest.raises(ParametersError, match=r"pool1 is AvgPool2d in pooled, but the file has MaxPool2d there"):
        match(described, pooled)
    shorter = dataclasses.replace(small, name="shorter", layers=small.layers[:-2])
    with pytest.raises(ParametersError, match=r"only the file has fc4"):
        match(described, shorter)


def test_a_description_without_names_in_common_is_matched_by_position(small):
    theirs = {"conv1": "c", "conv2": "d", "fc3": "e", "fc4": "f"}
    other = dataclasses.replace(small, name="other", layers=tuple(
        dataclasses.replace(layer, name=theirs.get(layer.name, layer.name)) for layer in small.layers))
    described = stored(weights(small), network=other, names={f"{theirs[name.split('.')[0]]}.{name.split('.')[1]}": name
                                                             for name in weights(small)})
    assert_read(described, small)


def test_a_described_network_keeps_its_classes_and_its_softmax():
    five = dataclasses.replace(spec.with_classes(zoo.LENET5, 5), name="theirs", output="softmax")
    described = stored(weights(five), network=five, names={name: name for name in weights(five)})
    matched = match(described, zoo.LENET5, any_classes=True)
    assert matched.network == dataclasses.replace(five, name="lenet5-5-classes")
    assert matched.notes == ("5 classes, where lenet5 has 10",)
    with pytest.raises(ParametersError, match=r"fc5: units is 5 in the file, 10 in lenet5"):
        match(described, zoo.LENET5)


def test_a_described_built_in_network_gets_its_name():
    network = dataclasses.replace(spec.with_dropout(zoo.LENET5_RELU, 0.1), name="theirs")
    described = stored(weights(network), network=network, names={name: name for name in weights(network)})
    assert identify(described).network == zoo.LENET5_RELU


def test_torchvisions_names_tell_the_network():
    five = spec.with_classes(zoo.ALEXNET_OWT, 5)
    shapes = parameters.shapes(five)
    modules = names.torchvision(zoo.ALEXNET_OWT)
    assert modules["conv3"] == "features.6" and modules["fc8"] == "classifier.6"
    for prefix in ("", "module."):
        tensors = {prefix + names.rename(name, modules): StoredTensor("float32", shape, lambda: np.zeros(0))
                   for name, shape in shapes.items()}
        assert identify(StoredWeights(tensors)).network == five


def test_known_names_do_not_hide_a_description(monkeypatch):
    """A symbol file of MXNet describes the layers, but not the shape of the input."""
    layers = tuple(dataclasses.replace(layer, activation="sigmoid") if layer.name == "conv1" else layer
                   for layer in zoo.ALEXNET_OWT.layers)
    tensors = {names.rename(name, names.MODEL_ZOO): StoredTensor("float32", shape, lambda: np.zeros(0))
               for name, shape in parameters.shapes(zoo.ALEXNET_OWT).items()}
    described = StoredWeights(tensors, layers=layers, names={
        name: names.rename(name, names.MODEL_ZOO) for name in parameters.shapes(zoo.ALEXNET_OWT)})
    with pytest.raises(ParametersError, match=r"another network than alexnet-owt: conv1: activation is sigmoid in the"):
        identify(described)


def test_a_network_that_normalizes_says_so(small):
    normalized = dataclasses.replace(small, layers=(spec.Normalize("norm0", (0.3,), (0.4,)), *small.layers))
    described = stored(weights(small), network=small, names={name: name for name in weights(small)})
    assert match(described, normalized).notes == ("the file does not normalize pixels, small does",)


def test_a_description_gets_a_name_of_its_own(small):
    network = dataclasses.replace(small, name="alexnet")
    described = stored(weights(network), network=network, names={name: name for name in weights(network)})
    assert identify(described).network == dataclasses.replace(small, name="my-alexnet")


def test_tensors_alone_do_not_tell_the_network():
    with pytest.raises(ParametersError, match=r"its tensors fit lenet5 and lenet5-relu: name the network with `net`"):
        identify(stored(weights(zoo.LENET5)))
    with pytest.raises(ParametersError, match=r"does not name its network; name the network with `net`"):
        identify(stored({"x": np.zeros(3)}))


def test_the_error_names_the_networks_that_fit(small):
    with pytest.raises(ParametersError, match=r"not the parameters of small: .*; surplus fc5.bias; its tensors fit "
                                              "lenet5 and lenet5-relu: name the network with `net`"):
        match(stored(weights(zoo.LENET5)), small)


def test_a_file_of_too_many_tensors_is_refused_at_once(small):
    many = {str(i): StoredTensor("float32", (1,), lambda: np.zeros(1)) for i in range(20_000)}
    with pytest.raises(ParametersError, match=r"20,000 tensors, or names of over 1,000 letters"):
        match(StoredWeights(many), small)


# Tensors of frameworks


def test_tensors_of_any_framework_are_taken(small, backend):
    values = weights(small)
    model = backend.build(small, values)
    assert parameters.digest(model.export()) == parameters.digest(values)
    if backend.name == "torch":
        import torch

        tensors: dict[str, Any] = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in values.items()}
    elif backend.name == "tensorflow":
        import tensorflow as tf

        tensors = {name: tf.Variable(value) for name, value in turned(small).items()}
    elif backend.name == "mxnet":
        import mxnet as mx

        tensors = {name: mx.nd.array(value) for name, value in values.items()}
    else:
        tensors = dict(values)
    assert_read(from_mapping(tensors), small)


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(ParametersError, match=r"two tensors are named 1; give each a name of its own"):
        from_mapping({1: np.zeros(1), "1": np.ones(1)})


def test_choices_for_a_mapping_are_said(small):
    """The order of a mapping may be that of the alphabet."""
    tensors = renamed(SAME, {"conv1": "b", "conv2": "a", "fc3": "d", "fc4": "c", "fc5": "e"})
    with pytest.warns(Notice, match=r"`weights`: matched by order and shape: conv1 = b, conv2 = a"):
        build(SAME, "numpy", weights=tensors)


@pytest.mark.parametrize("value", ["text", 3, None, [1, 2], np.array([{}])])
def test_other_values_are_refused(small, value):
    with pytest.raises(ParametersError, match=r"conv1.weight is a .*, not a tensor; give arrays by their names"):
        from_mapping({"conv1.weight": value})
