"""Interpreters of backends that live in other environments."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping

from alexnet_mf.backends import registry
from alexnet_mf.checks import check_choice, check_path, check_type
from alexnet_mf.errors import AlexnetMfError, BackendUnavailable


def available(pythons: Mapping[str, str]) -> list[str]:
    """Return the backends that are installed here or have an interpreter of their own."""
    return [name for name in registry.BACKENDS if name in pythons or registry.is_installed(name)]


def check_interpreters(names: Iterable[str], pythons: Mapping[str, str]) -> None:
    """Check that each backend of a run has an interpreter: the one in `pythons`, or this one.

    Raises:
        BackendUnavailable: if an interpreter cannot be run, or a backend has none.
        AlexnetMfError: if an interpreter is for a backend outside `names`.
    """
    for name, path in check_type("pythons", pythons, dict).items():
        check_choice("pythons", name, registry.BACKENDS)
        if shutil.which(check_path("pythons", path)) is None:
            raise BackendUnavailable(f"backend {name}: {path} cannot be run (no such program); name another "
                                     "interpreter (`pythons`)")
        if name not in names:
            raise AlexnetMfError(f"`pythons` names an interpreter for {name}, which is not selected; add it to "
                                 "`backends`")
    for name in names:
        if name not in pythons and not registry.is_installed(name):
            raise BackendUnavailable(f"backend {name}: not installed here; {registry.BACKENDS[name].install}, or name "
                                     "an interpreter that has it (`pythons`)")
