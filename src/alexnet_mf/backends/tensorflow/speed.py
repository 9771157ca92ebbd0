"""What makes TensorFlow fast, by kind of device, and what each gained when measured; each can be left out by name.

Measured on 2 cores of an AMD EPYC with TensorFlow 2.21.0, batch 32, interleaved (`bench --ablate`), with 95 %
intervals: `benchmarks/results/`.
"""

from __future__ import annotations

SPEED = {
    "cpu": {
        "compile": "one graph a step (tf.function): a step 1.29x [1.28, 1.33], inference 1.09x [1.08, 1.14]",
    },
    "cuda": {
        "compile": "not measured: one graph a step, as Keras's own fit has it",
    },
}
