"""The TensorFlow backend."""

import contextlib
import importlib
import os
import sys

from alexnet_mf.backends.tensorflow.quiet import quiet_import

# Otherwise Keras takes the framework that the user's configuration names.
os.environ["KERAS_BACKEND"] = "tensorflow"

# Libraries loaded after TensorFlow 2.20 or later use its LLVM. PyTorch loads triton with its first optimizer, and
# triton crashes with that LLVM. So triton is imported first, if installed: tensorflow/tensorflow issue 124205. It must
# not be if the user has imported TensorFlow already.
if "tensorflow" not in sys.modules:
    with contextlib.suppress(ImportError):
        importlib.import_module("triton")

with quiet_import():
    from alexnet_mf.backends.tensorflow.backend import TensorFlowBackend

BACKEND = TensorFlowBackend()
