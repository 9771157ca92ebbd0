"""Build a network natively in a framework, with weights from anywhere."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet_mf import backends, conversion
from alexnet_mf.backends import loading
from alexnet_mf.backends.contract import Backend, Model, find_precision
from alexnet_mf.backends.execution import AS_IT_COMES, Execution
from alexnet_mf.checks import check_choice, check_integer, check_type
from alexnet_mf.conversion import Source, Which
from alexnet_mf.errors import AlexnetMfError, Notice, ParametersError
from alexnet_mf.spec import Network, zoo
from alexnet_mf.spec.toml import find_network
from alexnet_mf.weights import matching, parameters
from alexnet_mf.weights.stored import from_mapping


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network with its weights, built in a backend."""

    backend: Backend
    model: Model[Any]
    execution: Execution

    def title(self) -> str:
        """Return network, versions and device: `alexnet in torch 2.14.0 on cpu`."""
        versions = " ".join(f"{library} {version}" for library, version in self.backend.versions().items())
        return f"{self.model.network.name} in {versions} on {self.model.device}"

    def session(self) -> dict[str, Any]:
        """Return backend, versions, settings, device, speed settings and precision as JSON values."""
        return {"backend": self.backend.name, "versions": self.backend.versions(), "settings": self.backend.settings(),
                "device": self.model.device, "speed": dict(sorted(self.execution.speed.items())),
                "precision": find_precision(self.backend, self.model.device, self.execution.precision)}


def default_backend() -> str:
    """Return the first installed framework, and name it in a notice.

    Raises:
        BackendUnavailable: if none is installed; names the install command.
    """
    name = backends.default()
    warnings.warn(f"using `backend={name!r}`, the first installed of {', '.join(backends.FRAMEWORKS)}", Notice,
                  stacklevel=3)
    return name


def find_weights(net: Network | Path | str | None = None, weights: Source | None = None, *, which: Which = "last",
                 seed: int = 0) -> tuple[Network, Mapping[str, NDArray[np.float32]]]:
    """Return the network and its parameters. The arguments are those of `build`."""
    check_integer("seed", seed, least=0)
    if isinstance(weights, (str, Path)):
        source = conversion.read(weights, net, which)
        return source.network, source.parameters
    if check_choice("which", which, conversion.RUN_WEIGHTS) != "last":
        raise AlexnetMfError(f"`weights` is not a run folder; leave out `which={which!r}`")
    network = find_network(zoo.ALEXNET.name if net is None else net)
    if weights is None:
        return network, parameters.initialize(network, seed)
    if not isinstance(weights, Mapping):
        raise AlexnetMfError(f"`weights` must be a path, or tensors by their names, not {weights!r}")
    stored = from_mapping(weights)
    try:
        matched = matching.match(stored, network)
        values, notes = matching.load(stored, matched)
    except ParametersError as error:
        raise ParametersError(f"`weights`: {error}") from error
    if notes:
        warnings.warn(f"`weights`: {'; '.join(notes)}", Notice, stacklevel=3)
    return network, values


def load_backend(name: str, execution: Execution = AS_IT_COMES) -> tuple[Backend, Execution]:
    """Import a backend, and return it with the execution that it will have in this process.

    Raises:
        BackendUnavailable: if it is missing, or a speed setting is unknown or fixed.
    """
    return loading.load(name, check_type("execution", execution, Execution))


def load(backend: str, network: Network, values: Mapping[str, NDArray[np.float32]], device: str = "auto",
         execution: Execution = AS_IT_COMES) -> LoadedModel:
    """Import a backend, and build the network in it.

    Raises:
        BackendUnavailable: as for `build`.
    """
    return build_in(*load_backend(backend, execution), network, values, device)


def build_in(framework: Backend, execution: Execution, network: Network, values: Mapping[str, NDArray[np.float32]],
             device: str = "auto") -> LoadedModel:
    """Build the network in a backend that is loaded.

    Raises:
        BackendUnavailable: if the device is missing, or does not support `execution`.
    """
    check_type("device", device, str)
    return LoadedModel(framework, framework.build(network, values, device, execution), execution)


def build(net: Network | Path | str | None = None, backend: str | None = None, *, weights: Source | None = None,
          which: Which = "last", seed: int = 0, device: str = "auto",
          execution: Execution = AS_IT_COMES) -> Model[Any]:
    """Build a network natively in a framework.

    Args:
        net: a network's name, a .toml file or a `Network`; without it, the network of `weights`, else `alexnet`.
        backend: `torch`, `tensorflow`, `mxnet` or `numpy`; without it the first framework that is installed.
        weights: tensors of any framework by name, a run folder, or a file of any format that `convert` reads. Without
            them the weights are drawn from `seed`.
        which: the weights to take from a run folder: `last`, or `best` (highest test accuracy).
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:N` or `mps`.
        execution: precision and speed settings.

    Returns:
        The model: `place` puts images on its device, `logits` classifies them, `outputs` returns every layer's output,
        `gradients` the loss and its gradients, `export` the canonical weights. See `backends.contract.Model`.

    Raises:
        BackendUnavailable: if the backend, device, precision or setting is missing; names the install command or the
            available ones.
        ParametersError: if the weights are damaged, or another network's; names every tensor at fault.
        AlexnetMfError: if another argument is wrong.
    """
    name = default_backend() if backend is None else check_choice("backend", backend, backends.BACKENDS)
    network, values = find_weights(net, weights, which=which, seed=seed)
    return load(name, network, values, device, execution).model
