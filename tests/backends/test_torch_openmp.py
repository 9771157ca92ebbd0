"""OpenMP's spin count is set while the library loads, and then removed from the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_mf.backends.execution import LEFT_OUT

PROGRAM = """
import os, sys
{before}
from alexnet_mf.backends import loading
from alexnet_mf.backends.execution import Execution
print(loading.load("torch", Execution(None, {speed}))[0].settings()["spins"], os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize("variables, before, speed, spins, output", [
    ({}, "", {}, 10_000, "10000 None"),
    ({}, "", {"spin": False}, 300_000, "as it comes None"),
    pytest.param({LEFT_OUT: "all"}, "", {}, 300_000, "as it comes None", marks=pytest.mark.exhaustive),
    pytest.param({}, "import torch", {}, 300_000, "as it comes None", marks=pytest.mark.exhaustive),
    ({"GOMP_SPINCOUNT": "7"}, "", {}, 7, "GOMP_SPINCOUNT=7 7"),
    pytest.param({"OMP_WAIT_POLICY": "PASSIVE"}, "", {}, 0, "OMP_WAIT_POLICY=PASSIVE None",
                 marks=pytest.mark.exhaustive),
], ids=["on", "switched off", "as shipped", "imported before", "a user's own number", "a user's own policy"])
def test_openmp_spins_as_often_as_set(requires, variables, before, speed, spins, output):
    """The library itself reports its spin count; a new process loads it for each case."""
    requires("torch")
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", LEFT_OUT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(before=before, speed=speed)], capture_output=True,
                          text=True, check=True, cwd=Path(__file__).parent,
                          env={**environment, "OMP_DISPLAY_ENV": "verbose", **variables})
    assert done.stdout == output + "\n"
    if sys.platform == "linux":
        assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr
