"""Flags and beginning of the verbs that use weights: which they are, and what computes with them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from alexnet_mf import backends, parameters, spec
from alexnet_mf.backends.base import Backend, Model, find_precision
from alexnet_mf.cli import output
from alexnet_mf.cli.arguments import add_execution, execution, first_installed, switched
from alexnet_mf.training.opened import WHICH, Opened, backend_of, open_weights


class Loaded(NamedTuple):
    """A network with its weights, built in a backend."""

    backend: Backend
    model: Model[Any]
    opened: Opened


def add_weights(parser: argparse.ArgumentParser) -> None:
    """RUN|WEIGHTS, --weights, --net, --backend and --device, --precision and the speed settings."""
    add = parser.add_argument
    add("source", type=Path, metavar="RUN|WEIGHTS", help="run folder, or canonical weights in a safetensors file")
    add("--weights", choices=list(WHICH), default="last",
        help="of a run folder: the last weights, or the best, those of the highest test accuracy, which flatters them "
             "there (default: last)")
    add("--net", help="network, by name or from a file that ends in .toml (default: what the weights file says)")
    add("--backend", choices=list(backends.BACKENDS),
        help=f"framework (default: the run's, else the first installed of {', '.join(backends.FRAMEWORKS)})")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto, a GPU where there is one)")
    add_execution(parser)


def load(options: argparse.Namespace) -> Loaded:
    """What those flags name; the weights are read and checked before a framework is imported.

    Raises:
        AlexnetMfError: where weights, network or backend cannot be had; names the remedy.
    """
    name = options.backend or installed_backend_of(options.source)
    opened = open_weights(options.source, options.net, options.weights, name or "torch")
    how = execution(options)
    backend = backends.load(name or first_installed())
    return Loaded(backend, backend.build(opened.network, opened.parameters, options.device, how), opened)


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
                            f"{loaded.opened.path}")


def report(loaded: Loaded, options: argparse.Namespace) -> dict[str, Any]:
    """The same as JSON values."""
    backend, model, opened = loaded
    return {"backend": backend.name, "versions": backend.versions(), "device": model.device,
            "precision": find_precision(backend, model.device, options.precision),
            "without": switched(options, False), "also": switched(options, True),
            "network": model.network.name, "spec_sha256": spec.digest(model.network),
            "weights": str(opened.path), "weights_sha256": parameters.digest(opened.parameters)}
