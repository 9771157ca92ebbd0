"""PyTorch's files, read without PyTorch: the values that PyTorch loads, one state_dict, and nothing executed."""

from __future__ import annotations

import argparse
import collections
import io
import itertools
import pathlib
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from torch_files import BIAS, OLD_STATE, STATE, STORAGES, WEIGHT, archive, inside, mapping, stream, tensor

from alexnet_mf import backends
from alexnet_mf.errors import ParametersError
from alexnet_mf.weights.formats import opcodes
from alexnet_mf.weights.formats.torch import read
from alexnet_mf.weights.stored import StoredWeights


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("harmed"),)


class AttributeDict(dict):
    """A class like Lightning's, which this package does not know."""


def weights_in(content: bytes, entry: str | None = None) -> StoredWeights:
    return read(io.BytesIO(content), Path("unused"), entry)


def assert_small(weights: StoredWeights) -> None:
    """Assert that these are the tensors of `STATE`."""
    assert list(weights.tensors) == ["fc1.weight", "fc1.bias"]
    assert_array_equal(weights.tensors["fc1.weight"].load(), WEIGHT, strict=True)
    assert_array_equal(weights.tensors["fc1.bias"].load(), BIAS, strict=True)


def refusal(content: bytes, entry: str | None = None) -> str:
    """Return the message that refuses a file."""
    with pytest.raises(ParametersError) as caught:
        weights_in(content, entry)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


# Without PyTorch


def test_a_file_is_read_without_importing_pytorch(tmp_path):
    (tmp_path / "small.pt").write_bytes(archive(mapping(STATE), STORAGES))
    script = """
import sys
from pathlib import Path
from alexnet_mf.weights.formats.torch import read
with open("small.pt", "rb") as file:
    weights = read(file, Path("small.pt"))
    print(weights.tensors["fc1.weight"].load().tolist())
assert not {"torch", "pickle"} & set(sys.modules) - before
"""
    script = f"import sys; import numpy, pathlib, zipfile, safetensors; before = set(sys.modules)\n{script}"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{WEIGHT.tolist()}\n"), done.stderr


@pytest.mark.parametrize("content", [archive(mapping(STATE), STORAGES), stream(mapping(OLD_STATE), STORAGES)],
                         ids=["archive", "stream"])
def test_shapes_and_values_of_a_plain_state_dict(content):
    weights = weights_in(content)
    assert_small(weights)
    assert [(tensor.dtype, tensor.shape) for tensor in weights.tensors.values()] == [
        ("float32", (2, 3)), ("float32", (2,))]
    assert (weights.notes, weights.layout, weights.is_ordered, weights.network) == ((), "OIHW", True, None)


def test_tensors_are_read_only_when_they_are_loaded():
    class Counting(io.BytesIO):
        total = 0

        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size)
            self.total += len(content)
            return content

    values = np.arange(10**6, dtype="<f4")
    file = Counting(archive(mapping({"w": tensor("0", (1000, 1000)), "v": tensor("1", (1000, 1000))}),
                            {"0": values.tobytes(), "1": values.tobytes()}))
    weights = read(file, Path("unused"))
    assert file.total < 10_000
    assert_array_equal(weights.tensors["v"].load().ravel(), values)
    assert file.total < 8_100_000  # once for the checksum, once for the values


@pytest.mark.parametrize("shape, strides, offset", [
    ((2, 3), (3, 1), 0), ((3, 2), (1, 3), 0), ((2, 2), (3, 1), 1), ((2, 3), (0, 1), 2), ((1, 3), (10**15, 2), 0),
    ((0, 3), (3, 1), 6), ((2, 2, 2), (2, 1, 1), 1), ((1, 1), (1, 1), 5)])
def test_views_of_a_storage(shape, strides, offset):
    content = archive(mapping({"w": tensor("0", shape, strides, offset, count=6), "v": tensor("0", (2, 3))}), STORAGES)
    expected = np.zeros(shape, np.float32)
    for index in itertools.product(*map(range, shape)):
        expected[index] = WEIGHT.ravel()[offset + sum(i * stride for i, stride in zip(index, strides))]
    value = weights_in(content).tensors["w"].load()
    assert_array_equal(value, expected, strict=True)
    assert not value.flags.writeable


@pytest.mark.parametrize("shape, strides, offset, count", [
    ((2, 3), (3, 1), 1, 6), ((2, 4), (3, 1), 0, 6), ((2, 3), (10**15, 1), 0, 6), ((2, 3), (3, 1), 0, 7),
    ((2, 4), (4, 1), 0, 8), ((2, 3), (-3, 1), 3, 6), ((2, 3), (3, 1), -1, 6), ((-2, 3), (3, 1), 0, 6),
    ((2, 3), (3,), 0, 6), ((1,) * 33, (1,) * 33, 0, 6), ((2, 2**63), (0, 0), 0, 6), ((2, 3), (3, 1), 0, -6),
    ((0, 3), (3, 1), 7, 6), ((2, 3), (3, 1), 2**200, 6), ((2, 3), (3, 1), 0, 2**200)])
def test_a_view_beyond_its_storage_is_refused(shape, strides, offset, count):
    content = archive(mapping({"w": tensor("0", shape, strides, offset, count=count), "v": tensor("1", (1, 2))}),
                      STORAGES)
    assert "cannot be read as a PyTorch file (" in refusal(content)


def test_a_view_of_one_number_allocates_nothing():
    """The shape decides later whether the tensor is used."""
    value = weights_in(archive(mapping({"w": tensor("0", (10**7, 10**7), (0, 0), count=6)}), STORAGES)).tensors["w"]
    assert value.shape == (10**7, 10**7)
    assert value.load()[-1, -1] == WEIGHT[0, 0]


def test_a_file_of_a_big_endian_machine():
    for dtype, storage in ((">f4", "Float"), (">f8", "Double"), (">i2", "Short"), (">f2", "Half")):
        values = np.arange(6).astype(dtype).reshape(2, 3)
        content = archive(mapping({"w": tensor("0", (2, 3)),
                                   "v": tensor("1", (2, 3), storage=f"torch\n{storage}Storage")}),
                          {"0": WEIGHT.astype(">f4").tobytes(), "1": values.tobytes()}, {"byteorder": b"big"})
        weights = weights_in(content)
        assert_array_equal(weights.tensors["w"].load(), WEIGHT, strict=True)
        assert_array_equal(weights.tensors["v"].load(), values.astype(dtype[1:]), strict=True)
    bits = np.array([[0x3F80, 0x4049]], ">u2")
    value = weights_in(archive(mapping({"w": tensor("0", (1, 2), storage="torch\nBFloat16Storage")}),
                               {"0": bits.tobytes()}, {"byteorder": b"big"})).tensors["w"]
    assert (value.dtype, value.load().tolist()) == ("bfloat16", [[1.0, 3.140625]])
    assert "neither little nor big" in refusal(archive(mapping(STATE), STORAGES, {"byteorder": b"middle"}))


def test_a_state_dict_of_python_2():
    """There, OrderedDict is called with a list of its items, strings are bytes, and integers of 64 bits decimal."""
    items = b"".join(b"](" + b"U" + bytes([len(name)]) + name.encode() + value + b"e" for name, value in STATE.items())
    state = b"ccollections\nOrderedDict\n](" + items + b"e\x85R"
    checkpoint = mapping({"param_ids": b"I140737353944832\n", "state_dict": state, "flag": b"I01\n"})
    assert_small(weights_in(archive(checkpoint, STORAGES)))


# The one state_dict


CHECKPOINTS: dict[str, tuple[Mapping[str, bytes], str]] = {
    "ImageNet example": ({"epoch": inside(3), "arch": inside("alexnet"), "state_dict": mapping(STATE),
                          "best_acc1": tensor("1", (), count=2), "optimizer": mapping(
                              {"state": mapping({"x": mapping({"momentum_buffer": tensor("0", (2, 3))})}),
                               "param_groups": inside([{"lr": 0.1}])})}, "state_dict"),
    "named parameters of an optimizer": ({"model": mapping(STATE), "optim": mapping({"fc": tensor("0", (2, 3))}),
                                          "averages": mapping({"exp_avg": tensor("0", (2, 3))})}, "model"),
    "two levels": ({"checkpoint": mapping({"net": mapping(STATE)})}, "checkpoint.net"),
    "list": ({"models": b"](" + mapping(STATE) + b"e"}, "models.0"),
    "other classes": ({"args": inside(argparse.Namespace(lr=0.1, files=[Path("x")])), "best": inside(np.float64(0.5)),
                       "path": inside(pathlib.PurePosixPath("a/b")), "array": inside(np.ones(3)),
                       "hyper_parameters": inside(AttributeDict(a={"b": 1})), "types": inside({int, "x"}),
                       "counts": inside(collections.Counter("aab")), "state_dict": mapping(STATE),
                       "keys": inside({(1, 2): 3, None: 4, 5.5: 6}), "complex": inside(1j)}, "state_dict"),
    "evil": ({"args": inside(Evil()), "model_state_dict": mapping(STATE)}, "model_state_dict")}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_state_dict_of_a_checkpoint(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entries, entry = CHECKPOINTS[name]
    content = archive(mapping(entries), STORAGES)
    weights = weights_in(content)
    assert_small(weights)
    assert weights.notes == (f"weights of the entry `{entry}`",)
    assert_small(weights_in(content, entry))
    assert list(tmp_path.iterdir()) == []


def test_of_several_state_dicts_one_must_be_named():
    other = {"fc1.weight": tensor("0", (2, 3), (0, 1))}
    content = archive(mapping({"epoch": inside(3), "model": mapping(STATE), "old": mapping({"ema": mapping(other)})}),
                      STORAGES)
    assert refusal(content) == ("contains several state_dicts: `model`, `old.ema`; use `convert` with `entry` to "
                                "name one")
    assert_small(weights_in(content, "model"))
    assert_array_equal(weights_in(content, "old.ema").tensors["fc1.weight"].load(), [WEIGHT[0], WEIGHT[0]])
    assert refusal(content, "ema") == "has no state_dict `ema`; name one of `model`, `old.ema` with `entry`"


def test_entries_beside_tensors_may_be_a_second_state_dict():
    content = archive(mapping({**STATE, "ema": mapping({"w": tensor("0", (2, 3))})}), STORAGES)
    assert "several state_dicts: `.`, `ema`;" in refusal(content)
    assert_small(weights_in(content, "."))


def test_an_object_in_two_entries_is_one_state_dict():
    content = archive(mapping({"best": mapping(STATE) + b"q\x01", "last": b"h\x01"}), STORAGES)
    assert_small(weights_in(content))


def test_a_torchscript_layer_in_two_places_is_refused():
    """PyTorch has two names for its tensors, and a network of two layers needs both."""
    layer = b"c__torch__\nLinear\n" + mapping({"weight": tensor("0", (2, 3))}) + b"bq\x01"
    model = b"c__torch__\nM\n" + mapping({"a": layer, "relu": b"c__torch__\nReLU\n}bq\x02", "b": b"h\x02"}) + b"b"
    assert list(weights_in(archive(model, STORAGES)).tensors) == ["a.weight"]
    model = b"c__torch__\nM\n" + mapping({"a": layer, "b": b"h\x01"}) + b"b"
    assert "is a TorchScript model with a layer in several places; save" in refusal(archive(model, STORAGES))


def test_paths_that_read_the_same_are_refused():
    other = mapping({"w": tensor("0", (3, 2))})
    content = archive(mapping({"a.b": mapping(STATE), "a": mapping({"b": other})}), STORAGES)
    assert "contains several state_dicts: `a.b`, `a.b`" in refusal(content, "a.b")


def test_counters_and_other_entries_are_left_out():
    """BatchNorm counts its batches in an integer scalar."""
    values = {**STATE, "num_batches_tracked": tensor("2", (), storage="torch\nLongStorage"), "extra": inside(3),
              "_extra_state": inside(None), "evil": inside(Evil()), "shift": tensor("1", (), count=2)}
    weights = weights_in(archive(mapping(values), {**STORAGES, "2": bytes(8)}))
    assert list(weights.tensors) == ["fc1.weight", "fc1.bias", "shift"]
    assert weights.tensors["shift"].load() == BIAS[0]


@pytest.mark.parametrize("opcodes, message", [
    (mapping({"epoch": inside(3), "model": mapping({})}), "contains no state_dict; save the weights alone with torch."),
    (inside([1, 2]), "contains no state_dict"), (inside(None), "contains no state_dict"),
    (tensor("0", (2, 3)), "contains no state_dict"),
    (inside(Evil()), "is a .*, not a state_dict; save the weights alone with torch.save"),
    (inside({"a": np.ones((2, 2))}), "contains no state_dict"),
    (b"}(" + inside(5) + tensor("0", (2, 3)) + b"u", "it has a tensor without a name"),
    (b"}(" + inside("x" * 201) + tensor("0", (2, 3)) + b"u", "it has a tensor without a name")])
def test_a_file_without_a_state_dict_is_refused(opcodes, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParametersError, match=message):
        weights_in(archive(opcodes, STORAGES))
    assert list(tmp_path.iterdir()) == []


# Damaged and malicious files


@pytest.mark.parametrize("content, message", [
    (b"", "its pickle has no end"), (b"hello", r"its pickle has the opcode b'h|its pickle is damaged"),
    (pickle.dumps({"a": 1}), "it does not begin like one"),
    (archive(b"", others={"data.pkl": b""}), "its pickle has no end"),
    (archive(mapping(STATE), {"0": b"x", "1": b""}), "fc1.weight is larger than its storage"),
    (archive(mapping(STATE), {"0": STORAGES["0"]}), "the archive has no data/1"),
    (archive(mapping(STATE), STORAGES, {"x/data.pkl": b""}), r"the archive has 2 entries data\.pkl, not 1"),
    (archive(mapping({**STATE, "v": tensor("0", (3, 2), storage="torch\nIntStorage")}), STORAGES), "one of two types"),
    (archive(mapping({**STATE, "v": tensor("0", (3, 2), count=5)}), STORAGES), "one of two types"),
    (archive(mapping({**STATE, "v": tensor("0", (3, 2), storage="mine\nFloatStorage")}), STORAGES), "unknown storage"),
    (archive(mapping({**STATE, "v": tensor("0", (3, 2), storage="torch\nEvilStorage")}), STORAGES), "unknown storage"),
    (archive(mapping(STATE), {**STORAGES, "0": bytes(10**6)}, compression=zipfile.ZIP_DEFLATED),
     r"is a compressed archive; save it again with torch\.save\(torch\.load"),
    (stream(mapping(OLD_STATE), {"0": STORAGES["0"]}), "its list of storages does not match"),
    (stream(mapping(OLD_STATE), {**STORAGES, "2": b""}), "its list of storages does not match"),
    (stream(mapping(OLD_STATE), {**STORAGES, "0": bytes(20)}), "a storage has another size than its tensors")])
def test_a_damaged_file_is_refused(content, message):
    with pytest.raises(ParametersError, match=message):
        weights_in(content)


@pytest.mark.parametrize("content", [archive(mapping(STATE), STORAGES), stream(mapping(OLD_STATE), STORAGES)],
                         ids=["archive", "stream"])
def test_every_truncated_file_is_refused(content):
    for size in range(len(content)):
        refusal(content[:size])


def test_a_changed_number_does_not_match_its_checksum():
    content = archive(mapping(STATE), STORAGES)
    at = content.index(STORAGES["0"])
    weights = weights_in(content[:at] + b"\x01" + content[at + 1:])
    with pytest.raises(ParametersError, match="a checksum does not match"):
        weights.tensors["fc1.weight"].load()


def test_a_file_that_shrinks_while_it_is_open_is_refused():
    file = io.BytesIO(stream(mapping(OLD_STATE), STORAGES))
    weights = read(file, Path("unused"))
    file.truncate(len(file.getvalue()) - 1)
    with pytest.raises(ParametersError, match="it ends too early"):
        weights.tensors["fc1.bias"].load()


def test_two_entries_of_one_name_are_refused():
    content = archive(mapping(STATE), {**STORAGES, "2": STORAGES["0"]}).replace(b"archive/data/2", b"archive/data/0")
    assert "two entries of the archive have one name" in refusal(content)


def test_a_tar_archive_is_refused():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as target:
        target.addfile(tarfile.TarInfo("storages"))
    assert "is a tar archive of PyTorch's first versions" in refusal(file.getvalue())


DEEP, MANY, STEPS = 70_000, 90_000, 80_000
BOMBS = {  # nested, which a recursive reader or a hash would follow to the end of the stack
    "tuples": b")" + b"\x85" * 20_000, "lists": b"]" * 20_000 + b"a" * 19_999,
    "dicts": b"}" + b"U\x01x}" * 20_000 + b"s" * 20_000, "objects": b"cx\ny\n" * 20_000 + b"b" * 19_999,
    "a tuple as key": b"})" + b"\x85" * DEEP + b"Ns", "a tuple in a set": b"\x8f(" + b")" + b"\x85" * DEEP + b"\x90",
    "a tuple as key of a storage": b"(" + inside("storage") + b"ctorch\nFloatStorage\n)" + b"\x85" * DEEP + b"NNtQ",
    "parameters": b"ctorch._utils\n_rebuild_parameter\n" * 9000 + b")" + b"\x85R" * 9000,
    "types": b"ctorch._tensor\n_rebuild_from_type\nq\x010ctorch\nTensor\nq\x020)" + b"q\x030(h\x01h\x02h\x03Nt" * 9000 +
    b"q\x030h\x01h\x03R",
    "modules": b"c__torch__\nM\n" + b"}U\x01xc__torch__\nM\n" * 9000 + b"N" + b"sb" * 9000,
    "a module in itself": b"c__torch__\nM\nq\x01}U\x01xh\x01sb", "marks": b"(" * 20_000 + b"N",
    "a list in itself": b"]q\x01h\x01a",
    "a list many times": b"]" + b"q\x010](" + b"q\x010](".join([b"h\x01" * 99 + b"e"] * 30),
    "a module many times": b"c__torch__\nM\n" + b"q\x010c__torch__\nM\n}".join([b""] + [b"".join(
        inside(str(k)) + b"h\x01s" for k in range(99)) + b"b"] * 30),
    "long names": b"c__torch__\nM\n" + (b"}" + inside("x" * 200) + b"c__torch__\nM\n") * 200 + b"}U\x01w" +
    tensor("0", (2, 3)) + b"q\x01s" + b"".join(inside(str(k)) + b"h\x01s" for k in range(3000)) + b"b" + b"sb" * 200,
    # sizes beyond the file
    "LONG4": b"\x8b\xff\xff\xff\x7f", "BINUNICODE8": b"\x8d" + b"\xff" * 7 + b"\0", "BINBYTES": b"B\xff\xff\xff\xff",
    "LONG_BINPUT": b"Nr\xff\xff\xff\xff", "FRAME": b"\x95" + b"\xff" * 8 + b"N",
    "decimal": b"I" + b"9" * 10**6 + b"\n",
    # many objects, or copies of large ones
    "many lists": b"]" * MANY, "many dicts": b"}" * MANY, "many sets": b"\x8f" * MANY,
    "many copies": b"N" + b"2" * MANY,
    "copies of a list": b"](" + b"](NNe" * 9000 + b"e\x85q\x010" + b"ccollections\nOrderedDict\nh\x01R0" * 500,
    "copies of a name": inside("x" * 10**6) + b"q\x010" + b"h\x01h\x01\x93" * 100,
    "equal hashes": b"}" + b"".join(inside(k * (2**61 - 1)) + b"Ns" for k in range(2**62, 2**62 + 15_000)),
    "long paths": inside("x" * 10**6) + b"q\x010}" + b"".join(
        inside(str(k)) + b"}h\x01" + mapping({"w": tensor("0", (2, 3))}) + b"ss" for k in range(300))}


@pytest.mark.parametrize("name, build", [*((name, archive) for name in BOMBS), ("a list many times", stream)])
def test_a_bomb_is_refused_in_seconds_and_little_memory(name, build, monkeypatch):
    """The stack has half its usual size, so that less deep recursion would end the process."""
    monkeypatch.setattr(opcodes, "MOST_STEPS", STEPS)
    content = build(BOMBS[name], STORAGES)
    results: list[Any] = []
    default = threading.stack_size(2**22)
    tracemalloc.start()
    start = time.monotonic()
    try:
        thread = threading.Thread(target=lambda: results.append(refusal(content)))
        thread.start()
        thread.join()
        seconds, most = time.monotonic() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        threading.stack_size(default)
    assert results and seconds < 10 and most < 20_000_000 + 4 * len(content)


def test_a_list_of_storages_with_other_keys_is_refused():
    keys = b"\x80\x02](" + inside("0") + b")" + b"\x85" * 200_000 + b"e."  # the hash of the last one would recurse
    content = stream(mapping(OLD_STATE)).removesuffix(pickle.dumps([], 2)) + keys
    assert "cannot be read" in refusal(content + struct.pack("<q", 6) + STORAGES["0"] + bytes(16))


def test_a_pickle_in_an_archive_has_a_largest_size():
    content = archive(b"B" + struct.pack("<I", 2**25) + bytes(2**25), STORAGES)
    assert "data.pkl has more than 33,554,432 bytes" in refusal(content)


def test_an_archive_has_a_largest_directory():
    """zipfile would make an object of every entry."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        target.writestr("x", b"")
    content = file.getvalue()
    at = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    directory = content[at:end] * (2**25 // (end - at) + 1)
    content = content[:at] + directory + content[end:end + 12] + struct.pack("<II", len(directory), at) + b"\0\0"
    assert "the archive's directory is too large" in refusal(content)


# Files that PyTorch writes


@pytest.fixture
def torch(requires: Callable[[str], None]) -> Any:
    requires("torch")
    backends.load("torch")
    import torch
    return torch


def assert_same(path: Path, expected: Mapping[str, Any], entry: str | None = None) -> StoredWeights:
    """Assert that the file's tensors are these tensors of PyTorch, bit for bit and in this order."""
    with path.open("rb") as file:
        weights = read(file, path, entry)
        assert list(weights.tensors) == list(expected)
        for name, value in expected.items():
            stored = weights.tensors[name]
            assert (f"torch.{stored.dtype}", stored.shape) == (str(value.dtype), tuple(value.shape))
            array = stored.load()
            value = value.detach().float() if stored.dtype == "bfloat16" else value.detach()
            assert array.dtype == value.numpy().dtype and array.shape == tuple(value.shape)
            assert array.tobytes() == value.contiguous().numpy().tobytes()
    return weights


def assert_read_as_pytorch_does(torch: Any, path: Path) -> None:
    assert_same(path, torch.load(path, weights_only=False))


@pytest.mark.parametrize("is_new", [True, False], ids=["archive", "stream"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_all_dtypes_and_views(torch, tmp_path, is_new, protocol):
    torch.manual_seed(0)
    base = torch.randn(4, 6, 5, 5)
    state = {str(dtype): (base * 50).to(dtype) for dtype in (
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint8, torch.bool)}
    state |= {"view": base[1:, ::2], "transposed": base.transpose(0, 3), "bfloat16 view": state["torch.bfloat16"][2, 3],
              "channels last": base.to(memory_format=torch.channels_last), "expanded": base[:1].expand(3, 6, 5, 5),
              "flat": base.flatten(), "scalar": torch.tensor(1.5), "empty": torch.zeros(0, 3),
              "parameter": torch.nn.Parameter(base[0]), "nan": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])}
    parameter = torch.nn.Parameter(base[3].half())
    parameter.note = state["with a note"] = base + 1
    state["parameter with state"] = parameter
    state["with a note"].note = "x"
    if is_new:  # PyTorch writes these to the older format, too, but cannot read them back
        state |= {str(dtype): base.to(dtype) for dtype in (torch.uint16, torch.uint32, torch.uint64)}
    torch.save(state, tmp_path / "all.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=is_new)
    assert_same(tmp_path / "all.pt", state)
    assert_read_as_pytorch_does(torch, tmp_path / "all.pt")


def make_model(torch: Any) -> Any:
    nn = torch.nn
    torch.manual_seed(1)
    return nn.Sequential(collections.OrderedDict(
        features=nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), flatten=nn.Flatten(),
        classifier=nn.Linear(4 * 4, 3)))


@pytest.mark.parametrize("is_new", [True, False], ids=["archive", "stream"])
def test_a_models_state_dict(torch, tmp_path, is_new):
    """BatchNorm's counter is the one tensor that is left out. DataParallel's names stay."""
    model = make_model(torch)
    for wrapped in (model, torch.nn.DataParallel(model)):
        state = wrapped.state_dict()
        torch.save(state, tmp_path / "model.pt", _use_new_zipfile_serialization=is_new)
        counter, = (name for name in state if name.endswith("num_batches_tracked"))
        del state[counter]
        assert_same(tmp_path / "model.pt", state)
    torch.save(model, tmp_path / "model.pt", _use_new_zipfile_serialization=is_new)
    with pytest.raises(ParametersError, match=r"is a torch\.nn\.modules\.container\.Sequential, "
                       r"not a state_dict; save the weights alone with torch\.save\(model\.state_dict\(\), FILE\)"):
        assert_same(tmp_path / "model.pt", {})


@pytest.mark.parametrize("is_new", [True, False], ids=["archive", "stream"])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_checkpoints_of_a_training(torch, tmp_path, monkeypatch, is_new, optimizer):
    monkeypatch.chdir(tmp_path)
    model = make_model(torch)
    del model.features[1]
    trained = getattr(torch.optim, optimizer)(model.parameters(), lr=0.1, **{"SGD": {"momentum": 0.9}}.get(
        optimizer, {}))
    model(torch.randn(2, 1, 4, 4)).sum().backward()
    trained.step()
    scheduler = torch.optim.lr_scheduler.StepLR(trained, 30)
    example = {"epoch": 3, "arch": "alexnet", "state_dict": torch.nn.DataParallel(model).state_dict(),
               "best_acc1": torch.tensor([57.3]), "optimizer": trained.state_dict(),
               "scheduler": scheduler.state_dict(), "args": argparse.Namespace(lr=0.1, data=Path("x")),
               "rng": torch.get_rng_state(), "loss": np.float32(0.5), "history": np.ones((3, 3)), "model": model,
               "evil": Evil()}
    lightning = {"epoch": 0, "global_step": 3, "pytorch-lightning_version": "2.0.0",
                 "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()},
                 "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"ready": 1}}}},
                 "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
                 "optimizer_states": [trained.state_dict()], "lr_schedulers": [scheduler.state_dict()],
                 "hparams_name": "kwargs", "hyper_parameters": AttributeDict(lr=0.1)}
    for checkpoint in (example, lightning):
        torch.save(checkpoint, "last.ckpt", _use_new_zipfile_serialization=is_new)
        assert assert_same(Path("last.ckpt"), checkpoint["state_dict"]).notes == ("weights of the entry `state_dict`",)
    assert not Path("harmed").exists()


def test_an_evil_state_dict_touches_no_file(torch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for is_new in (True, False):
        torch.save({"w": torch.ones(2, 2), "evil": Evil()}, "evil.pt", _use_new_zipfile_serialization=is_new)
        assert_same(Path("evil.pt"), {"w": torch.ones(2, 2)})
        torch.save({"w": Evil()}, "evil.pt", _use_new_zipfile_serialization=is_new)
        with pytest.raises(ParametersError, match="contains no state_dict"):
            assert_same(Path("evil.pt"), {})
    assert not Path("harmed").exists()
    torch.load("evil.pt", weights_only=False)
    assert Path("harmed").exists()


@pytest.mark.filterwarnings("ignore:.*quantize")
@pytest.mark.parametrize("make, message", [
    (lambda torch: torch.ones(2, 2, dtype=torch.complex64), "w is a tensor of complex64; save ordinary float32"),
    (lambda torch: torch.ones(2, 2).to(torch.float8_e4m3fn), "w is a tensor of float8_e4m3fn;"),
    (lambda torch: torch._neg_view(torch.ones(2, 2)), "w is a conjugated or negated view;"),
    (lambda torch: torch.ones(2, 2, dtype=torch.complex64).conj().imag, "w is a conjugated or negated view;"),
    (lambda torch: torch.ones(2, 2).to_sparse(), "w is a sparse tensor;"),
    (lambda torch: torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8), "w is a quantized tensor;"),
    (lambda torch: torch.ones(2, 2, device="meta"), "w is a meta tensor;"),
    (lambda torch: torch.ones(2, 2).as_subclass(type("Mine", (torch.Tensor,), {"__module__": __name__})),
     r"w is a tensor of class .*Mine;")],
    ids=["complex", "float8", "negated", "conjugated", "sparse", "quantized", "meta", "subclass"])
def test_tensors_without_plain_values_are_refused_by_name(torch, tmp_path, monkeypatch, make, message):
    """Outside of the state_dict such tensors are ignored."""
    value = make(torch)
    if type(value) is not torch.Tensor:
        monkeypatch.setattr(sys.modules[__name__], "Mine", type(value), raising=False)
    torch.save({"w": value}, tmp_path / "w.pt")
    with pytest.raises(ParametersError, match=message):
        assert_same(tmp_path / "w.pt", {})
    state = {"v": torch.ones(2, 2)}
    torch.save({"optimizer": {"w": value}, "model": state}, tmp_path / "w.pt")
    assert_same(tmp_path / "w.pt", state)


def test_a_file_without_checksums(torch, tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(2, 2)}, tmp_path / "w.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_read_as_pytorch_does(torch, tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore")
def test_torchscript(torch, tmp_path):
    model = make_model(torch).eval()
    for script in (torch.jit.script(model), torch.jit.trace(model, torch.ones(1, 1, 4, 4))):
        script.save(tmp_path / "script.pt")
        state = {name: value for name, value in script.state_dict().items() if not name.endswith("_tracked")}
        assert_same(tmp_path / "script.pt", state)
    torch.jit.freeze(torch.jit.script(model)).save(tmp_path / "script.pt")
    with pytest.raises(ParametersError, match="contains no state_dict"):  # it has constants instead of parameters
        assert_same(tmp_path / "script.pt", {})
    shared = torch.nn.Linear(3, 3)
    script = torch.jit.script(torch.nn.Sequential(shared, torch.nn.ReLU(), shared))
    script.save(tmp_path / "script.pt")
    assert_same(tmp_path / "script.pt", script.state_dict())


@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_is_refused_with_the_line_that_saves_its_weights(torch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Linear(3, 2)
    torch.export.save(torch.export.export(model, (torch.ones(1, 3),)), "model.pt2")
    with pytest.raises(ParametersError, match="is an exported program; save its weights with ") as caught:
        assert_same(Path("model.pt2"), {})
    line = str(caught.value).rpartition("with ")[2]
    exec(line, {"torch": torch, "FILE": "model.pt2", "NEW": "new.pt"})
    assert_same(Path("new.pt"), model.state_dict())
