"""Weights from run folders, from files of this package, and from files of other programs."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.numpy
from run_folders import make_run

from alexnet_mf import spec
from alexnet_mf.conversion import read
from alexnet_mf.errors import ParametersError, RunError, SpecError
from alexnet_mf.spec import zoo
from alexnet_mf.training import record
from alexnet_mf.weights import parameters


@pytest.fixture
def folder(small, tmp_path):
    """Return a run folder with a damaged record, last weights, and other best weights."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{")
    header = {"network": spec.as_dict(small), "step": 7}
    parameters.save(tmp_path / "run" / "weights.safetensors", parameters.initialize(small, 1), header)
    parameters.save(tmp_path / "run" / "weights-best.safetensors", parameters.initialize(small, 2), header)
    return tmp_path / "run"


def have_same_bits(weights, expected):
    return parameters.digest(weights) == parameters.digest(expected)


def test_a_run_has_last_and_best_weights(small, folder):
    last, best = read(folder), read(folder, which="best")
    assert last.network == small and last.metadata["step"] == 7
    assert last.path == folder / "weights.safetensors"
    assert have_same_bits(last.parameters, parameters.initialize(small, 1))
    assert have_same_bits(best.parameters, parameters.initialize(small, 2))


def test_missing_weights_of_a_run_are_reported_with_the_remedy(folder):
    (folder / "weights-best.safetensors").unlink()
    with pytest.raises(RunError, match=r"no weights-best.safetensors; use `which='last'`"):
        read(folder, which="best")
    (folder / "weights.safetensors").unlink()
    for run in (folder, folder.parent):
        with pytest.raises(RunError, match=r"has no weights\.safetensors; name a weights file, or a run that has"):
            read(run)


def test_a_file_of_another_program_needs_the_name_of_a_network(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file(parameters.initialize(zoo.LENET5, 3), path)
    with pytest.raises(ParametersError, match="its tensors fit lenet5 and lenet5-relu: name the network with `net`"):
        read(path)
    assert read(path, "lenet5").network is zoo.LENET5
    with pytest.raises(ParametersError, match=r"not the parameters of alexnet-28: .*missing conv3\.weight; .*lenet5"):
        read(path, "alexnet-28")
    with pytest.raises(SpecError, match="unknown network 'lenet'"):
        read(path, "lenet")
    safetensors.numpy.save_file({"features.0.weight": np.zeros((2, 2), np.float32)}, path)
    with pytest.raises(ParametersError, match="does not name its network; name the network with `net`"):
        read(path)


@pytest.mark.parametrize("network", [3, [], {"name": "x"}, {"name": "x", "input": [1, 28, 28], "layers": 3}])
def test_a_header_without_a_valid_network_is_refused(small, tmp_path, network):
    parameters.save(tmp_path / "w", parameters.initialize(small, 0), {"network": network})
    with pytest.raises(ParametersError, match=r"w: its header does not describe a network of this version .*; update"):
        read(tmp_path / "w")
    with pytest.raises(ParametersError, match="its header does not describe a network"):
        read(tmp_path / "w", small)


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 100_000, "3"], ids=["list", "half", "deep", "number"])
def test_metadata_that_is_not_an_object_is_refused(small, tmp_path, text):
    content = safetensors.numpy.save(parameters.initialize(small, 0), {parameters.KEY: text})
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(ParametersError, match=r"w: is damaged: the entry \S+ of its header cannot be read"):
        read(tmp_path / "w")


def test_the_error_names_only_some_of_many_surplus_tensors(small, tmp_path):
    path = tmp_path / "w.safetensors"
    surplus = {f"x\n{i}": np.zeros(1, np.float32) for i in range(1000)} | {"y" * 1000: np.zeros(1, np.float32)}
    safetensors.numpy.save_file(parameters.initialize(small, 0) | surplus, path)
    with pytest.raises(ParametersError, match="and 989 more") as caught:
        parameters.load(path, small)
    assert len(str(caught.value)) < 5000 and "\n" not in str(caught.value)


def test_the_last_session_has_the_current_backend_of_a_run(small, folder):
    with pytest.raises(RunError):
        record.read(folder)
    run = make_run(small)
    again = record.ResumedSession(**record.fields(run, record.Session) | {"backend": "mxnet"}, step=7)
    record.write(folder, record.RunRecord(**record.fields(run, record.Run), resumed=[again]))
    assert record.read(folder).sessions[-1].backend == "mxnet"
