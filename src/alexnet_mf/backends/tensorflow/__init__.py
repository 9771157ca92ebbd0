"""The TensorFlow backend."""

import contextlib
import importlib
import os

from alexnet_mf.backends.tensorflow.quiet import quiet_import

# Keras would take another framework where the user's configuration names one.
os.environ["KERAS_BACKEND"] = "tensorflow"

# TensorFlow 2.20 and later lends its LLVM to whatever is loaded after it, and triton, which PyTorch loads with its
# first optimizer, crashes with that: where triton is installed, it goes first. tensorflow/tensorflow issue 124205
with contextlib.suppress(ImportError):
    importlib.import_module("triton")

with quiet_import():
    from alexnet_mf.backends.tensorflow.backend import TensorFlowBackend

BACKEND = TensorFlowBackend()
