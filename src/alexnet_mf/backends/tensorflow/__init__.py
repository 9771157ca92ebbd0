"""The TensorFlow backend."""

import os

from alexnet_mf.backends.tensorflow.quiet import quiet_import

# Keras would take another framework where the user's configuration names one.
os.environ["KERAS_BACKEND"] = "tensorflow"

with quiet_import():
    from alexnet_mf.backends.tensorflow.backend import TensorFlowBackend

BACKEND = TensorFlowBackend()
