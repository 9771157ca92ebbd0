"""What makes PyTorch fast, by kind of device, and what each gained when it was measured; each can be left out by name.

Measured on 2 cores of an AMD EPYC with torch 2.14.1, batch 32, interleaved (`bench --ablate`), with 95 % intervals:
`benchmarks/results/`.
"""

from __future__ import annotations

SPEED = {
    "cpu": {
        "allocator": "large blocks are kept, not handed back to the kernel: a step 1.22x [1.12, 1.41], inference 1.33x",
        "channels_last": "oneDNN's own order: inference 1.12x [1.09, 1.15], a step 1.04x, where no difference was seen",
    },
    "cuda": {},  # nothing has been measured on a GPU yet
}
