"""AlexNet from one spec, built natively in PyTorch, TensorFlow and MXNet, and proven to be the same network."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet_mf.api import (
        DataSource,
        Execution,
        Recipe,
        TrainedRun,
        TrainingDisplay,
        Watcher,
        analyze,
        bench_report,
        build,
        convert,
        evaluate,
        get_weights,
        list_backends,
        list_networks,
        list_runs,
        list_weights,
        load_run,
        parity_compare,
        parity_trace,
        plot_curves,
        plot_filters,
        resume,
        train,
    )

__version__ = "0.1.0"
__all__ = [
    "DataSource", "Execution", "Recipe", "TrainedRun", "TrainingDisplay", "Watcher", "analyze", "bench_report",
    "build", "convert", "evaluate", "get_weights", "list_backends", "list_networks", "list_runs", "list_weights",
    "load_run", "parity_compare", "parity_trace", "plot_curves", "plot_filters", "resume", "train"]


def __getattr__(name: str) -> Any:
    """Import the Python API on first use, so that `import alexnet_mf` is fast and needs no other package."""
    if name in __all__:
        return getattr(importlib.import_module("alexnet_mf.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
