"""What may make PyTorch fast, by kind of device, with what each gained when it was measured; each has its own flag.

Measured on 2 cores of an AMD EPYC with torch 2.14.1, batch 32 where nothing else is said, interleaved (`bench
--ablate`, `--try`), with 95 % intervals: `benchmarks/results/`.
"""

from __future__ import annotations

from alexnet_mf.backends.execution import Setting

SPEED = {
    "cpu": {
        "allocator": Setting(True, "large blocks are kept, not handed back to the kernel: a step 1.28x [1.18, 1.42], "
                                   "inference at batch 128 1.08x [1.07, 1.11]"),
        "layout": Setting(True, "channels_last throughout: PLACEHOLDER"),
        "fused": Setting(False, "SGD in one pass over the parameters: no difference seen"),
        "compile": Setting(False, "torch.compile: no difference seen, and the first step takes 11 s instead of 1 s"),
    },
    "cuda": {  # nothing has been measured on a GPU yet, so nothing is on
        "layout": Setting(False, "channels_last throughout: not measured"),
        "fused": Setting(False, "SGD in one kernel: not measured"),
        "compile": Setting(False, "torch.compile with CUDA graphs: not measured"),
    },
}
