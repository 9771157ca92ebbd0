"""Canonical parameters: names, distributions, seeds, digests and files."""

from __future__ import annotations

import errno
import json
import math
import struct

import numpy as np
import pytest
import safetensors.numpy
from numpy.testing import assert_array_equal
from safetensors import safe_open
from sizes import narrower

from alexnet_mf.errors import AlexnetMfError, ParametersError
from alexnet_mf.spec import Network
from alexnet_mf.spec.layers import BatchNorm, Conv2d, Dense, Flatten
from alexnet_mf.spec.zoo import ALEXNET, TABS
from alexnet_mf.weights import parameters, tensor_file


@pytest.fixture(scope="module")
def alexnet() -> parameters.Parameters:
    return parameters.initialize(ALEXNET, 0)


def test_the_order_is_the_networks_and_weights_come_before_biases():
    assert list(parameters.shapes(ALEXNET)) == [f"{layer}.{what}" for layer in (
        "conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8") for what in ("weight", "bias")]


# Distributions


@pytest.mark.parametrize("layer, fan_in, fan_out", [
    ("conv1", 1 * 11 * 11, 96 * 11 * 11), ("conv2", 96 * 5 * 5, 256 * 5 * 5), ("conv3", 256 * 9, 384 * 9),
    ("conv4", 384 * 9, 384 * 9), ("conv5", 384 * 9, 256 * 9), ("fc6", 6400, 4096), ("fc7", 4096, 4096),
    ("fc8", 4096, 10)])
def test_weights_are_xavier_uniform(alexnet, layer, fan_in, fan_out):
    """Weights are uniform on +-sqrt(6 / (fan_in + fan_out)), and biases are zero."""
    assert_uniform(alexnet[f"{layer}.weight"], math.sqrt(6 / (fan_in + fan_out)))
    assert not alexnet[f"{layer}.bias"].any()


def assert_uniform(values: np.ndarray, bound: float) -> None:
    """Check the largest value against the bound, and mean and variance to five standard errors."""
    assert bound * (1 - 10 / values.size) < max(values.max(), -values.min()) <= bound * (1 + 1e-6)
    assert abs(values.mean(dtype=np.float64)) < 5 * bound / math.sqrt(3 * values.size)
    variance_error = bound**2 * math.sqrt((1 / 5 - 1 / 9) / values.size)  # of x^2 for x uniform on +-bound
    square = np.mean([np.mean(row**2, dtype=np.float64) for row in values])  # not all at once: they are 100 MB
    assert abs(square - bound**2 / 3) < 5 * variance_error


def test_biases_are_uniform_by_fan_in_in_the_pytorch_tab():
    """The networks here have a sixteenth of the channels and units."""
    tab, book = (parameters.initialize(narrower(network), 0) for network in (TABS["torch"], ALEXNET))
    assert_uniform(tab["fc6.bias"], 1 / math.sqrt(400))
    assert_uniform(tab["fc7.bias"], 1 / math.sqrt(256))
    assert_uniform(tab["conv2.bias"], 1 / math.sqrt(6 * 5 * 5))
    assert tab["fc8.bias"].all()
    assert_array_equal(tab["fc6.weight"], book["fc6.weight"])


@pytest.mark.parametrize("initialisation", ["zeros", "uniform_fan_in"])
def test_random_biases_ignore_the_setting_of_the_network(small, initialisation):
    wide = Network("wide", (1, 4, 4), (Flatten("flatten"), Dense("fc", units=4096)), bias_initialisation=initialisation)
    assert_uniform(parameters.initialize(wide, 0, random_biases=True)["fc.bias"], 0.1)
    plain, random = parameters.initialize(small, 0), parameters.initialize(small, 0, random_biases=True)
    for name in plain:
        assert np.array_equal(plain[name], random[name]) == name.endswith(".weight"), name


def test_batch_normalization_begins_as_the_identity_of_standard_inputs():
    network = Network("batches", (4, 4, 4), (BatchNorm("bn"), Flatten("flatten"), Dense("fc", units=2)))
    assert list(parameters.shapes(network)) == ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var",
                                                "fc.weight", "fc.bias"]
    assert parameters.trained(network) == ["bn.weight", "bn.bias", "fc.weight", "fc.bias"]
    drawn = parameters.initialize(network, 0)
    for part, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        assert_array_equal(drawn[f"bn.{part}"], np.full(4, value, np.float32))
    random = parameters.initialize(network, 0, random_biases=True)
    for part, value, reach in (("weight", 1, 0.5), ("bias", 0, 0.1), ("running_mean", 0, 0.1), ("running_var", 1, 0.5)):
        distances = np.abs(random[f"bn.{part}"] - value)
        assert ((0 < distances) & (distances <= reach)).all()
    assert len({random[f"bn.{part}"][0] - value for part, value in (("weight", 1), ("running_var", 1))}) == 2


# Seeds


def test_another_seed_changes_every_weight(small):
    one, other = (parameters.initialize(small, seed, random_biases=True) for seed in (5, 6))
    for name in one:
        assert not (one[name] == other[name]).any(), name


def test_any_nonnegative_seed_is_accepted(small):
    large = [parameters.digest(parameters.initialize(small, seed)) for seed in (0, 2**32, 2**64, 10**30)]
    assert len(set(large)) == 4


def test_a_tensor_does_not_depend_on_other_layers(small):
    """Layers are dropped, inserted and resized before and after conv2, which keeps its bits."""
    conv2 = next(layer for layer in small.layers if layer.name == "conv2")
    other = Network("other", (8, 10, 10), (conv2, Conv2d("conv9", channels=3, kernel=3), Flatten("flatten"),
                                           Dense("fc4", units=3)))
    small_drawn, other_drawn = parameters.initialize(small, 0), parameters.initialize(other, 0)
    assert_array_equal(small_drawn["conv2.weight"], other_drawn["conv2.weight"])


def test_the_bits_of_seed_0_are_pinned(alexnet):
    """Every result of this package starts from these bits."""
    assert parameters.digest(alexnet) == \
        "3ac4e86d69bcb9776b78086caeeb617e093deb1f30f7eb577c75a12f924c1fbb"


# Digests


def test_digest_covers_names_shapes_dtypes_and_every_bit(small):
    weights = parameters.initialize(small, 0)
    digest = parameters.digest(weights)
    assert digest == parameters.digest(dict(reversed(weights.items()))), "the order of the mapping does not matter"
    nudged = weights["fc4.bias"].copy()
    nudged[9] = np.nextafter(nudged[9], np.float32(1))
    negative = -weights["fc4.bias"]
    for changed in ({"fc4.bias": nudged}, {"fc4.bias": negative}, {"fc4.bias": weights["fc4.bias"].reshape(1, 10)},
                    {"fc4.bias": weights["fc4.bias"].astype(np.float64)}, {"fc5.bias": weights["fc4.bias"]}):
        assert parameters.digest(weights | changed) != digest
    assert parameters.digest({name: np.asfortranarray(value) for name, value in weights.items()}) == digest


# Files


def test_save_and_load_bit_for_bit(small, tmp_path):
    weights = parameters.initialize(small, 3, random_biases=True)
    parameters.save(tmp_path / "w.safetensors", weights, {"seed": 3, "note": "ä"})
    loaded = parameters.load(tmp_path / "w.safetensors", small)
    assert parameters.digest(loaded) == parameters.digest(weights)
    with safe_open(tmp_path / "w.safetensors", "numpy") as file:
        assert json.loads(file.metadata()["alexnet_mf.weights"])["metadata"] == {"seed": 3, "note": "ä"}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.uint8, ">f4"])
def test_our_files_have_the_bytes_of_the_library(small, dtype):
    """Tensors may have any memory layout, and names and metadata any characters."""
    weights = {name: np.asarray(value.T, dtype) for name, value in parameters.initialize(small, 3).items()}
    weights |= {"é\"": np.array(3, dtype), "whole": np.arange(6).reshape(2, 3).astype(np.float64)[:, ::2]}
    metadata = {"key": '{"ä": "\\n"}'}
    assert b"".join(tensor_file.buffers(weights, metadata)) == safetensors.numpy.save(
        {name: np.ascontiguousarray(value).reshape(value.shape) for name, value in weights.items()}, metadata)


def test_the_same_parameters_are_the_same_bytes(small):
    """The safetensors library writes several entries of metadata in a random order."""
    weights = parameters.initialize(small, 3)
    backwards = dict(reversed(weights.items()))
    assert len({parameters.to_bytes(each, {"seed": 3, "step": 1}) for each in [weights, backwards] * 10}) == 1


@pytest.mark.parametrize("value", ["[]", "{}", '{"metadata": {}}', '{"metadata": {}, "sha256": null}',
                                   '{"metadata": [], "sha256": ""}', '{"metadata": {}, "sha256": ""}', "[" * 100_000])
def test_malformed_metadata_is_damage(small, tmp_path, value):
    safetensors.numpy.save_file(parameters.initialize(small, 0), tmp_path / "w", {"alexnet_mf.weights": value})
    with pytest.raises(ParametersError, match="w: is damaged: "):
        parameters.load(tmp_path / "w", small)


def test_save_writes_canonical_order_whatever_the_memory_layout(small, tmp_path):
    weights = parameters.initialize(small, 0)
    parameters.save(tmp_path / "w", {name: np.asfortranarray(value) for name, value in weights.items()})
    assert parameters.digest(parameters.load(tmp_path / "w", small)) == parameters.digest(weights)


def test_a_file_of_another_program_is_read(small, tmp_path):
    """The package's own metadata is optional."""
    weights = parameters.initialize(small, 0)
    safetensors.numpy.save_file(weights, tmp_path / "w")
    assert parameters.digest(parameters.load(tmp_path / "w", small)) == parameters.digest(weights)


@pytest.mark.parametrize("content", [
    None, b"", b"weights", b"these are not the weights you are looking for\n" * 100, b"\x80\x04\x95" + bytes(100),
    struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", 2) + b"[]"],
    ids=["missing", "empty", "short text", "text", "binary", "huge header", "array header"])
def test_a_file_that_is_not_safetensors_is_refused(small, tmp_path, content):
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ParametersError, match=r"w\.safetensors: cannot be read as safetensors"):
        parameters.load(path, small)


def test_a_folder_is_refused(small, tmp_path):
    with pytest.raises(ParametersError, match="cannot be read"):
        parameters.load(tmp_path, small)


def test_a_flipped_bit_is_seen(small, tmp_path):
    """The bit may be in a weight or in the header."""
    path = tmp_path / "w"
    weights = parameters.initialize(small, 3, random_biases=True)
    parameters.save(path, weights, {"test_accuracy": 0.75})
    whole = path.read_bytes()
    for place in [*range(0, 1500, 3), *range(1500, len(whole), 97)]:
        damaged = bytearray(whole)
        damaged[place] ^= 2
        path.write_bytes(damaged)
        try:
            loaded, metadata = parameters.load_with_metadata(path, small)
        except ParametersError as error:
            assert str(path) in str(error)
        else:  # a readable file has the same content
            assert parameters.digest(loaded) == parameters.digest(weights)
            assert metadata in ({}, {"test_accuracy": 0.75}), place
    damaged = whole.replace(b"0.75", b"0.85")
    assert len(damaged) == len(whole) and damaged != whole
    path.write_bytes(damaged)
    with pytest.raises(ParametersError, match="its checksum does not match"):
        parameters.load(path, small)


def test_a_failed_save_leaves_the_old_file(small, tmp_path, failing_os):
    path = tmp_path / "w"
    parameters.save(path, parameters.initialize(small, 0))
    before = path.read_bytes()
    failing_os(1, errno.ENOSPC)
    with pytest.raises(AlexnetMfError, match="No space left on device"):
        parameters.save(path, parameters.initialize(small, 1))
    assert path.read_bytes() == before


def with_value(name: str, value: np.ndarray):
    return lambda weights: weights | {name: value}


def without(name: str):
    return lambda weights: {key: value for key, value in weights.items() if key != name}


FAULTS = {
    "missing": (without("conv2.bias"), ["missing conv2.bias"]),
    "surplus": (with_value("conv9.weight", np.zeros(3, np.float32)), ["surplus conv9.weight"]),
    "mis-shaped": (with_value("fc3.bias", np.zeros(31, np.float32)), ["fc3.bias is (31,), not (32,)"]),
    "other layout": (with_value("conv1.weight", np.zeros((5, 5, 1, 8), np.float32)),
                     ["conv1.weight is (5, 5, 1, 8), not (8, 1, 5, 5)"]),
    "float64": (with_value("fc3.bias", np.zeros(32)), ["fc3.bias is float64, not float32"]),
    "float16": (with_value("fc3.bias", np.zeros(32, np.float16)), ["fc3.bias is float16"]),
    "int32": (with_value("fc3.bias", np.zeros(32, np.int32)), ["fc3.bias is int32"]),
    "NaN": (with_value("fc3.bias", np.full(32, np.nan, np.float32)), ["fc3.bias contains NaN or infinity"]),
    "infinity": (with_value("fc3.bias", np.full(32, -np.inf, np.float32)), ["fc3.bias contains NaN or infinity"]),
    "nothing": (lambda weights: {}, ["missing conv1.weight", "missing fc4.bias"]),
    "several": (lambda values: without("conv2.bias")(values) | {"fc3.bias": np.zeros(32), "x": np.zeros(1, np.float32)},
                ["missing conv2.bias", "fc3.bias is float64", "surplus x"]),
}


@pytest.mark.parametrize("change, named", FAULTS.values(), ids=FAULTS)
def test_parameters_of_another_network_are_refused(small, tmp_path, change, named):
    """`check` refuses them, and `load` also names the file."""
    weights = change(parameters.initialize(small, 0))
    with pytest.raises(ParametersError) as caught:
        parameters.check(weights, small)
    assert all(words in str(caught.value) for words in ["small", *named]), str(caught.value)
    safetensors.numpy.save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ParametersError) as caught:
        parameters.load(tmp_path / "w.safetensors", small)
    assert all(words in str(caught.value) for words in ["w.safetensors", "small", *named]), str(caught.value)


def test_bfloat16_is_refused(small, tmp_path):
    """NumPy lacks this type, but other programs write it."""
    header = json.dumps({"conv1.weight": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "w").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(ParametersError, match="w: "):
        parameters.load(tmp_path / "w", small)


@pytest.mark.parametrize("value", [math.nan, [math.inf], {"loss": -math.inf}])
def test_metadata_with_nan_or_infinity_is_refused(tmp_path, value):
    with pytest.raises(ParametersError, match="`metadata` contains NaN or infinity"):
        parameters.save(tmp_path / "a.safetensors", {}, {"value": value})
    assert not list(tmp_path.iterdir())
