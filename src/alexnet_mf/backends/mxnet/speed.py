"""What makes MXNet fast, by kind of device, and what each gained when it was measured; each can be left out by name.

Measured on 2 cores of an AMD EPYC with MXNet 1.9.1, batch 32, interleaved (`bench --ablate`), with 95 % intervals:
`benchmarks/results/`.
"""

from __future__ import annotations

SPEED = {
    "cpu": {
        "compile": "hybridized, with memory planned once: a step 1.15x [1.05, 1.20], inference 1.09x [1.07, 1.11]",
        "threads": "THREADS",
    },
    "cuda": {},  # nothing has been measured on a GPU yet
}
