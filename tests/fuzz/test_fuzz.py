"""Every reader reads a file or refuses it with an error of the package's own, in one line, whatever the content.

Hypothesis damages good files (`bad_files.py`), and another process reads them (`child.py`) without a crash, a hang or
excessive memory. `-m slow` tries far more of them, without a fixed seed, so that each run tries others.
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
    of_torch_archive,
    of_torch_stream,
    of_zip,
    text_of,
)
from caffe_files import caffemodel, inputs_of, layers_of
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from simulated_trainings import Trainings
from torch_files import OLD_STATE, STATE, STORAGES, archive, inside, mapping, stream

from alexnet_mf import cli, conversion, data, files, spec
from alexnet_mf.instruments.records import plain
from alexnet_mf.parity import trace
from alexnet_mf.spec import layers, toml
from alexnet_mf.spec.preprocessing import IMAGENET
from alexnet_mf.spec.toml import dump
from alexnet_mf.sweep.plan import Plan
from alexnet_mf.sweep.record import Data
from alexnet_mf.sweep.run import Sweep, begin
from alexnet_mf.training.record import MOST_BYTES
from alexnet_mf.weights import parameters
from alexnet_mf.weights.metadata import entries

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the memory limit needs Linux")

SECONDS = 60
"""Time limit of a reader, in seconds. The largest files take one, and more on a busy machine."""
RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "epyc-2-cores.json"


class Child:
    """Process that reads files, and is started again if it ended."""

    def __init__(self, *loaded: str) -> None:
        self.loaded = loaded
        """Backends to load."""
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("child.py")), *self.loaded], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
        assert self.line(120) == "ready"
        return self.process

    def line(self, seconds: float) -> str:
        """Return the next answer, or a message if none comes."""
        assert self.process is not None and self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            self.close()
            return f"no answer in {seconds} s"
        answer = self.process.stdout.readline()
        if not answer:
            code = self.process.wait()
            self.process = None
            return f"the process ended with exit code {code}"
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
    process = Child()
    yield process
    process.close()


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, image_format, **options)
    return content.getvalue()


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">I{values.ndim}I", 0x800 | values.ndim, *values.shape) + values.tobytes()


def swept(network: spec.Network, folder: Path) -> dict[str, Any]:
    """Return the complete record of a sweep that chose a learning rate."""
    images = data.synthetic.draw(0, train=40, test=10)
    plan = Plan("numpy", ("tiny",), seeds=(0, 1), learning_rates=(0.1, 0.5), held_out=10, epochs=2)
    drawn = Data(source=data.DataSource("synthetic"), origin=images.origin, sha256=images.digest())
    record = begin(plan, {"tiny": network}, drawn, folder)
    simulated = Trainings(images.digest())
    done = plain(Sweep(record, folder, ["alexnet-mf", "sweep"], connect=simulated.connect).run())
    return {**done, "folder": "gone"}  # without its run folders; no training is repeated


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return a good file of each format, as bytes, and the run's folder."""
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
    metadata = {"network": spec.as_dict(network), "seed": 0, "step": 3,
                **entries(network, IMAGENET, data.FASHION_CLASSES)}
    picture = Image.fromarray(pixels)
    return {"run": folder / "run", "trace": (folder / "trace.safetensors").read_bytes(), "network": network,
            "weights": parameters.to_bytes(parameters.initialize(network, 0), metadata),
            "sweep": text_of(swept(network, folder)),
            "toml": (folder / "tiny.toml").read_bytes(), "bench": text_of(record), "record": record,
            "idx images": idx(images), "idx labels": idx(np.arange(10, dtype=np.uint8)),
            "names": "\n".join(data.FASHION_CLASSES).encode(),
            "torch archive": archive(mapping({"state_dict": mapping(STATE), "epoch": inside(3)}), STORAGES),
            "torch stream": stream(mapping(OLD_STATE), STORAGES),
            "pictures": [encode(picture, "PNG"), encode(picture.convert("P"), "PNG"),
                         encode(picture.convert("RGBA"), "PNG"),
                         encode(Image.fromarray(pixels[..., 0].astype(np.uint16) * 200), "PNG")],
            "jpegs": [encode(picture, "JPEG"), encode(picture.convert("L"), "JPEG", progressive=True),
                      encode(picture.convert("CMYK"), "JPEG")]}


# Functions that put one bad file into an empty folder


def one_file(name: str, strategy: Callable[[bytes], st.SearchStrategy[bytes]], key: str) -> Any:
    def put(draw: Callable[..., Any], good: dict[str, Any], folder: Path) -> None:
        (folder / name).write_bytes(draw(strategy(good[key])))
    return put


def put_weights(draw: Callable[..., Any], good: dict[str, Any], folder: Path) -> None:
    """Put damaged weights, half of the time with a correct checksum, if they can be read at all."""
    content = draw(of_safetensors(good["weights"]))
    if draw(st.booleans()):
        with contextlib.suppress(Exception):
            metadata = json.loads(header_of(content)[0]["__metadata__"][parameters.KEY])["metadata"]
            content = parameters.to_bytes(safetensors.numpy.load(content), metadata)
    (folder / "w.safetensors").write_bytes(content)


def put_idx(key: str) -> Any:
    def put(draw: Callable[..., Any], good: dict[str, Any], folder: Path) -> None:
        (folder / "idx").write_bytes(draw(of_bytes(good[key]) | of_gzip(good[key])))
    return put


def put_picture(draw: Callable[..., Any], good: dict[str, Any], folder: Path) -> None:
    content = draw(st.one_of(st.sampled_from(good["pictures"]).flatmap(of_png),
                             st.sampled_from(good["jpegs"]).flatmap(of_bytes)))
    (folder / "picture").write_bytes(content)


def put_run(draw: Callable[..., Any], good: dict[str, Any], folder: Path) -> None:
    """Put a run with a damaged record, most of the time with a correct checksum."""
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
    """Put a run with damaged checkpoints, whose names have correct checksums."""
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


CASES = {  # by reader: the function that puts a bad file, and the number of files in the daily tests
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
    "sweep plot": (one_file("sweep.json", of_json_text, "sweep"), 10),
    "torch archive": (one_file("w.pt", of_torch_archive, "torch archive"), 70),
    "torch stream": (one_file("w.pt", of_torch_stream, "torch stream"), 70)}

NATIVE = {  # by weights format: its backend, the strategy that damages a file, and the number of files
    "torch": ("torch", of_zip, 60), "keras": ("tensorflow", of_bytes, 60), "gluon": ("mxnet", of_bytes, 100),
    "npz": ("numpy", of_zip, 60), "onnx": ("numpy", of_bytes, 100), "caffe": ("numpy", of_bytes, 100)}


def fuzz(reader: str, child: Child, put: Any, good: dict[str, Any], folder: Path, examples: int,
         derandomize: bool) -> None:
    answers: list[str] = []

    @settings(max_examples=examples, deadline=None, database=None, derandomize=derandomize,
              suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink])
    @given(st.data())
    def read(drawn: st.DataObject) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        put(drawn.draw, good, folder)
        answers.append(child.read(reader, folder))
        assert answers[-1] in ("read", "refused"), answers[-1]

    read()
    assert "refused" in answers, "no file was refused, so the test shows nothing"
    print(f"{reader}: {len(answers)} tried, {answers.count('refused')} refused")


@pytest.mark.parametrize("times", [1, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("reader", CASES)
def test_bad_files_are_read_or_refused(reader: str, times: int, child: Child, good: dict[str, Any],
                                       tmp_path: Path) -> None:
    put, examples = CASES[reader]
    fuzz(reader, child, put, good, tmp_path / "bad", times * examples, derandomize=times == 1)


@pytest.mark.parametrize("times", [1, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("weights_format", NATIVE)
def test_bad_weights_files_of_a_framework_are_read_or_refused(weights_format: str, times: int, good: dict[str, Any],
                                                              tmp_path: Path, requires: Any) -> None:
    backend, strategy, examples = NATIVE[weights_format]
    requires(backend)
    network, weights = good["network"], parameters.initialize(good["network"], 0)
    content = caffemodel(layers_of(network, weights), **inputs_of(network)) if weights_format == "caffe" else \
        conversion.encode(weights_format, network, weights)

    def put(draw: Callable[..., Any], good: dict[str, Any], folder: Path) -> None:
        (folder / "net.toml").write_bytes(good["toml"])
        (folder / "w").write_bytes(draw(strategy(content)))

    child = Child(backend)
    try:
        put(lambda strategy: content, good, tmp_path)
        assert child.read(weights_format, tmp_path) == "read"
        fuzz(weights_format, child, put, good, tmp_path / "bad", times * examples, derandomize=times == 1)
    finally:
        child.close()


@pytest.mark.parametrize("mode, image_format, options", [
    ("RGBA", "PNG", {"compress_level": 1}),  # takes the most memory
    *(pytest.param(*case, marks=pytest.mark.slow) for case in [
        ("RGB", "JPEG", {"progressive": True, "subsampling": 0}), ("CMYK", "JPEG", {}), ("I;16", "PNG", {}),
        ("P", "PNG", {"transparency": b"\0"}), ("LA", "PNG", {})])], ids=str)
def test_the_largest_pictures_fit_into_the_memory_limit(child: Child, tmp_path: Path, mode: str, image_format: str,
                                                        options: dict[str, Any]) -> None:
    code = f"from PIL import Image; Image.new({mode!r}, (7071, 7071)).save('picture', {image_format!r}, **{options!r})"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)  # takes 200 MB
    assert child.read("picture", tmp_path) == "read"


@pytest.mark.parametrize("reader", ["weights", "trace", "run", "metrics", "bench", "toml"])
def test_millions_of_empty_lists_fit_into_the_memory_limit(reader: str, child: Child, good: dict[str, Any],
                                                           tmp_path: Path) -> None:
    """Empty lists in an unused field, up to the size limit, take twenty times the file's size as objects."""
    size = {"run": MOST_BYTES, "toml": toml.MOST_BYTES}.get(reader, files.MOST_JSON)
    wide = f"[{'[],' * (size // 3 - 20)}[]]"
    if reader == "toml":
        (tmp_path / "net.toml").write_text(f"x = {wide}")
    elif reader in ("weights", "trace"):
        network = f'{{"network": {wide}}}'
        entry = {trace.KEY: network} if reader == "trace" else \
            {parameters.KEY: f'{{"metadata": {network}, "sha256": ""}}'}
        content = safetensors.numpy.save({"x": np.zeros(1, np.float32)}, entry)
        (tmp_path / {"weights": "w", "trace": "trace"}[reader]).with_suffix(".safetensors").write_bytes(content)
    else:
        (tmp_path / {"run": "run.json", "metrics": "metrics.jsonl", "bench": "bench.json"}[reader]).write_text(
            f'{{"kind": {wide}}}\n')
    assert child.read(reader, tmp_path) == "refused"


def test_good_files_are_read(child: Child, good: dict[str, Any], tmp_path: Path) -> None:
    """The other tests would show nothing if the good files were refused."""
    for reader, name in (("weights", "w.safetensors"), ("trace", "trace.safetensors"), ("compare", "trace.safetensors"),
                         ("toml", "net.toml"), ("bench", "bench.json"), ("names", "names"), ("idx images", "idx"),
                         ("idx labels", "idx"), ("sweep", "sweep.json"), ("sweep plot", "sweep.json"),
                         ("torch archive", "w.pt"), ("torch stream", "w.pt")):
        contents = good[{"compare": "trace", "sweep plot": "sweep"}.get(reader, reader)]
        for content in contents if isinstance(contents, list) else [contents]:
            (tmp_path / name).write_bytes(content)
            assert child.read(reader, tmp_path) == "read", reader
    for content in [*good["pictures"], *good["jpegs"]]:
        (tmp_path / "picture").write_bytes(content)
        assert child.read("picture", tmp_path) == "read"
    shutil.copytree(good["run"], tmp_path / "run")
    for reader in ("run", "checkpoint", "metrics", "curves", "resume"):
        assert child.read(reader, tmp_path / "run") == "read", reader
