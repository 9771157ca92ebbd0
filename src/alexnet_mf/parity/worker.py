"""Parity's worker process, which writes one backend's trace: `python -m alexnet_mf.parity.worker`."""

from __future__ import annotations

from typing import Any

from alexnet_mf import spec
from alexnet_mf.backends.execution import Execution
from alexnet_mf.data import DataSource
from alexnet_mf.instruments.process import serve_forever
from alexnet_mf.parity.run import parity_trace


def trace(command: dict[str, Any]) -> dict[str, Any]:
    """Write a trace. The command has the arguments of `parity_trace` as JSON values; the answer is empty."""
    values = dict(command)
    del values["do"]
    execution = Execution(values.pop("precision"), values.pop("speed"))
    parity_trace(**{**values, "net": spec.from_dict(values["net"]),
                    "data": DataSource(**values["data"])}, execution=execution)
    return {}


if __name__ == "__main__":
    serve_forever(lambda send_progress: trace)
