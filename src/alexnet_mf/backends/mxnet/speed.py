"""What makes MXNet fast, by kind of device, and why; each can be left out by name. Threads: see `compat.py`."""

from __future__ import annotations

SPEED = {
    "cpu": {
        "compile": "",
    },
    "cuda": {
        "compile": "not measured yet: hybridize plans the graph's memory once instead of in each step",
    },
}
