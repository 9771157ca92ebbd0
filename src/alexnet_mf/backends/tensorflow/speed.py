"""Speed settings of TensorFlow by kind of device, with the measured gain of each; each has its own flag.

Measured on 2 cores of an AMD EPYC with TensorFlow 2.21.0, batch 32, interleaved, with 95 %
intervals: `benchmarks/results/`.
"""

from __future__ import annotations

from alexnet_mf.backends.execution import Setting

SPEED = {
    "cpu": {
        "compile": Setting(True, "one graph a step (tf.function): a step 1.29x [1.28, 1.33], inference 1.09x "
                                 "[1.08, 1.14]"),
    },
    "cuda": {
        "compile": Setting(True, "not measured: one graph a step, as in Keras's own fit"),
    },
}
