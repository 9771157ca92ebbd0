"""Whatever a file holds, its reader reads it or refuses it by an error of the package's own, in one line.

Hypothesis makes good files bad (`bad_files.py`), and a process of its own reads them (`child.py`): no crash, no hang,
no hunger for memory. `-m slow` tries far more of them; without a fixed seed, so that each night tries others.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import select
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from bad_files import (
    header_of,
    of_bytes,
    of_gzip,
    of_json,
    of_json_text,
    of_lines,
    of_png,
    of_safetensors,
    of_toml,
    of_zip,
    text_of,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from played import Trainings

from alexnet_mf import cli, conversion, data, files, spec
from alexnet_mf.instruments.records import plain
from alexnet_mf.parity import trace
from alexnet_mf.spec import layers, toml
from alexnet_mf.spec.toml import dump
from alexnet_mf.sweep.plan import Plan
from alexnet_mf.sweep.record import Data
from alexnet_mf.sweep.run import Sweep, begin
from alexnet_mf.training.record import MOST_BYTES
from alexnet_mf.weights import parameters

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")

SECONDS = 60
"""That a reader may take before it counts as hung: the largest take one, and more on a machine that is busy."""
RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "epyc-2-cores.json"


class Child:
    """The process that reads; a new one where it is gone."""

    def __init__(self, *loaded: str) -> None:
        self.loaded = loaded
        """Backends."""
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("child.py")), *self.loaded], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
        assert self.line(120) == "ready"
        return self.process

    def line(self, seconds: float) -> str:
        """The next answer; says so where none comes."""
        assert self.process is not None and self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            self.close()
            return f"no answer in {seconds} s"
        answer = self.process.stdout.readline()
        if not answer:
            code = self.process.wait()
            self.process = None
            return f"the process is gone: exit code {code}"
        return str(json.loads(answer))

    def read(self, reader: str, folder: Path) -> str:
        process = self.process or self.start()
        assert process.stdin is not None
        process.stdin.write(json.dumps([reader, str(folder)]) + "\n")
        process.stdin.flush()
        return self.line(SECONDS)

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    found = Child()
    yield found
    found.close()


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">I{values.ndim}I", 0x800 | values.ndim, *values.shape) + values.tobytes()


def swept(network: spec.Network, folder: Path) -> dict[str, Any]:
    """The record of a sweep that chose a learning rate, complete."""
    images = data.synthetic.draw(0, train=40, test=10)
    plan = Plan("numpy", ("tiny",), seeds=(0, 1), learning_rates=(0.1, 0.5), held_out=10, epochs=2)
    record = begin(plan, {"tiny": network}, Data(name="synthetic", origin=images.origin, sha256=images.digest()),
                   folder)
    played = Trainings(images.digest())
    done = plain(Sweep(record, folder, ["alexnet-mf", "sweep"], connect=played.connect).run())
    return {**done, "folder": "gone"}  # a copy of the record: its run folders are nowhere, and nothing is trained again


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A good file of each kind, as it is written: bytes, and the run's folder."""
    folder = tmp_path_factory.mktemp("good")
    network = spec.Network("tiny", (1, 28, 28), (
        layers.Conv2d("conv1", channels=2, kernel=7, stride=4), layers.MaxPool2d("pool1", kernel=2, stride=2),
        layers.Flatten("flatten"), layers.Dropout("drop1", rate=0.5), layers.Dense("fc2", units=10)))
    (folder / "tiny.toml").write_text(dump(network))
    net = ["--net", str(folder / "tiny.toml"), "--backend", "numpy", "--data", "synthetic"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.synthetic, "draw", partial(data.synthetic.draw, train=40, test=10))
        assert cli.main(["train", *net, "--momentum", "0.9", "--batch-size", "8", "--epochs", "2", "--quiet", "--out",
                         str(folder / "run")]) == 0
        assert cli.main(["parity", "trace", *net, "--batch-size", "1", "--steps", "1", "--images", "4", "--out",
                         str(folder / "trace.safetensors")]) == 0
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    images = np.random.default_rng(1).integers(0, 256, (4, 28, 28)).astype(np.uint8)
    record = json.loads(RECORD.read_text())
    for result in record["results"]:
        result["samples"] = result["samples"][:2]
    record["results"] = record["results"][:6]
    metadata = {"network": spec.as_dict(network), "seed": 0, "step": 3}
    picture = Image.fromarray(pixels)
    return {"run": folder / "run", "trace": (folder / "trace.safetensors").read_bytes(), "network": network,
            "weights": parameters.to_bytes(parameters.initialise(network, 0), metadata),
            "sweep": text_of(swept(network, folder)),
            "toml": (folder / "tiny.toml").read_bytes(), "bench": text_of(record), "record": record,
            "idx images": idx(images), "idx labels": idx(np.arange(10, dtype=np.uint8)),
            "names": "\n".join(data.FASHION_CLASSES).encode(),
            "pictures": [saved(picture, "PNG"), saved(picture.convert("P"), "PNG"),
                         saved(picture.convert("RGBA"), "PNG"),
                         saved(Image.fromarray(pixels[..., 0].astype(np.uint16) * 200), "PNG")],
            "jpegs": [saved(picture, "JPEG"), saved(picture.convert("L"), "JPEG", progressive=True),
                      saved(picture.convert("CMYK"), "JPEG")]}


# How a bad file of each kind is put into an empty folder


def one_file(name: str, strategy: Callable[[bytes], st.SearchStrategy[bytes]], kind: str) -> Any:
    def put(draw: Callable[..., Any], good: dict[str, Any], folder: Path) -> None:
        (folder / name).write_bytes(draw(strategy(good[kind])))
    return put


def put_weights(draw: Callable[..., Any], good: dict[str, Any], folder: Path) -> None:
    """Half of the time with a checksum that fits, if tensors and metadata can be read at all."""
    content = draw(of_safetensors(good["weights"]))
    if draw(st.booleans()):
        with contextlib.suppress(Exception):
            metadata = json.loads(header_of(content)[0]["__metadata__"][parameters.KEY])["metadata"]
            content = parameters.to_bytes(safetensors.numpy.load(content), metadata)
    (folder / "w.safetensors").write_bytes(content)


def put_idx(kind: str) -> Any:
    def put(draw: Callable[..., Any], good: dict[str, Any], folder: Path) -> None:
        (folder / "idx").write_bytes(draw(of_bytes(good[kind]) | of_gzip(good[kind])))
    return put


def put_picture(draw: Callable[..., Any], good: dict[str, Any], folder: Path) -> None:
    content = draw(st.one_of(st.sampled_from(good["pictures"]).flatmap(of_png),
                             st.sampled_from(good["jpegs"]).flatmap(of_bytes)))
    (folder / "picture").write_bytes(content)


def put_run(draw: Callable[..., Any], good: dict[str, Any], folder: Path) -> None:
    """With a checksum that fits, most of the time."""
    shutil.copytree(good["run"], folder, dirs_exist_ok=True)
    content = (folder / "run.json").read_bytes()
    if draw(st.integers(0, 4)) == 0:
        content = draw(of_json_text(content))
    else:
        value = draw(of_json({key: entry for key, entry in json.loads(content).items() if key != "sha256"}))
        if isinstance(value, dict):
            value["sha256"] = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
        content = text_of(value)
    (folder / "run.json").write_bytes(content)


def put_checkpoint(draw: Callable[..., Any], good: dict[str, Any], folder: Path) -> None:
    """Likewise; the checksum is in the name."""
    shutil.copytree(good["run"], folder, dirs_exist_ok=True)
    for path in (folder / "checkpoint").iterdir():
        content = draw(of_safetensors(path.read_bytes()))
        path.unlink()
        name = f"step-{draw(st.sampled_from(['00000004', '00000010', '99999999999999999999']))}"
        (path.with_name(f"{name}-{hashlib.sha256(content).hexdigest()[:16]}.safetensors")).write_bytes(content)


def put_for_resuming(draw: Callable[..., Any], good: dict[str, Any], folder: Path) -> None:
    draw(st.sampled_from([put_run, put_checkpoint]))(draw, good, folder)


def put_metrics(draw: Callable[..., Any], good: dict[str, Any], folder: Path) -> None:
    shutil.copytree(good["run"], folder, dirs_exist_ok=True)
    (folder / "metrics.jsonl").write_bytes(draw(of_lines((folder / "metrics.jsonl").read_bytes())))


KINDS = {  # by reader: what makes a bad file, and how many in the tests of every day
    "idx images": (put_idx("idx images"), 120), "idx labels": (put_idx("idx labels"), 120),
    "weights": (put_weights, 250),
    "trace": (one_file("trace.safetensors", of_safetensors, "trace"), 200),
    "compare": (one_file("trace.safetensors", of_safetensors, "trace"), 60),
    "toml": (one_file("net.toml", of_toml, "toml"), 250),
    "bench": (one_file("bench.json", of_json_text, "bench"), 100),
    "names": (one_file("names", of_bytes, "names"), 60), "picture": (put_picture, 300),
    "run": (put_run, 200), "checkpoint": (put_checkpoint, 200), "resume": (put_for_resuming, 120),
    "metrics": (put_metrics, 200), "curves": (put_metrics, 10),
    "sweep": (one_file("sweep.json", of_json_text, "sweep"), 120),
    "sweep plot": (one_file("sweep.json", of_json_text, "sweep"), 10)}

NATIVE = {  # a framework's own files of weights: by kind, whose they are, what makes bad ones, and how many
    "torch": ("torch", of_zip, 60), "keras": ("tensorflow", of_bytes, 60), "gluon": ("mxnet", of_bytes, 100),
    "npz": ("numpy", of_zip, 60)}


def fuzz(kind: str, child: Child, put: Any, good: dict[str, Any], folder: Path, examples: int,
         derandomize: bool) -> None:
    answers: list[str] = []

    @settings(max_examples=examples, deadline=None, database=None, derandomize=derandomize,
              suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink])
    @given(st.data())
    def read(drawn: st.DataObject) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        put(drawn.draw, good, folder)
        answers.append(child.read(kind, folder))
        assert answers[-1] in ("read", "refused"), answers[-1]

    read()
    assert "refused" in answers, "nothing was bad: the test shows nothing"
    print(f"{kind}: {len(answers)} tried, {answers.count('refused')} refused")


@pytest.mark.parametrize("times", [1, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_bad_files(kind: str, times: int, child: Child, good: dict[str, Any], tmp_path: Path) -> None:
    put, examples = KINDS[kind]
    fuzz(kind, child, put, good, tmp_path / "bad", times * examples, derandomize=times == 1)


@pytest.mark.parametrize("times", [1, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", NATIVE)
def test_bad_files_of_a_framework(kind: str, times: int, good: dict[str, Any], tmp_path: Path, requires: Any) -> None:
    """In a process that has the framework."""
    backend, strategy, examples = NATIVE[kind]
    requires(backend)
    content = conversion.encode(kind, good["network"], parameters.initialise(good["network"], 0))

    def put(draw: Callable[..., Any], good: dict[str, Any], folder: Path) -> None:
        (folder / "net.toml").write_bytes(good["toml"])
        (folder / "w").write_bytes(draw(strategy(content)))

    child = Child(backend)
    try:
        put(lambda as_it_is: content, good, tmp_path)
        assert child.read(kind, tmp_path) == "read"
        fuzz(kind, child, put, good, tmp_path / "bad", times * examples, derandomize=times == 1)
    finally:
        child.close()


@pytest.mark.parametrize("mode, kind, options", [
    ("RGBA", "PNG", {"compress_level": 1}),  # the mode that takes most
    *(pytest.param(*case, marks=pytest.mark.slow) for case in [
        ("RGB", "JPEG", {"progressive": True, "subsampling": 0}), ("CMYK", "JPEG", {}), ("I;16", "PNG", {}),
        ("P", "PNG", {"transparency": b"\0"}), ("LA", "PNG", {})])], ids=str)
def test_every_picture_that_is_decoded_fits_into_the_bound(child: Child, tmp_path: Path, mode: str, kind: str,
                                                           options: dict[str, Any]) -> None:
    making = f"from PIL import Image; Image.new({mode!r}, (7071, 7071)).save('picture', {kind!r}, **{options!r})"
    subprocess.run([sys.executable, "-c", making], cwd=tmp_path, check=True)  # its 200 MB are not this process's
    assert child.read("picture", tmp_path) == "read"


@pytest.mark.parametrize("kind", ["weights", "trace", "run", "metrics", "bench", "toml"])
def test_what_is_small_to_read_and_large_to_hold_fits_too(kind: str, child: Child, good: dict[str, Any],
                                                          tmp_path: Path) -> None:
    """Empty lists by the million, as many as are read, where nobody asks for them: objects take twenty times more."""
    size = {"run": MOST_BYTES, "toml": toml.MOST_BYTES}.get(kind, files.MOST_JSON)
    wide = f"[{'[],' * (size // 3 - 20)}[]]"
    if kind == "toml":
        (tmp_path / "net.toml").write_text(f"x = {wide}")
    elif kind in ("weights", "trace"):
        network = f'{{"network": {wide}}}'
        entry = {trace.KEY: network} if kind == "trace" else \
            {parameters.KEY: f'{{"metadata": {network}, "sha256": ""}}'}
        content = safetensors.numpy.save({"x": np.zeros(1, np.float32)}, entry)
        (tmp_path / {"weights": "w", "trace": "trace"}[kind]).with_suffix(".safetensors").write_bytes(content)
    else:
        (tmp_path / {"run": "run.json", "metrics": "metrics.jsonl", "bench": "bench.json"}[kind]).write_text(
            f'{{"kind": {wide}}}\n')
    assert child.read(kind, tmp_path) == "refused"


def test_good_files_are_read(child: Child, good: dict[str, Any], tmp_path: Path) -> None:
    """Or the test would show nothing."""
    for kind, name in (("weights", "w.safetensors"), ("trace", "trace.safetensors"), ("compare", "trace.safetensors"),
                       ("toml", "net.toml"), ("bench", "bench.json"), ("names", "names"), ("idx images", "idx"),
                       ("idx labels", "idx"), ("sweep", "sweep.json"), ("sweep plot", "sweep.json")):
        found = good[{"compare": "trace", "sweep plot": "sweep"}.get(kind, kind)]
        for content in found if isinstance(found, list) else [found]:
            (tmp_path / name).write_bytes(content)
            assert child.read(kind, tmp_path) == "read", kind
    for content in [*good["pictures"], *good["jpegs"]]:
        (tmp_path / "picture").write_bytes(content)
        assert child.read("picture", tmp_path) == "read"
    shutil.copytree(good["run"], tmp_path / "run")
    for kind in ("run", "checkpoint", "metrics", "curves", "resume"):
        assert child.read(kind, tmp_path / "run") == "read", kind
