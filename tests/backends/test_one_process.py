"""All frameworks in one process: they load the same libraries, so the order of their imports matters."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
import numpy as np
from alexnet_mf import backends
from alexnet_mf.backends.contract import Sgd
from alexnet_mf.spec import Dense, Flatten, Network
from alexnet_mf.weights import parameters

network = Network("tiny", (1, 4, 4), (Flatten("flatten"), Dense("fc1", units=3)))
loaded = [backends.load(name) for name in sys.argv[1:]]
for backend in loaded:
    model = backend.build(network, parameters.initialize(network, 0), "cpu")
    trainer = model.trainer(Sgd(0.1), 0)
    trainer.step(model.place(np.zeros((2, 1, 4, 4), np.float32), np.array([0, 1])), np.arange(2), 0)
    print(backend.name, len(trainer.read().losses))
if "torch" in sys.argv:
    import torch
    torch.optim.SGD([torch.zeros(1)], lr=0.1)  # as the user's own code may: it loads PyTorch's compiler, and Triton
"""


@pytest.mark.parametrize("order", [["tensorflow", "torch", "mxnet"], ["torch", "mxnet", "tensorflow"]], ids="-".join)
def test_frameworks_train_side_by_side_in_any_order(order, present):
    """PyTorch's first optimizer crashed after an import of TensorFlow: tensorflow/tensorflow issue 124205."""
    names = [name for name in order if name in present]
    if len(names) < 2:
        pytest.skip("needs two frameworks")
    done = subprocess.run([sys.executable, "-c", SCRIPT, *names], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-2000:]}"
    assert done.stdout.splitlines() == [f"{name} 1" for name in names]


def test_keras_may_be_imported_first(requires):
    """In a notebook the user's own import comes first. An import of Triton after it would crash."""
    requires("tensorflow")
    done = subprocess.run([sys.executable, "-c", f"import keras\n{SCRIPT}", "tensorflow"], capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-2000:]}"
