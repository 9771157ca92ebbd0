"""`benchmarks/first_run.sh`, which a GPU gets on the first day, rehearses on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

PARTS = ["log.txt", "reference.txt", "ladders.txt", "parity-lenet5-float32.json", "parity-lenet5-relu.json",
         "bench.json", "settings.json", "train-book-float32.json", "analysis.json"]


@pytest.mark.exhaustive
@pytest.mark.real_data
def test_the_first_run_rehearses_on_a_cpu(requires: Callable[[str], None], tmp_path: Path) -> None:
    requires("torch")
    requires("numpy")
    root = Path(__file__).parents[1]
    environment = {**os.environ, "DEVICE": "cpu", "QUICK": "1", "BUDGET": "240", "OUT": str(tmp_path),
                   "DATA": os.environ["ALEXNET_MF_DATA_DIR"],
                   "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "benchmarks/first_run.sh"], cwd=root, env=environment, capture_output=True,
                          text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    with tarfile.open(tmp_path / "results.tar.gz") as archive:
        assert {f"r/{name}" for name in PARTS} <= set(archive.getnames()), done.stdout[-3000:]
