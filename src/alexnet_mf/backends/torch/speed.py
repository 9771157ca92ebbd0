"""What may make PyTorch fast, by kind of device, with what each gained when it was measured; each has its own flag.

Measured with torch 2.14.1, interleaved (`bench --ablate`, `--try`), with 95 % intervals: `benchmarks/results/`.
`allocator` and `layout` on 2 cores of an Intel Xeon, batch 128; `fused` and `compile` on 2 cores of an AMD EPYC, batch
32.
"""

from __future__ import annotations

from alexnet_mf.backends.execution import Setting

SPEED = {
    "cpu": {
        "allocator": Setting(True, "large blocks are kept, not handed back to the kernel: inference 1.08x "
                                   "[1.04, 1.22], a step 1.15x, no difference seen (on the EPYC 1.28x [1.18, 1.42])"),
        "layout": Setting(True, "channels_last throughout: inference 1.22x [1.17, 1.55], a step 1.04x, no difference "
                                "seen (on the EPYC 1.06x [1.01, 1.12])"),
        "fused": Setting(False, "SGD in one pass over the parameters: no difference seen"),
        "fold": Setting(False, "a strided first convolution of few channels computed as one of many: not measured"),
        "compile": Setting(False, "torch.compile: no difference seen, and the first step takes 11 s instead of 1 s"),
    },
    "cuda": {  # nothing has been measured on a GPU yet, so nothing is on
        "layout": Setting(False, "channels_last throughout: not measured"),
        "fused": Setting(False, "SGD in one kernel: not measured"),
        "compile": Setting(False, "torch.compile: not measured"),
        "graph": Setting(False, "the whole training step, from the gathering of the images to the metrics, and "
                                "inference as one CUDA graph each: not measured"),
        "fold": Setting(False, "a strided first convolution of few channels computed as one of many: not measured"),
        "autotune": Setting(False, "cuDNN times its algorithms and takes the fastest: not measured"),
    },
}
