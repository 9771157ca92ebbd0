"""Networks in TOML files: a written file can be read, and a bad file is refused in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from alexnet_mf import spec
from alexnet_mf.errors import SpecError
from alexnet_mf.spec import Network, toml, zoo
from alexnet_mf.spec.layers import AvgPool2d, Conv2d, Dense, Flatten, Normalize

TINY = """
name = "tiny"
input = [1, 28, 28]
learning_rate = 1

[[layers]]
kind = "Conv2d"
name = "conv1"
channels = 4
kernel = 5
activation = "none"

[[layers]]
kind = "AvgPool2d"  # a comment
name = "pool1"
kernel = 2
stride = 2

[[layers]]
kind = "Flatten"
name = "flatten"

[[layers]]
kind = "Dense"
name = "fc2"
units = 10
"""


def normalized(before: str, mean: str, std: str) -> dict[str, str]:
    """Return the replacement that puts a normalization before the layer of that kind."""
    layer = f'[[layers]]\nkind = "{before}"'
    return {layer: f'[[layers]]\nkind = "Normalize"\nname = "norm"\nmean = {mean}\nstd = {std}\n\n{layer}'}


@pytest.fixture
def write(tmp_path: Path):
    """Return a function that writes a file with this text, with some words replaced."""
    def written(text: str | bytes = TINY, **replaced: str) -> Path:
        path = tmp_path / "net.toml"
        if isinstance(text, bytes):
            path.write_bytes(text)
            return path
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
        return path
    return written


def test_a_file_describes_a_network(write):
    assert toml.load(write()) == Network("tiny", (1, 28, 28), (
        Conv2d("conv1", channels=4, kernel=5, activation=None), AvgPool2d("pool1", kernel=2, stride=2),
        Flatten("flatten"), Dense("fc2", units=10)), learning_rate=1.0)


@pytest.mark.parametrize("network", zoo.NETWORKS.values(), ids=lambda network: network.source)
def test_a_written_network_can_be_read(write, network):
    again = toml.load(write(toml.dump(network)))
    assert again == dataclasses.replace(network, name=f"my-{network.name}")
    assert spec.fingerprint(again) == spec.fingerprint(network)
    assert toml.load(write(toml.dump(again))) == again, "a user's own name stays"


def test_a_normalization_is_written_and_read(write):
    network = Network("color", (3, 4, 4), (Normalize("normalize", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
                                           Flatten("flatten"), Dense("fc", units=2)))
    assert "mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n" in toml.dump(network)
    assert toml.load(write(toml.dump(network))) == network


def test_a_padding_is_written_as_numbers(write):
    """The last line is for a file's reader: TensorFlow's `same` for 28 pixels, kernel 5 and stride 2."""
    for written, padding in (("2", 2), ("[[0, 1], [2, 3]]", ((0, 1), (2, 3))), ("[[1, 1], [1, 1]]", 1),
                             ('"same"\nstride = 2', ((1, 2), (1, 2)))):
        network = toml.load(write(**{"kernel = 5": f"kernel = 5\npadding = {written}"}))
        assert network.layers[0].padding == padding
        assert toml.load(write(toml.dump(network))) == network
    assert "padding = [[1, 2], [1, 2]]\n" in toml.dump(network)
    network = toml.load(write(**{"kernel = 2": 'kernel = 2\npadding = "same"\ncount_padding = true', "stride = 2":
                                 "stride = 1"}))
    assert network.layers[1] == AvgPool2d("pool1", 2, 1, ((0, 1), (0, 1)), count_padding=True)
    assert "padding = [[0, 1], [0, 1]]\ncount_padding = true\n" in toml.dump(network)
    assert toml.load(write(toml.dump(network))) == network


def test_alpha_is_written_only_where_it_belongs(write):
    network = Network("leaky", (1, 4, 4), (Flatten("flatten"), Dense("fc1", 3, activation="leaky_relu", alpha=0.01),
                                           Dense("fc2", 3, activation="elu"), Dense("fc3", units=2)))
    text = toml.dump(network)
    assert text.count("alpha") == 2
    assert 'activation = "leaky_relu"\nalpha = 0.01\n' in text and 'activation = "elu"\nalpha = 1.0\n' in text
    assert toml.load(write(text)) == network


def test_a_missing_bias_is_written_and_read(write):
    network = Network("bare", (1, 4, 4), (Conv2d("conv1", 3, kernel=2, bias=False), Flatten("flatten"),
                                          Dense("fc2", units=3, bias=False), Dense("fc3", units=2)))
    assert toml.dump(network).count("bias = false\n") == 2
    assert toml.load(write(toml.dump(network))) == network


def test_a_softmax_is_written_and_read(write):
    network = dataclasses.replace(zoo.LENET5, name="softmax", output="softmax")
    assert 'output = "softmax"\n' in toml.dump(network) and "output" not in toml.dump(zoo.LENET5)
    assert toml.load(write(toml.dump(network))) == network


def test_special_characters_are_written_as_toml(write):
    odd = Network("odd", (1, 4, 4), (Flatten("flatten"), Dense("fc", units=2)),
                  source='a "quoted" \\ back\tslash\nand Füße \U0001f600 # none')
    assert toml.load(write(toml.dump(odd))) == odd


def test_dump_writes_every_field_but_later_ones_with_their_default():
    text = toml.dump(zoo.LENET5)
    assert "groups" not in text and "bias =" not in text and "groups = 2" in toml.dump(zoo.ALEXNET_2012)
    for line in ('name = "my-lenet5"', "input = [1, 28, 28]", "learning_rate = 0.9", 'kind = "AvgPool2d"',
                 "padding = 0", 'activation = "sigmoid"', 'activation = "none"', 'bias_initialisation = "zeros"'):
        assert line in text


def test_find_network_takes_a_name_or_a_file(write):
    assert toml.find_network("lenet5") is zoo.LENET5
    assert toml.find_network("alexnet-tab", "mxnet") is toml.find_network("alexnet-tab-mxnet") is zoo.TABS["mxnet"]
    assert toml.find_network(str(write())).name == "tiny"
    with pytest.raises(SpecError, match=r"'lenet'; known: alexnet, alexnet-tab-torch, "):
        toml.find_network("lenet")


@pytest.mark.parametrize("replaced, named", [
    ({"[1, 28, 28]": "[1, 28, 28"}, ["not TOML", "line 4"]),
    ({"channels = 4": "channels = "}, ["not TOML", "line 9", "column"]),
    ({"kernel = 5": "kernel = 5\nkernel = 6"}, ["not TOML", "line"]),
    ({"kernel = 5": "kernal = 5"}, ["line 10: layer conv1", "unknown key 'kernal', perhaps 'kernel'"]),
    ({"kernel = 5": "kernel = 29"}, ["line 6: layer conv1", "kernel 29 is larger", "28x28"]),
    ({"kernel = 5": "kernel = 5\npadding = [1, 1]"}, ["layer conv1", "[[top, bottom], [left, right]]", "[1, 1]"]),
    ({"kernel = 5": 'kernel = 5\npadding = "full"'}, ["layer conv1", 'or "same"', "'full'"]),
    ({"kernel = 5": "kernel = 5.0"}, ["layer conv1", "whole number", "5.0"]),
    ({"kernel = 5": "kernel = " + "9" * 5000}, ["not TOML"]),
    ({'kind = "Conv2d"': 'kind = "Conv3d"'}, ["line 6: layer conv1", "'Conv3d'", "known: Conv2d, MaxPool2d"]),
    ({'kind = "Conv2d"': ""}, ["line 6: layer conv1", "kind is missing"]),
    ({"kernel = 2": "kernel = 2\npadding = 2"}, ["line 13: layer pool1", "padding 2 must be below the kernel, 2"]),
    ({"kernel = 2": "kernel = 2\nceil_mode = true"}, ["line 17: layer pool1", "unknown key 'ceil_mode'", "padding"]),
    ({"kernel = 2": "kernel = 25"}, ["line 13: layer pool1", "24x24"]),
    ({"units = 10": ""}, ["line 23: layer fc2", "units missing"]),
    ({'name = "fc2"': ""}, ["line 23: layer 4", "name missing"]),
    ({'name = "fc2"': 'name = "a b"'}, ["line 23: ", "tiny", "'a b' cannot name a layer; use letters"]),
    ({'name = "pool1"': "name = 7"}, ["line 13: ", "7 cannot name a layer; use letters"]),
    ({'kind = "Dense"\nname = "fc2"\nunits = 10': 'kind = "Dropout"\nname = "drop2"\nrate = 0.5'},
     ["line 23: ", "the last layer must be a Dense layer"]),
    ({'kind = "Flatten"\nname = "flatten"': 'kind = "Dropout"\nname = "drop1"\nrate = 0.5'},
     ["line 24: layer fc2", "put a Flatten before it"]),
    ({'name = "fc2"': 'name = "pool1"'}, ["line 23: layer 4 is named 'pool1', like another"]),
    ({'name = "pool1"': 'name = "conv1"', "kernel = 2": 'kernel = "2"'}, ["line 13: layer conv1", "'2'"]),
    ({'kind = "Conv2d"': 'kind = ["Conv2d"]'}, ["line 6: layer conv1", "unknown kind ['Conv2d']"]),
    ({'name = "tiny"': ""}, ["name missing"]),
    ({'name = "tiny"': 'name = "alexnet"'}, ["alexnet", "another name"]),
    ({'name = "tiny"': 'name = "a/b"'}, ["'a/b' cannot name a network"]),
    ({"learning_rate = 1": "learning_rate = nan"}, ["line 4: ", "learning_rate", "nan"]),
    ({"learning_rate = 1": "speed = 1"}, ["line 4: ", "unknown key 'speed'", "learning_rate"]),
    ({"[1, 28, 28]": "[28, 28]"}, ["line 3: ", "input must be", "(28, 28)"]),
    ({"[1, 28, 28]": "28"}, ["line 3: input must be [channels, height, width], not 28"]),
    ({"[1, 28, 28]": "[1, 4, 4]"}, ["line 6: layer conv1", "kernel 5 is larger than its padded input 4x4"]),
    ({"[1, 28, 28]": "[1, 5, 5]"}, ["line 13: layer pool1", "kernel 2 is larger than its padded input 1x1"]),
    (normalized("Conv2d", "[0.5]", "[0.25, 0.25]"), ["line 6: layer norm", "1 and 2"]),
    (normalized("Flatten", "[0.5]", "[1]"), ["line 19: layer norm", "the first layer, not layer 3"]),
])
def test_a_wrong_file_is_refused_with_line_and_layer(write, replaced, named):
    path = write(**replaced)
    with pytest.raises(SpecError) as caught:
        toml.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for word in named:
        assert word in message


@pytest.mark.parametrize("text, named", [
    (b"", "no layers"), (b"layers = 7", "no layers"), (b"layers = [1]", "no layers"), (b"\xff\xfe", "no layers"),
    (b"x = '\xe4'", r"is not UTF-8 text \(byte 0xe4 at position 5\); save it as UTF-8"),
    (b"x = " + b"[" * 100_000, "not"), (b"[layers]\nkind = 'Conv2d'", "no layers"), (b"name = 'tiny'\n", "no layers"),
])
def test_a_file_without_a_network_is_refused(write, text, named):
    with pytest.raises(SpecError, match=named):
        toml.load(write(text))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_with_a_byte_order_mark_is_read(small, tmp_path, encoding):
    """PowerShell's `>` writes UTF-16."""
    (tmp_path / "net.toml").write_text(toml.dump(small), encoding=encoding)
    assert toml.load(tmp_path / "net.toml") == small


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SpecError, match=r"gone\.toml: cannot be read \(No such file.*`toml.dump` writes"):
        toml.load(tmp_path / "gone.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(SpecError, match=r"folder\.toml: cannot be read"):
        toml.find_network(str(tmp_path / "folder.toml"))


def test_an_ambiguous_line_is_not_named(write):
    """A table header inside a string is no header."""
    path = write(**{'name = "tiny"': 'name = "tiny"\nsource = """\n[[layers]]\n"""', "kernel = 5": "kernel = 0"})
    with pytest.raises(SpecError, match=f"^{path}: layer conv1: kernel"):
        toml.load(path)
