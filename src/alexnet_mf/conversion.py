"""Read weights files and run folders, and convert them between formats.

Every conversion passes through canonical parameters. No framework is needed to read, nothing is unpickled, a tensor is
read only after its shape was checked, and errors name every tensor that does not fit. Files are read back before they
are written.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

from alexnet_mf import backends, files, spec
from alexnet_mf.backends.capabilities import weight_formats
from alexnet_mf.checks import check_choice, check_path, check_type
from alexnet_mf.data.preprocessing import check_fits
from alexnet_mf.errors import AlexnetMfError, DataError, Notice, ParametersError, RunError, SpecError
from alexnet_mf.spec import Network, Preprocessing, arithmetic, zoo
from alexnet_mf.spec.preprocessing import IMAGENET
from alexnet_mf.spec.toml import SUFFIX, find_network
from alexnet_mf.weights import matching, parameters
from alexnet_mf.weights.formats import caffe, gluon, keras, npz, onnx, safetensors, tensorflow, torch
from alexnet_mf.weights.metadata import CLASSES, PREPROCESSING, read_classes, read_preprocessing
from alexnet_mf.weights.parameters import Parameters
from alexnet_mf.weights.recognition import (
    CAFFE,
    CANONICAL,
    GLUON,
    KERAS,
    NPZ,
    ONNX,
    READABLE,
    TORCH,
    format_of_content,
    unreadable,
)
from alexnet_mf.weights.stored import StoredWeights

Source: TypeAlias = Mapping[str, Any] | str | Path
"""Weights to use: tensors of any framework by name, a run folder, or a file of any format that can be read."""

Which: TypeAlias = Literal["last", "best"]
RUN_WEIGHTS: dict[Which, str] = {"last": "weights.safetensors", "best": "weights-best.safetensors"}
"""Names of the weights files in a run folder: after the last step, and after the epoch with the best test accuracy."""


@dataclass(frozen=True)
class Format:
    """A file format for weights."""

    description: str
    suffixes: tuple[str, ...]
    """Endings of the names of files to write."""
    backend: str | None = None
    """The backend whose framework writes it."""


KERAS_MODEL = "keras-model"
FORMATS = {
    CANONICAL: Format("canonical safetensors, or a run folder", (".safetensors",)),
    TORCH: Format("PyTorch state_dict with canonical names", (".pt", ".pth"), "torch"),
    "torchvision": Format("PyTorch state_dict of torchvision's alexnet, for alexnet-owt", (".pt", ".pth"), "torch"),
    "torch-book": Format("PyTorch state_dict of the book's class, whose Sequential is `net`", (".pt", ".pth"), "torch"),
    KERAS: Format("Keras 3 weights; Keras 2's .h5 can be read, not written", (".weights.h5",), "tensorflow"),
    KERAS_MODEL: Format("whole Keras 3 model, if Keras has all its layers", (".keras",), "tensorflow"),
    GLUON: Format("MXNet Gluon parameters", (".params",), "mxnet"),
    "gluon-zoo": Format("parameters of the MXNet model zoo's alexnet, for alexnet-owt", (".params",), "mxnet"),
    "gluon-book": Format("parameters of the book's class, whose HybridSequential is `net`", (".params",), "mxnet"),
    NPZ: Format("NumPy arrays with canonical names", (".npz",)),
    ONNX: Format("ONNX graph with weights", (".onnx",)),
    CAFFE: Format("Caffe's .caffemodel; can be read, not written", ()),
}
READERS: dict[str, Callable[[BinaryIO, Path], StoredWeights]] = {
    CANONICAL: safetensors.read, TORCH: torch.read, KERAS: keras.read, GLUON: gluon.read, NPZ: npz.read,
    ONNX: onnx.read, CAFFE: caffe.read}
"""Readers by format. Variants of a format, such as `torch-book`, are read like the format itself."""
WITH_METADATA = (CANONICAL, KERAS_MODEL, ONNX)
"""Formats whose files have preprocessing and class names."""
WRITABLE = tuple(name for name, entry in FORMATS.items() if entry.suffixes)

PUBLISHED = ("torchvision", "model_zoo")
"""Names of modules that stand, with ImageNet's 1000 classes, for the published weights and their preprocessing."""
NOWHERE = Path(os.devnull, "weights")
"""Path of weights that are in memory alone: no file lies beside it."""


@dataclass(frozen=True)
class Weights:
    """A network's parameters, and the file that they came from."""

    format: str
    path: Path
    """The file itself; for a run folder, the file in it."""
    network: Network
    parameters: Parameters
    metadata: dict[str, Any]
    """The header of a canonical file: seed, step, figures; {} for any other format."""
    preprocessing: Preprocessing | None = field(init=False)
    """Preprocessing of the pictures that the network was trained on; None if the file does not state it."""
    classes: tuple[str, ...] | None = field(init=False)
    """Names of the classes; None if the file has none."""

    def __post_init__(self) -> None:
        where = str(self.path)
        object.__setattr__(self, "preprocessing", read_preprocessing(self.metadata, where))
        object.__setattr__(self, "classes", read_classes(self.metadata, self.network, where))


@dataclass(frozen=True)
class Conversion:
    """A finished conversion."""

    source: str
    """Format of the source."""
    destination: str
    """Format of the destination."""
    network: Network
    parameters: int
    sha256: str
    """Digest of the canonical parameters; see `parameters.digest`."""


def convert(source: Path | str, destination: Path | str, *, source_format: str | None = None,
            destination_format: str | None = None, net: Network | Path | str | None = None, which: Which = "last",
            entry: str | None = None, overwrite: bool = False, bake_preprocessing: bool = False) -> Conversion:
    """Read weights from a file or a run folder, and write them to another file.

    Args:
        source: file or run folder to read.
        destination: file to write.
        source_format: name of the source's format, as for `--from`; without it the content decides.
        destination_format: name of the destination's format, as for `--to`; without it the ending decides.
        net: the network, its name, or a .toml file; without it, the network that the source names or describes. A
            built-in network's name stands for any number of classes.
        which: the weights to take from a run folder: `last`, or `best` (highest test accuracy).
        entry: the entry of a PyTorch checkpoint that holds the weights, if there are several.
        overwrite: replace the destination if it exists.
        bake_preprocessing: put scaling, order of the channels and normalization into an ONNX graph, which then takes
            levels from 0 to 255. The source must state its preprocessing.

    Raises:
        AlexnetMfError: if a format is unknown or cannot be written, the destination exists or cannot be written, or
            there is no preprocessing to put into the graph.
        ParametersError: if the source is damaged, or has another network's weights; names every tensor at fault.
        BackendUnavailable: if a format's framework is not installed; names the line that installs it.
    """
    source, destination = check_path("source", source), check_path("destination", destination)
    file_format = format_of_name(destination) if destination_format is None else \
        check_choice("destination_format", destination_format, WRITABLE)
    check_destination(destination, file_format, check_type("overwrite", overwrite, bool))
    if destination.exists() and source.exists() and destination.samefile(source):
        raise AlexnetMfError(f"{destination}: is the source itself; name another file")
    if check_type("bake_preprocessing", bake_preprocessing, bool) and file_format != ONNX:
        raise AlexnetMfError(f"{destination}: {file_format} files have no graph to put the preprocessing into; leave "
                             "out `bake_preprocessing`")
    weights = read(source, net, which, source_format, entry)
    if bake_preprocessing:
        _check_can_be_baked(weights)
    if file_format not in WITH_METADATA and (weights.preprocessing or weights.classes):
        warnings.warn(f"{destination}: {file_format} files have no room for preprocessing and class names; keep "
                      f"{source}", Notice, stacklevel=3)
    files.write_result(destination, encode(file_format, weights.network, weights.parameters, weights.metadata,
                                           bake_preprocessing))
    return Conversion(weights.format, file_format, weights.network,
                      sum(arithmetic.parameter_counts(weights.network).values()),
                      parameters.digest(weights.parameters))


def _check_can_be_baked(weights: Weights) -> None:
    """Check that the preprocessing of the weights can be put into a graph.

    Raises:
        AlexnetMfError: if it is unknown, or does not fit the network.
    """
    fault = "its preprocessing is unknown"
    if weights.preprocessing:
        try:
            return check_fits(weights.preprocessing, weights.network)
        except DataError as error:
            fault = str(error).partition(";")[0]
    raise AlexnetMfError(f"{weights.path}: {fault}; leave out `bake_preprocessing`")


def format_of_name(path: Path) -> str:
    """Return the format that the ending of a file's name stands for.

    Raises:
        AlexnetMfError: if it stands for none; lists the endings.
    """
    for name, file_format in FORMATS.items():
        if path.name.endswith(file_format.suffixes):
            return name
    endings = dict.fromkeys(ending for file_format in FORMATS.values() for ending in file_format.suffixes)
    raise AlexnetMfError(f"{path}: unrecognized ending; supported: {', '.join(endings)}; use `destination_format` to "
                         "name the format")


def check_destination(path: Path, file_format: str, overwrite: bool) -> None:
    """Check, before anything is read, that a file of this format can be written under this name.

    Raises:
        AlexnetMfError: if it exists or cannot be written, its ending belongs to another format, or Keras would not load
            it.
    """
    if path.exists() and not overwrite:
        raise AlexnetMfError(f"{path}: exists; name another file, or replace it with `overwrite`")
    files.check_writable(path)
    suffixes = FORMATS[file_format].suffixes
    if file_format in (KERAS, KERAS_MODEL) and not path.name.endswith(suffixes):
        raise AlexnetMfError(f"{path}: Keras loads such a file only if its name ends in {suffixes[0]}")
    for name, other in FORMATS.items():
        if path.name.endswith(other.suffixes) and not path.name.endswith(suffixes):
            raise AlexnetMfError(f"{path}: has the ending of {name}, not of {file_format}; name it *{suffixes[0]}")


def read(path: Path | str, net: Network | Path | str | None = None, which: Which = "last",
         source_format: str | None = None, entry: str | None = None) -> Weights:
    """Read and check the weights in a run folder, or in a file of any format. A notice says what was chosen.

    Args:
        net, which, source_format, entry: as for `convert`.

    Raises:
        AlexnetMfError: as `convert`.
        RunError: if the folder has no such weights.
    """
    path = Path(path)
    check_choice("which", which, RUN_WEIGHTS)
    if source_format is not None:
        check_choice("source_format", source_format, READABLE)
    tensorflow.refuse(path)
    if os.path.isdir(path):  # pathlib's raises OSError for a name that is too long
        if source_format is not None:
            raise AlexnetMfError(f"{path}: is a run folder, whose format is {CANONICAL}; leave out `source_format`")
        file, name = file_of_run(path, which), CANONICAL
    elif which != "last":
        raise AlexnetMfError(f"{path}: is not a run folder; leave out `which={which!r}`")
    else:
        file, name = path, source_format or format_of_content(path)
    if entry is not None and name != TORCH:
        raise AlexnetMfError(f"{path}: has no entries, as a checkpoint of PyTorch has; leave out `entry`")
    if name == CANONICAL and parameters.read_header(file).checksum is not None:
        network = _network_of(file, net)
        return Weights(CANONICAL, file, network, *parameters.load_with_metadata(file, network))
    try:
        with file.open("rb") as content:
            weights = _read_stored(content, file, name, net, entry)
    except (OSError, ValueError) as error:
        if isinstance(error, AlexnetMfError):
            raise
        raise unreadable(file, error) from error
    return weights


def _read_stored(content: BinaryIO, path: Path, file_format: str, net: Network | Path | str | None,
                 entry: str | None = None) -> Weights:
    """Read a file of any format, match its tensors to the network, and name all choices in a notice."""
    network = None if net is None else find_network(net)
    has_any_classes = isinstance(net, str) and net in zoo.NETWORKS
    try:
        if entry is not None:
            stored = torch.read(content, path, entry)
        elif file_format == CAFFE and network is not None:  # a file saved in training lacks the size of the images
            stored = caffe.read(content, path, network.input)
        else:
            stored = READERS[file_format](content, path)
        matched = matching.identify(stored) if network is None else matching.match(stored, network, has_any_classes)
        values, notes = matching.load(stored, matched)
    except ParametersError as error:
        raise type(error)(f"{path}: {error}") from error
    metadata = dict(stored.metadata)
    if matched.scheme in PUBLISHED and spec.digest(matched.network) == spec.digest(zoo.ALEXNET_OWT):
        metadata["preprocessing"] = IMAGENET.as_dict()
        notes = (*notes, "preprocessing assumed: that of torchvision's ImageNet weights")
    if notes:
        warnings.warn(f"{path}: {'; '.join(notes)}", Notice, stacklevel=4)
    return Weights(file_format, path, matched.network, values, metadata)


def find_described(source: Path | str) -> Network:
    """Return a network by name, from a .toml file, or from a run folder or weights file that names or describes it.

    Raises:
        AlexnetMfError: as `find_network` and `read`.
    """
    is_name = str(source) in ("", *zoo.NETWORKS) or str(source).lower().endswith(SUFFIX)
    if is_name or not Path(source).exists():
        return find_network(source)
    try:
        return read(source).network
    except matching.Unnamed as error:
        raise ParametersError(f"{source}: has weights alone, which do not show their network; name a run folder, a "
                              "file that describes its network, such as .keras or ONNX, or a network") from error


def file_of_run(folder: Path, which: Which) -> Path:
    """Return the weights file in a run folder.

    Raises:
        RunError: if the folder has no such weights.
    """
    file = folder / RUN_WEIGHTS[which]
    if not file.exists():
        other = next((name for name, file_name in RUN_WEIGHTS.items() if (folder / file_name).exists()), None)
        raise RunError(f"{folder}: has no {file.name}; " + (f"use `which={other!r}`" if other else
                       "name a weights file, or a run that has finished its first epoch or was stopped"))
    return file


def _network_of(file: Path, net: Network | Path | str | None) -> Network:
    """Return the network of a canonical weights file: `net` or, without it, the network that the file names.

    Raises:
        ParametersError: if there is no `net` and the file names none (lists the networks that fit), its description
            cannot be read, or the two differ.
    """
    network = None if net is None else find_network(net)
    header = parameters.read_header(file)
    described = header.metadata.get("network")
    if described is None:
        if network is not None:
            return network
        fits = [name for name in zoo.NETWORKS if parameters.fits(header, zoo.get_network(name))]
        raise matching.Unnamed(f"{file}: does not name its network; " + (
            f"its tensors fit {' and '.join(fits)}: " if fits else "") + "name the network with `net`")
    try:
        named = spec.from_dict(described)
    except SpecError as error:
        raise ParametersError(f"{file}: its header does not describe a network of this version ({error}); update "
                              "alexnet_mf, or use another copy") from error
    if network is None:
        return named
    if isinstance(net, str) and net in zoo.NETWORKS:
        network = spec.with_classes(network, named.classes)
    if spec.digest(named) != spec.digest(network):
        raise ParametersError(f"{file}: has weights of {named.name}, which differs from {network.name}; leave out "
                              "`net`")
    return replace(network, output=named.output)


def encode(file_format: str, network: Network, values: Parameters, metadata: Mapping[str, Any] | None = None,
           bake_preprocessing: bool = False) -> bytes:
    """Return a file's content in a format, after reading it back and comparing all bits.

    Args:
        metadata: further header entries of a canonical file; an ONNX file takes preprocessing and classes from them.
        bake_preprocessing: as for `convert`.

    Raises:
        AlexnetMfError: if a library is missing, or the format cannot hold this network.
    """
    if file_format == CANONICAL:
        return parameters.to_bytes(values, {**(metadata or {}), "network": spec.as_dict(network)})
    backend = FORMATS[file_format].backend
    if backend is not None:
        content = weight_formats(backends.load(backend)).encode_weights(file_format, network, values)
        if file_format == KERAS_MODEL:
            content = keras.with_metadata(content, {key: value for key, value in (metadata or {}).items() if key in (
                PREPROCESSING, CLASSES)})
    elif file_format == ONNX:
        content = _encode_onnx(network, values, metadata or {}, bake_preprocessing)
    else:
        content = npz.encode(values)
    if bake_preprocessing:  # the graph describes another network, with the preprocessing in it
        return content
    try:
        reader = READERS.get(file_format) or READERS[{"torch": TORCH, "mxnet": GLUON}.get(backend or "", KERAS)]
        stored = reader(io.BytesIO(content), NOWHERE)
        back, _ = matching.load(stored, matching.match(stored, network))
        if stored.network and stored.network.output != network.output:
            raise ParametersError(f"its output is {stored.network.output}, not {network.output}")
    except ParametersError as error:
        raise ParametersError(f"the {file_format} file cannot be read back: {error}") from error
    if parameters.digest(back) != parameters.digest(values):
        raise ParametersError(f"the {file_format} file reads back with different bits; nothing was written")
    return content


def _encode_onnx(network: Network, values: Parameters, metadata: Mapping[str, Any], bake_preprocessing: bool) -> bytes:
    try:
        import alexnet_mf.weights.onnx_graph as onnx_graph  # onnx is an extra
    except ImportError as error:
        raise AlexnetMfError(f"ONNX files need onnx, which cannot be imported ({error}); pip install onnx, or install "
                             "alexnet_mf[onnx]") from error
    where = "the ONNX file"
    return onnx_graph.encode(network, values, read_preprocessing(metadata, where),
                             read_classes(metadata, network, where), bake_preprocessing)
