"""Speed settings of MXNet by kind of device, with the measured gain of each; each has its own flag.
Threads are set before MXNet is imported, in `compat.py`.

Measured on 2 cores of an AMD EPYC with MXNet 1.9.1, batch 32, interleaved, with 95 % intervals:
`benchmarks/results/`.
"""

from __future__ import annotations

from alexnet_mf.backends.execution import Setting

SPEED = {
    "cpu": {
        "compile": Setting(True, "hybridized, memory planned once: a step 1.09x [1.04, 1.18], inference 1.07x, no "
                                 "difference seen"),
        "threads": Setting(True, "one thread a core instead of one for two: a step 1.90x [1.86, 1.96], inference 1.81x "
                                 "[1.56, 1.82]"),
    },
    "cuda": {
        "compile": Setting(False, "hybridized, memory planned once: not measured"),
    },
}
