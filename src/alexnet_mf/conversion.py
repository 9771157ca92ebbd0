"""Weights in other programs' files: told apart, read, checked, written. The one door by which weights come and go.

Every conversion passes through canonical parameters. A file is read only if its size can be the network's, nothing is
unpickled, and what does not fit is named tensor by tensor. What is to be written is read back first, and must be the
same bits.
"""

from __future__ import annotations

import importlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import backends, files, spec
from alexnet_mf.backends.capabilities import weight_formats
from alexnet_mf.errors import AlexnetMfError, ParametersError
from alexnet_mf.spec import Network, arithmetic, zoo
from alexnet_mf.spec.toml import find_network
from alexnet_mf.training.opened import Which, open_weights, weights_file
from alexnet_mf.weights import parameters
from alexnet_mf.weights.parameters import Parameters


@dataclass(frozen=True)
class Kind:
    """A kind of file that holds weights."""

    what: str
    suffixes: tuple[str, ...] = ()
    """How its name ends; the first is the one to write."""
    backend: str | None = None
    """Whose framework reads and writes it."""


CANONICAL, ONNX = "safetensors", "onnx"
KINDS = {
    CANONICAL: Kind("canonical safetensors, or a run folder", (".safetensors",)),
    "torch": Kind("PyTorch's state_dict, under canonical names", (".pt", ".pth"), "torch"),
    "torchvision": Kind("PyTorch's state_dict of torchvision's alexnet, for alexnet-owt", (), "torch"),
    "keras": Kind("weights of Keras 3", (".weights.h5", ".keras"), "tensorflow"),
    "gluon": Kind("MXNet Gluon's parameters", (".params",), "mxnet"),
    "gluon-zoo": Kind("parameters of the MXNet model zoo's alexnet, for alexnet-owt", (), "mxnet"),
    "npz": Kind("NumPy's arrays, under canonical names", (".npz",), "numpy"),
    ONNX: Kind("an ONNX graph with its weights, to be written only", (".onnx",)),
}

BYTES_A_PARAMETER = 16
"""A file may hold weights, momentum and more; but not more than that."""
SLACK = 2**24
"""Bytes of a file that are neither."""

ZIP, HDF5, GLUON = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", (0x112).to_bytes(8, "little")
TORCH_BEFORE_1_6 = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""How `torch.save` began until 1.6: a pickled magic number, 0x1950a86a20f9469cfc6c."""


@dataclass(frozen=True)
class Weights:
    """A network's parameters, and where they came from."""

    kind: str
    path: Path
    """The file itself; of a run folder, the one in it."""
    network: Network
    parameters: Parameters
    metadata: dict[str, Any]
    """What a canonical file says of them; {} of any other."""


@dataclass(frozen=True)
class Conversion:
    """What was read and written."""

    source: str
    """Its kind."""
    destination: str
    network: Network
    parameters: int
    sha256: str
    """Of the canonical parameters; see `parameters.digest`."""


def convert(source: Path | str, destination: Path | str, *, source_kind: str | None = None,
            destination_kind: str | None = None, net: str | None = None, which: Which = "last",
            overwrite: bool = False) -> Conversion:
    """Read weights from one file, or a run folder, and write them to another.

    Args:
        source_kind: one of `KINDS`; told from the content without it.
        destination_kind: likewise; told from the ending of the name without it.
        net: the network, by name or as a .toml file. Without it the one that the source names; a file that cannot name
            one is taken for `alexnet`'s.
        which: of a run folder, the last weights or those of the best test accuracy.
        overwrite: whether the destination may be there already.

    Raises:
        AlexnetMfError: where a kind cannot be told or written, the destination is there, or cannot be written.
        ParametersError: where the source is damaged, or not this network's; names every tensor at fault.
        BackendUnavailable: where a kind's framework is not installed; names the line that installs it.
    """
    source, destination = Path(source), Path(destination)
    kind = destination_kind or kind_of_name(destination)
    check_destination(destination, kind, overwrite)
    found = read(source, source_kind, net, which)
    content = encode(kind, found)
    try:
        files.write(destination, content)
    except OSError as error:
        raise AlexnetMfError(f"{destination}: cannot be written ({error.strerror}); name another file") from error
    return Conversion(found.kind, kind, found.network, sum(arithmetic.parameter_counts(found.network).values()),
                      parameters.digest(found.parameters))


def kind_of_name(path: Path) -> str:
    """The kind that a name's ending stands for.

    Raises:
        AlexnetMfError: where it stands for none; lists those that do.
    """
    for name, kind in KINDS.items():
        if path.name.endswith(kind.suffixes):
            return name
    endings = ", ".join(f"{name} ({' '.join(kind.suffixes)})" for name, kind in KINDS.items() if kind.suffixes)
    raise AlexnetMfError(f"{path}: its ending names no kind; there are {endings}; or say it with --to")


def kind_of_content(path: Path) -> str:
    """The kind that a file's first bytes, or the names in its archive, show.

    Raises:
        AlexnetMfError: where they show none, or the file cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is not a file")
        with open(path, "rb") as file:
            start = file.read(len(TORCH_BEFORE_1_6))
        size = path.stat().st_size
        if start.startswith(ZIP):
            with zipfile.ZipFile(path) as archive:
                kind = _kind_of_archive(archive.namelist())
        elif start.startswith(HDF5):
            kind = "keras"
        elif start.startswith(GLUON):
            kind = "gluon"
        elif start == TORCH_BEFORE_1_6:
            kind = "torch"
        elif int.from_bytes(start[:8], "little") <= size and start[8:9] == b"{":
            kind = CANONICAL
        else:
            kind = next((name for name in (ONNX, CANONICAL) if path.name.endswith(KINDS[name].suffixes)), None)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ParametersError(f"{path}: cannot be read ({reason})") from error
    if kind is None:
        raise ParametersError(f"{path}: no kind of weights that is known: {', '.join(readable())}; if it is one, say "
                              f"which: convert --from")
    return kind


def _kind_of_archive(names: list[str]) -> str | None:
    if "model.weights.h5" in names:
        return "keras"
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    return "npz" if names and all(name.endswith(".npy") for name in names) else None


def readable() -> list[str]:
    """The kinds that can be read."""
    return [name for name in KINDS if name != ONNX]


def read(path: Path, kind: str | None = None, net: Network | str | None = None, which: Which = "last",
         backend: str = "torch") -> Weights:
    """Read and check weights of any kind.

    Args:
        kind, which: as for `convert`.
        net: likewise, or the network itself.
        backend: whose tab `alexnet-tab` is, where the file is no framework's own.

    Raises:
        AlexnetMfError: as `convert`.
    """
    kind = CANONICAL if path.is_dir() else kind or kind_of_content(path)
    if kind == CANONICAL:
        return _read_canonical(path, net, which, backend)
    if kind == ONNX:
        raise ParametersError(f"{path}: ONNX is written and not read; there is {', '.join(readable())}")
    framework = KINDS[kind].backend
    assert framework is not None
    network = net if isinstance(net, Network) else find_network(net or zoo.ALEXNET.name, framework)
    content = _content(path, network)
    try:
        return Weights(kind, path, network, _decoded(framework, content, network, str(path)), {})
    except ParametersError as error:
        if net is None:
            raise ParametersError(f"{error}; if they are another network's, name it with --net") from error
        raise


def _read_canonical(path: Path, net: Network | str | None, which: Which, backend: str) -> Weights:
    if isinstance(net, Network):
        file = weights_file(path, which)
        return Weights(CANONICAL, file, net, *parameters.load_with_metadata(file, net))
    opened = open_weights(path, net, which, backend)
    return Weights(CANONICAL, opened.path, opened.network, opened.parameters, opened.metadata)


def _content(path: Path, network: Network) -> bytes:
    """A file's bytes, packed ones counted as unpacked.

    Raises:
        ParametersError: where it cannot be read, or is far larger than the network's weights.
    """
    own = 4 * sum(arithmetic.parameter_counts(network).values())
    limit = BYTES_A_PARAMETER * own // 4 + SLACK
    try:
        size = path.stat().st_size
        content = files.read(path, limit) if size <= limit else b""
        if content.startswith(ZIP):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ParametersError(f"{path}: cannot be read ({error})") from error
    if size > limit:
        raise ParametersError(f"{path}: holds {size / 1e6:,.1f} MB, and the weights of {network.name} take "
                              f"{own / 1e6:,.1f}; if it is another network's, name that with --net")
    return content


def _decoded(backend: str, content: bytes, network: Network, where: str) -> Parameters:
    """What a framework's file holds, once it is sure that it fits the network."""
    try:
        found: Mapping[str, NDArray[Any]] = weight_formats(backends.load(backend)).decode_weights(content, network)
    except ParametersError as error:
        raise ParametersError(f"{where}: {error}") from error
    parameters.check(found, network, where)
    return {name: np.array(found[name], np.float32, order="C") for name in parameters.shapes(network)}


def encode(kind: str, weights: Weights) -> bytes:
    """A file of that kind, read back before anyone has it.

    Raises:
        AlexnetMfError: where a library is missing, or this network has no such file.
    """
    if kind == CANONICAL:
        return parameters.to_bytes(weights.parameters, weights.metadata or {"network": spec.as_dict(weights.network)})
    if kind == ONNX:
        return bytes(_onnx_graph().encode(weights.network, weights.parameters))
    backend = KINDS[kind].backend
    assert backend is not None
    content = weight_formats(backends.load(backend)).encode_weights(kind, weights.network, weights.parameters)
    back = _decoded(backend, content, weights.network, f"what {kind} wrote")
    if parameters.digest(back) != parameters.digest(weights.parameters):
        raise ParametersError(f"what {kind} wrote and read again is not what it was given; nothing was written")
    return content


def _onnx_graph() -> Any:
    """The module that writes ONNX graphs; onnx is an extra."""
    try:
        return importlib.import_module("alexnet_mf.weights.onnx_graph")
    except ImportError as error:
        raise AlexnetMfError(f"ONNX files take onnx, which cannot be imported ({error}); pip install onnx, or install "
                             "alexnet_mf[onnx]") from error


def check_destination(path: Path, kind: str, overwrite: bool) -> None:
    """Make sure, before anything is read, that a file of this kind can have this name.

    Raises:
        AlexnetMfError: where it is there already, its ending is another kind's, or Keras would not take it.
    """
    if path.exists() and not overwrite:
        raise AlexnetMfError(f"{path}: is there already; name another file, or replace it with --force")
    ending = KINDS["keras"].suffixes[0]
    if kind == "keras" and not path.name.endswith(ending):
        raise AlexnetMfError(f"{path}: Keras loads weights only from names that end in {ending}")
    for name, other in KINDS.items():
        if path.name.endswith(other.suffixes) and other.backend != KINDS[kind].backend:
            raise AlexnetMfError(f"{path}: ends like {name}, and {kind} was asked for; name it *"
                                 f"{(*KINDS[kind].suffixes, '.pt')[0]}")
