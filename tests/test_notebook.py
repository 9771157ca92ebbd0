"""The example notebook runs, in an order and a kernel of its own, and shows what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "movers" / "example.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # on a busy machine several wait for each other
        return NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()


def result(notebook: Any, source: str) -> Any:
    """The value that the cell which begins like this shows."""
    [cell] = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.startswith(source)]
    return [output.data for output in cell.outputs if output.output_type in ("execute_result", "display_data")][-1]


def test_every_cell_runs_without_a_word_on_standard_error(executed):
    outputs = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum(cell.execution_count is not None for cell in executed.cells if cell.cell_type == "code") >= 9


def test_the_training_shows_its_progress_and_learns(executed):
    [cell] = [cell for cell in executed.cells if "alexnet_mf.train(" in cell.source]
    shown = "".join(output.text for output in cell.outputs if output.output_type == "stream")
    assert "epoch 3/3: loss " in shown
    assert "'finished'" in result(executed, "run = alexnet_mf.train")["text/plain"]
    assert "Epoch(epoch=4" in result(executed, "run = alexnet_mf.load_run")["text/plain"]
    expected, trained = eval(result(executed, "from alexnet_mf import data")["text/plain"], {"np": __import__("numpy")})
    assert expected > 0.5
    assert abs(expected - trained) <= 0.004, "two images of 500, should a logit tie"


def test_pictures_are_shown_and_onnx_runtime_agrees_with_the_reference(executed):
    for source in ("from IPython.display import Image", "import matplotlib.pyplot"):
        assert result(executed, source)["image/png"]
    assert float(result(executed, "import numpy as np")["text/plain"]) < 1e-5


def test_it_is_stored_without_outputs():
    """Stored outputs would come from one machine and change with every run."""
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert not [cell for cell in cells if cell.outputs or cell.execution_count is not None]
