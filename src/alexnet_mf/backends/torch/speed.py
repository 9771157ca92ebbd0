"""What may make PyTorch fast, by kind of device, with what each gained when it was measured; each has its own flag.

Measured on 2 cores of an AMD EPYC with torch 2.14.1, interleaved (`bench --ablate`, `--try`), with 95 % intervals:
`benchmarks/results/`.
"""

from __future__ import annotations

from alexnet_mf.backends.base import Setting

SPEED = {
    "cpu": {
        "allocator": Setting(True, "large blocks are kept, not handed back to the kernel: a step 1.22x [1.12, 1.41], "
                                   "inference 1.33x"),
        "packed": Setting(True, "inference with a channels_last copy of the convolutions' weights: not measured"),
        "layout": Setting(False, "channels_last throughout: not measured"),
        "fused": Setting(False, "SGD in one pass over the parameters: not measured"),
        "compile": Setting(False, "torch.compile: not measured"),
    },
    "cuda": {  # nothing has been measured on a GPU yet, so nothing is on
        "layout": Setting(False, "channels_last throughout: not measured"),
        "fused": Setting(False, "SGD in one kernel: not measured"),
        "compile": Setting(False, "torch.compile with CUDA graphs: not measured"),
    },
}
