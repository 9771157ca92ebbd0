"""What makes TensorFlow fast, by kind of device, and why; each can be left out by name."""

from __future__ import annotations

SPEED = {
    "cpu": {
        "compile": "",
    },
    "cuda": {
        "compile": "not measured yet: one graph a step instead of a call from Python for each operation",
    },
}
