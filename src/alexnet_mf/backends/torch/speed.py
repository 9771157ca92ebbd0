"""What makes PyTorch fast, by kind of device, and why; each can be left out by name."""

from __future__ import annotations

SPEED = {
    "cpu": {
        "allocator": "",
        "channels_last": "",
        "fused": "",
    },
    "cuda": {
        "channels_last": "not measured yet: tensor cores take NHWC, and NCHW is transposed around each convolution",
        "fused": "not measured yet: one kernel for all parameters instead of several for each",
    },
}
