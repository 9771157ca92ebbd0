"""The spec: what it refuses, how it travels as data, and where the book's tabs differ."""

from __future__ import annotations

import ast
import dataclasses
import json
import sys
from pathlib import Path

import pytest

from alexnet_mf import spec
from alexnet_mf.errors import SpecError
from alexnet_mf.spec import ALEXNET, TABS, Conv2d, Dense, Dropout, Flatten, MaxPool2d, Network

DENSE = Dense("last", units=10)


@pytest.mark.parametrize("make, named", [
    (lambda: Conv2d("conv9", channels=0, kernel=3), ["conv9", "channels", "at least 1", "0"]),
    (lambda: Conv2d("conv9", channels=4, kernel=0), ["conv9", "kernel", "0"]),
    (lambda: Conv2d("conv9", channels=4, kernel=3, stride=0), ["conv9", "stride", "0"]),
    (lambda: Conv2d("conv9", channels=4, kernel=3, padding=-1), ["conv9", "padding", "at least 0", "-1"]),
    (lambda: Conv2d("conv9", channels=4.0, kernel=3), ["conv9", "channels", "whole number", "4.0"]),
    (lambda: Conv2d("conv9", channels=4, kernel="3"), ["conv9", "kernel", "'3'"]),
    (lambda: Conv2d("conv9", channels=True, kernel=3), ["conv9", "channels", "True"]),
    (lambda: Conv2d("conv9", channels=4, kernel=3, activation="tanh"), ["conv9", "tanh", "relu", "sigmoid"]),
    (lambda: MaxPool2d("pool9", kernel=0, stride=2), ["pool9", "kernel", "0"]),
    (lambda: MaxPool2d("pool9", kernel=3, stride=0), ["pool9", "stride", "0"]),
    (lambda: Dense("fc9", units=0), ["fc9", "units", "0"]),
    (lambda: Dense("fc9", units=4, activation="softmax"), ["fc9", "softmax", "relu"]),
    (lambda: Dropout("drop9", rate=1.0), ["drop9", "rate", "below 1", "1.0"]),
    (lambda: Dropout("drop9", rate=-0.1), ["drop9", "-0.1"]),
    (lambda: Dropout("drop9", rate=float("nan")), ["drop9", "nan"]),
    (lambda: Dropout("drop9", rate="0.5"), ["drop9", "'0.5'"]),
])
def test_a_bad_layer_is_named_with_its_numbers(make, named):
    with pytest.raises(SpecError) as caught:
        make()
    assert all(word in str(caught.value) for word in named), str(caught.value)


@pytest.mark.parametrize("size, layers, named", [
    ((1, 28, 28), (Conv2d("conv1", channels=4, kernel=31, padding=1), Flatten("flatten"), DENSE),
     ["conv1", "kernel 31", "30x30", "28x28", "padding 1"]),
    ((1, 28, 4), (MaxPool2d("pool1", kernel=5, stride=1), Flatten("flatten"), DENSE), ["pool1", "kernel 5", "28x4"]),
    ((1, 28, 28), (Flatten("flatten"), Dense("fc1", units=8), Dense("fc1", units=10)), ["2 layers", "'fc1'"]),
    ((1, 28, 28), (DENSE,), ["last", "(1, 28, 28)", "Flatten"]),
    ((1, 28, 28), (Flatten("flatten"), Conv2d("conv2", channels=4, kernel=3), DENSE), ["conv2", "(784,)"]),
    ((1, 28, 28), (Flatten("flatten"), Flatten("again"), DENSE), ["again", "(784,)"]),
    ((1, 28, 28), (Flatten("flatten"),), ["net", "last layer", "Dense"]),
    ((1, 28, 28), (), ["net", "last layer", "Dense"]),
    ((1, 28, 28), (Flatten("a.b"), DENSE), ["'a.b'", "cannot name a layer"]),
    ((1, 28, 28), (Flatten(""), DENSE), ["''", "cannot name a layer"]),
    ((1, 28), (Flatten("flatten"), DENSE), ["net", "(1, 28)"]),
    ((1, 0, 28), (Flatten("flatten"), DENSE), ["net", "(1, 0, 28)"]),
])
def test_a_network_that_does_not_fit_together_is_refused(size, layers, named):
    with pytest.raises(SpecError) as caught:
        Network("net", size, layers)
    assert all(word in str(caught.value) for word in named), str(caught.value)


def test_an_unknown_bias_initialisation_is_refused():
    with pytest.raises(SpecError, match="zeros, uniform_fan_in, not 'ones'"):
        dataclasses.replace(ALEXNET, bias_initialisation="ones")


def test_layers_at_the_limits_are_accepted():
    edges = Network("edges", (1, 3, 3), (Conv2d("conv1", channels=1, kernel=5, padding=1), Flatten("flatten"),
                                         Dropout("drop", rate=0), Dense("fc", units=1)))
    assert spec.output_shape(edges.layers[0], edges.input) == (1, 1, 1)
    assert edges.classes == 1


def test_output_shapes_round_down():
    """(size + 2 padding - kernel) // stride + 1, in height and in width."""
    conv = Conv2d("conv", channels=7, kernel=5, stride=3, padding=2)
    assert spec.output_shape(conv, (2, 10, 9)) == (7, (10 + 4 - 5) // 3 + 1, (9 + 4 - 5) // 3 + 1) == (7, 4, 3)
    assert spec.output_shape(MaxPool2d("pool", kernel=3, stride=2), (7, 8, 5)) == (7, 3, 2)
    assert spec.output_shape(Flatten("flatten"), (7, 3, 2)) == (42,)
    assert spec.output_shape(Dropout("drop", rate=0.5), (7, 3, 2)) == (7, 3, 2)


def test_layers_and_networks_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ALEXNET.layers[0].padding = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        ALEXNET.name = "other"


def test_with_dropout_replaces_every_rate_and_nothing_else():
    changed = spec.with_dropout(ALEXNET, 0.25)
    assert [layer.rate for layer in changed.layers if isinstance(layer, Dropout)] == [0.25, 0.25]
    assert spec.with_dropout(changed, 0.5) == ALEXNET
    assert [layer.rate for layer in ALEXNET.layers if isinstance(layer, Dropout)] == [0.5, 0.5]
    with pytest.raises(SpecError, match=r"drop6.*1\.0"):
        spec.with_dropout(ALEXNET, 1.0)


@pytest.mark.parametrize("network", [ALEXNET, *TABS.values()], ids=lambda network: network.source)
def test_as_dict_and_back_through_json(network):
    text = json.dumps(spec.as_dict(network))
    assert spec.from_dict(json.loads(text)) == network


def test_as_dict_and_back_for_every_layer_type(small):
    assert spec.from_dict(spec.as_dict(small)) == small


@pytest.mark.parametrize("change, named", [
    (lambda fields: fields.pop("layers"), "layers"),
    (lambda fields: fields.pop("name"), "name"),
    (lambda fields: fields.pop("input"), "input"),
    (lambda fields: fields.update(colour="red"), "colour"),
    (lambda fields: fields.update(layers=7), "int"),
    (lambda fields: fields.update(layers=["conv1"]), "not a network description"),
    (lambda fields: fields.update(input="big"), "alexnet: input must be"),
    (lambda fields: fields.update(input=None), "not a network description"),
    (lambda fields: fields.update(bias_initialisation="ones"), "ones"),
    (lambda fields: fields["layers"][0].pop("kind"), "kind"),
    (lambda fields: fields["layers"][0].update(kind="Conv3d"), "conv1.*Conv3d.*Conv2d"),
    (lambda fields: fields["layers"][0].update(kind=["Conv2d"]), "not a network description"),
    (lambda fields: fields["layers"][0].update(dilation=2), "dilation"),
    (lambda fields: fields["layers"][0].pop("kernel"), "kernel"),
    (lambda fields: fields["layers"][0].update(stride=0), "conv1.*stride.*0"),
    (lambda fields: fields["layers"][0].update(kernel="11"), "conv1.*kernel.*'11'"),
])
def test_from_dict_refuses_what_is_not_a_network(change, named):
    fields = spec.as_dict(ALEXNET)
    change(fields)
    with pytest.raises(SpecError, match=named):
        spec.from_dict(fields)


@pytest.mark.parametrize("value", [None, 7, "alexnet", []])
def test_from_dict_refuses_what_is_not_even_an_object(value):
    with pytest.raises(SpecError, match="not a network description"):
        spec.from_dict(value)


def test_digest_is_known_and_ignores_names_and_sources():
    assert spec.digest(ALEXNET) == \
        "5b1321488df12a0efe758d28a73e8c25790b9d23d798ba9abd278cb3711f4952"
    renamed = dataclasses.replace(ALEXNET, name="other", source="elsewhere")
    assert spec.digest(renamed) == spec.digest(ALEXNET)


def test_digest_catches_every_changed_number():
    """Each field of each layer, and of the network, changed alone."""
    changed = [dataclasses.replace(ALEXNET, input=(1, 225, 224)),
               dataclasses.replace(ALEXNET, bias_initialisation="uniform_fan_in"),
               dataclasses.replace(ALEXNET, layers=ALEXNET.layers[:10] + ALEXNET.layers[11:])]
    for at, layer in enumerate(ALEXNET.layers):
        for field in dataclasses.fields(layer):
            value = getattr(layer, field.name)
            if field.name == "activation":
                others = [other for other in ("relu", "sigmoid", None) if other != value]
            else:
                others = [f"{value}x" if isinstance(value, str) else value + 1 if isinstance(value, int) else value / 2]
            for other in others:
                layers = list(ALEXNET.layers)
                layers[at] = dataclasses.replace(layer, **{field.name: other})
                changed.append(dataclasses.replace(ALEXNET, layers=tuple(layers)))
    digests = {spec.digest(network) for network in [ALEXNET, *changed]}
    assert len(digests) == 1 + len(changed) == 1 + 3 + 5 * 7 + 3 * 3 + 1 + 3 * 4 + 2 * 2


def test_equal_networks_have_equal_digests():
    zero, nought = spec.with_dropout(ALEXNET, 0), spec.with_dropout(ALEXNET, 0.0)
    assert zero == nought
    assert spec.digest(zero) == spec.digest(nought)


def test_known_networks():
    assert spec.NETWORKS == ("alexnet", "alexnet-tab")
    for name in spec.NETWORKS:
        assert spec.get_network(name, "mxnet").name == name
        assert spec.get_network(name, "mxnet").source


def test_an_unknown_network_lists_the_known_ones():
    with pytest.raises(SpecError, match=r"'lenet'.*alexnet, alexnet-tab"):
        spec.get_network("lenet")


def test_a_tab_of_a_backend_without_one_lists_those_that_have():
    with pytest.raises(SpecError, match=r"'jax'.*torch.*tensorflow.*mxnet"):
        spec.get_network("alexnet-tab", "jax")


@pytest.mark.parametrize("backend, padding, biases", [
    ("torch", 1, "uniform_fan_in"), ("tensorflow", 0, "zeros"), ("mxnet", 0, "zeros"), ("numpy", 1, "uniform_fan_in")])
def test_the_tabs_differ_in_conv1_padding_and_biases_alone(backend, padding, biases):
    tab = spec.get_network("alexnet-tab", backend)
    assert tab.layers[0].padding == padding
    assert tab.bias_initialisation == biases
    assert tab.layers[1:] == ALEXNET.layers[1:]
    assert dataclasses.replace(tab.layers[0], padding=1) == ALEXNET.layers[0]


@pytest.mark.parametrize("backend", ["torch", "tensorflow", "mxnet", "numpy"])
def test_alexnet_is_one_network_in_every_backend(backend):
    assert spec.get_network("alexnet", backend) is ALEXNET
    assert ALEXNET.layers[0].padding == 1
    assert ALEXNET.bias_initialisation == "zeros"
    assert ALEXNET.classes == 10


def test_the_spec_imports_the_standard_library_alone():
    imported = set()
    for node in ast.walk(ast.parse(Path(spec.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add("." * node.level + (node.module or ""))
    foreign = {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names}
    assert foreign == {"alexnet_mf.errors"}
