"""Flags and beginning of the verbs that use weights: which they are, and what computes with them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from alexnet_mf import backends, conversion, spec
from alexnet_mf.backends.contract import Backend, Model, find_precision
from alexnet_mf.cli import output
from alexnet_mf.cli.arguments import add_execution, execution, first_installed, switched
from alexnet_mf.conversion import KINDS, Weights
from alexnet_mf.training.opened import WHICH, backend_of
from alexnet_mf.weights import parameters


class Loaded(NamedTuple):
    """A network with its weights, built in a backend."""

    backend: Backend
    model: Model[Any]
    weights: Weights


def add_weights(parser: argparse.ArgumentParser) -> None:
    """RUN|WEIGHTS, --weights, --net, --backend and --device, --precision and the speed settings."""
    add = parser.add_argument
    add("source", type=Path, metavar="RUN|WEIGHTS",
        help="run folder, or weights in a file of any kind that `convert` reads")
    add("--weights", choices=list(WHICH), default="last",
        help="of a run folder: the last weights, or the best, those of the highest test accuracy, which flatters them "
             "there (default: last)")
    add("--net", help="network, by name or from a file that ends in .toml (default: what the weights file says, "
        "and alexnet where it cannot say it)")
    add("--backend", choices=list(backends.BACKENDS),
        help="framework (default: the run's or the file's own, else the first installed of "
             f"{', '.join(backends.FRAMEWORKS)})")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto, a GPU where there is one)")
    add_execution(parser)


def load(options: argparse.Namespace) -> Loaded:
    """What those flags name; canonical weights are read and checked before a framework is imported.

    Raises:
        AlexnetMfError: where weights, network or backend cannot be had; names the remedy.
    """
    name = options.backend or installed_backend_of(options.source)
    how = execution(options)
    weights = conversion.read(options.source, None, options.net, options.weights, name or "torch")
    own = KINDS[weights.kind].backend
    backend = backends.load(name or (own if own in backends.FRAMEWORKS else first_installed()))
    return Loaded(backend, backend.build(weights.network, weights.parameters, options.device, how), weights)


def installed_backend_of(source: Path) -> str | None:
    """The backend of a run, where it is installed here."""
    name = backend_of(source)
    if name is None or name not in backends.BACKENDS:
        return None
    if backends.is_installed(name):
        return name
    output.notice(f"{source}: was trained in {name}, which is not installed here ({backends.BACKENDS[name].install})")
    return None


def headline(loaded: Loaded) -> str:
    """What computes, with which weights."""
    versions = " ".join(f"{library} {version}" for library, version in loaded.backend.versions().items())
    return output.printable(f"{loaded.model.network.name} in {versions} on {loaded.model.device}, weights "
                            f"{loaded.weights.path}")


def report(loaded: Loaded, options: argparse.Namespace) -> dict[str, Any]:
    """The same as JSON values."""
    backend, model, weights = loaded
    return {"backend": backend.name, "versions": backend.versions(), "device": model.device,
            "precision": find_precision(backend, model.device, options.precision),
            "without": switched(options, False), "also": switched(options, True),
            "network": model.network.name, "spec_sha256": spec.fingerprint(model.network),
            "weights": str(weights.path), "weights_sha256": parameters.digest(weights.parameters)}
