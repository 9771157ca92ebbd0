"""Small Fashion-MNIST files on disk and on a local HTTP server, isolated from the user's own files."""

from __future__ import annotations

import gzip
import hashlib
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from alexnet_mf.data import downloads, fashion_mnist


def idx_bytes(values: np.ndarray) -> bytes:
    header = struct.pack(f">I{values.ndim}I", 0x0800 | values.ndim, *values.shape)
    return header + values.astype(np.uint8).tobytes()


@pytest.fixture
def files() -> dict[str, bytes]:
    """Return the contents of the four files by name, with a few images each."""
    files = {}
    for part, count in (("train", 30), ("t10k", 20)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28))
        files[f"{part}-images-idx3-ubyte.gz"] = gzip.compress(idx_bytes(images), mtime=0)
        files[f"{part}-labels-idx1-ubyte.gz"] = gzip.compress(idx_bytes(np.arange(count) % 10), mtime=0)
    return files


@pytest.fixture
def folder(tmp_path: Path, files: dict[str, bytes]) -> Path:
    """Return a folder with the four compressed files."""
    path = tmp_path / "fashion"
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


@dataclass
class Mirror:
    """Folder on a local server; each file can be missing or cut."""

    url: str
    files: dict[str, bytes]
    cut: set[str] = field(default_factory=set)
    """Names of files that break off half way."""
    requests: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    def __init__(self, mirrors: dict[str, Mirror], *args: object) -> None:
        self.mirrors = mirrors
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        _, key, name = self.path.split("/")
        mirror = self.mirrors[key]
        mirror.requests.append(name)
        content = mirror.files.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:len(content) // 2] if name in mirror.cut else content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def mirrors(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Replace the real mirrors by two local ones, and the published hashes by hashes of the local files."""
    table: dict[str, Mirror] = {}
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, table)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        base = f"http://127.0.0.1:{server.server_port}"
        table |= {key: Mirror(f"{base}/{key}/", dict(files)) for key in ("first", "second")}
        monkeypatch.setattr(fashion_mnist, "MIRRORS", (table["first"].url, table["second"].url))
        hashes = {name: hashlib.md5(files[name]).hexdigest() for name in fashion_mnist.MD5}
        monkeypatch.setattr(fashion_mnist, "MD5", hashes)
        yield SimpleNamespace(**table)
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """Provide an empty cache. Unset the folder of the environment, and block all servers but the local one."""
    path = tmp_path / "cache" / "fashion-mnist"
    monkeypatch.setattr(downloads, "cache_folder", lambda name: path)
    if "mirrors" not in request.fixturenames:
        monkeypatch.setattr(fashion_mnist, "MIRRORS", ("http://127.0.0.1:9/a/", "http://127.0.0.1:9/b/"))  # discard
    monkeypatch.delenv(downloads.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return path
