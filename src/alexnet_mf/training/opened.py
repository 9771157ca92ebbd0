"""Weights to be used: those of a run folder, or of a file, with the network that they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from alexnet_mf import spec
from alexnet_mf.errors import AlexnetMfError, ParametersError, RunError, SpecError
from alexnet_mf.spec import Network, zoo
from alexnet_mf.spec.toml import find_network
from alexnet_mf.training import folder, record
from alexnet_mf.weights import parameters
from alexnet_mf.weights.parameters import Parameters

Which: TypeAlias = Literal["last", "best"]
WHICH: dict[Which, str] = {"last": folder.WEIGHTS, "best": folder.BEST}


class Opened(NamedTuple):
    """A network and its weights."""

    network: Network
    parameters: Parameters
    path: Path
    """The file that they come from."""
    metadata: dict[str, Any]
    """What the file says of them: seed, step, figures; {} for another program's."""


def open_weights(path: Path, net: str | None = None, which: Which = "last", backend: str = "torch") -> Opened:
    """The weights of a run folder or of a canonical safetensors file, read and checked.

    A file of this program says which network it belongs to; for another program's, and to read a file as another
    network than it says, `net` names one.

    Args:
        net: a network's name, or a TOML file's.
        which: of a run folder, the last weights or those of the best test accuracy.
        backend: whose tab `alexnet-tab` is.

    Raises:
        ParametersError: where the file is missing or damaged, does not say its network, or does not fit it: names every
            tensor that is missing, surplus or mis-shaped.
        RunError: where the folder is no run, or has no such weights yet.
        SpecError: for an unknown network.
    """
    file = weights_file(path, which)
    network = find_network(net, backend) if net else network_of(file)
    values, metadata = parameters.load_with_metadata(file, network)
    return Opened(network, values, file, metadata)


def weights_file(path: Path, which: Which = "last") -> Path:
    """The file itself, or the one in a run folder.

    Raises:
        RunError: where the folder is no run, or has no such weights yet, or `which` is none of `WHICH`.
    """
    if which not in WHICH:
        raise RunError(f"there are no weights {which!r}; a run has {' and '.join(WHICH)}")
    if not path.is_dir():
        return path
    if not folder.is_run(path):
        raise RunError(f"{path}: there is no run here; give a run folder (see: list runs) or a weights file")
    file = path / WHICH[which]
    if not file.exists():
        other = next((name for name in WHICH if name != which and (path / WHICH[name]).exists()), None)
        raise RunError(f"{path}: has no {file.name}; " + (f"take --weights {other}" if other else
                       "a run has weights when its first epoch is over, or it is stopped"))
    return file


def network_of(file: Path) -> Network:
    """The network that a weights file says it belongs to.

    Raises:
        ParametersError: where it says none; names those of the package's own that its tensors fit.
    """
    header = parameters.read_header(file)
    described = header.metadata.get("network")
    if described is not None:
        try:
            return spec.from_dict(described)
        except SpecError as error:
            raise ParametersError(f"{file}: its header does not describe a network ({error}); name one with "
                                  f"--net") from error
    fits = [name for name in zoo.NETWORKS if parameters.fits(header, zoo.get_network(name))]
    remedy = f"its tensors fit {' and '.join(fits)}: name it with --net" if fits else \
        "name it with --net, or take over another program's weights with `convert`"
    raise ParametersError(f"{file}: does not say which network's weights it holds; {remedy}")


def backend_of(path: Path) -> str | None:
    """The backend that a run was trained in, to the last; None for a weights file or a record that is damaged."""
    try:
        told = record.read(path)
        name = [told, *told["resumed"]][-1]["backend"]
    except (AlexnetMfError, KeyError, TypeError, IndexError):
        return None
    return name if isinstance(name, str) else None
