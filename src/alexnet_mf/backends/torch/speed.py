"""What makes PyTorch fast, by kind of device, and what each gained when it was measured; each can be left out by name.

Measured on 2 cores of an AMD EPYC with torch 2.14.1, batch 32, interleaved (`bench --ablate`), with 95 % intervals:
`benchmarks/results/`. Not taken: fused SGD, which showed no difference; and channels_last, which gained 1.12x [1.09,
1.15] in inference and nothing that was seen in a step, and moves every rounding.
"""

from __future__ import annotations

SPEED = {
    "cpu": {
        "allocator": "large blocks are kept, not handed back to the kernel: a step 1.22x [1.12, 1.41], inference 1.33x",
    },
    "cuda": {},  # nothing has been measured on a GPU yet
}
