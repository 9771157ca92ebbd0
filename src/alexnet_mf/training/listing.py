"""How the runs of a folder stand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from alexnet_mf.errors import RunError
from alexnet_mf.training import metrics, record
from alexnet_mf.training.lock import is_in_use


def summary(folder: Path) -> dict[str, Any]:
    """How a run stands, as JSON values: state, closing numbers, None for what is not known.

    The state is running, finished, stopped (by Ctrl-C or SIGTERM), failed (by an error), interrupted (the process has
    gone without a word) or damaged.
    """
    result: dict[str, Any] = dict.fromkeys(("backend", "network", "state", "epoch", "epochs", "loss", "train_accuracy",
                                            "test_accuracy", "images_per_second"))
    result = {"run": str(folder), **result}
    try:
        told = record.read(folder)
    except RunError:
        return result | {"state": "damaged"}
    sessions = [told, *told["resumed"]]
    state = told["state"]
    if is_in_use(folder):
        state = "running"
    elif state == "running":
        state = "interrupted"
    result |= {"backend": " + ".join(dict.fromkeys(session["backend"] for session in sessions)),
               "network": told["network"]["name"], "state": state, "epoch": 0, "epochs": told["recipe"]["epochs"]}
    try:
        done = metrics.epochs(metrics.read(folder))
    except RunError:
        done = []
    if done:
        result |= {key: value for key, value in dataclasses.asdict(done[-1]).items() if key in result}
    if told["closing"]:
        result["images_per_second"] = told["closing"]["images_per_second"]
    return result
