"""Speed settings of PyTorch by kind of device, with the measured gain of each; each has its own flag.

Measured with torch 2.14.1, interleaved, with 95 % intervals: `benchmarks/results/`.
`allocator` and `layout` on 2 cores of an Intel Xeon, batch 128; `fused` and `compile` on 2 cores of an AMD EPYC, batch
32; `spin` there, `alexnet` at 32 and `alexnet-28` at 128.
"""

from __future__ import annotations

from alexnet_mf.backends.execution import Setting

SPEED = {
    "cpu": {
        "allocator": Setting(True, "large blocks are kept, not returned to the kernel: inference 1.08x "
                                   "[1.04, 1.22], a step 1.15x, no difference seen (on the EPYC 1.28x [1.18, 1.42])"),
        "spin": Setting(True, "OpenMP's threads spin 10,000 times at a barrier, not 300,000, before they sleep: a step "
                              "beside two busy processes 1.16x [1.08, 1.19], of alexnet-28 1.52x [1.23, 1.95]; alone "
                              "no difference seen"),
        "layout": Setting(True, "channels_last throughout: inference 1.22x [1.17, 1.55], a step 1.04x, no difference "
                                "seen (on the EPYC 1.06x [1.01, 1.12])"),
        "fused": Setting(False, "SGD in one pass over the parameters: no difference seen"),
        "fold": Setting(False, "a strided first convolution of few channels computed as one of many: not measured"),
        "compile": Setting(False, "torch.compile: no difference seen, and the first step takes 11 s instead of 1 s"),
    },
    # One H200, torch 2.11.0, bfloat16, batches of 128 and 512, against runs without each (h200/settings-*.json there).
    "cuda": {
        "spin": Setting(True, "as on a CPU, where a step beside busy processes gained 1.16x: it is process-wide"),
        "layout": Setting(True, "channels_last throughout, with `fused`: a step 1.07x and 1.08x, inference 1.05x and "
                                "1.04x"),
        "fused": Setting(True, "SGD in one kernel: measured together with `layout`, a step 1.07x and 1.08x"),
        "fold": Setting(True, "a strided first convolution of few channels computed as one of many: a step 1.53x and "
                              "1.65x, inference 1.79x and 1.90x"),
        "pool": Setting(True, "bias, ReLU and max-pooling of a convolution as one Triton kernel: a step 1.36x and "
                              "1.42x, inference 1.55x and 1.60x"),
        "graph": Setting(True, "the training step, from the gathering of the images to the metrics, as one CUDA graph, "
                               "and inference as another: a step 1.03x and 1.01x, inference 1.02x and 1.00x"),
        "compile": Setting(False, "torch.compile: at batch 512 a step 1.02x and inference 1.07x, without `pool` 1.22x "
                                  "and 1.85x; it takes half a minute to compile"),
        "autotune": Setting(False, "cuDNN times its algorithms for each batch size and takes the fastest: in bfloat16 "
                                   "it gained nothing and took 2 s; not measured in TF32"),
    },
    "mps": {  # no Mac has run it
        "spin": Setting(True, "as on a CPU, where a step beside busy processes gained 1.16x: it is process-wide"),
    },
}
