"""The networks in each framework: `registry` finds a backend by its name, `contract` defines its functions."""

from alexnet_mf.backends.registry import (
    BACKENDS,
    FRAMEWORKS,
    Entry,
    default,
    framework_version,
    installed,
    is_installed,
    load,
)

__all__ = ["BACKENDS", "FRAMEWORKS", "Entry", "default", "framework_version", "installed", "is_installed", "load"]
