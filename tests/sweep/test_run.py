"""Sweeps: the order of their trainings, and the state after a failure."""

from __future__ import annotations

import copy
import functools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alexnet_mf import backends, data
from alexnet_mf.errors import AlexnetMfError, BackendUnavailable, Notice, RunError, SweepError
from alexnet_mf.instruments.process import WorkerFailed, WorkerGone
from alexnet_mf.instruments.records import parse, plain, to_json
from alexnet_mf.sweep import run
from alexnet_mf.sweep.plan import Plan, Setup
from alexnet_mf.sweep.record import Entry, Record, load
from alexnet_mf.sweep.report import report
from alexnet_mf.sweep.run import chosen
from alexnet_mf.training.lock import lock
from alexnet_mf.training.recipe import BOOK
from alexnet_mf.training.record import ResumedSession, StartingWeights, read, write


def list_trained(simulated) -> list[tuple]:
    return [(command["network"]["name"], command["recipe"]["batch_size"], command["recipe"]["sgd"]["learning_rate"],
             command["seed"], command["recipe"]["held_out"]) for command in simulated.commands]


def test_all_networks_train_with_one_seed_before_the_next(sweep, simulated):
    record = sweep(seeds=(0, 1)).run()
    assert list_trained(simulated) == [("lenet5", 128, 0.9, 0, 0), ("lenet5-relu", 128, 0.3, 0, 0),
                                    ("lenet5", 128, 0.9, 1, 0), ("lenet5-relu", 128, 0.3, 1, 0)]
    assert record.complete
    assert simulated.closed == 4, "each training has its own process"
    assert parse(plain(record), Record) == record


def test_a_rate_is_chosen_on_held_out_images_and_final_trainings_use_all(sweep, simulated):
    record = sweep(nets=("lenet5",), learning_rates=(0.03, 0.1, 0.3), held_out=5000, choosing_epochs=1, seeds=(4, 5),
                   test_images=100).run()
    assert list_trained(simulated) == [*(("lenet5", 128, rate, 4, 5000) for rate in (0.03, 0.1, 0.3)),
                                    ("lenet5", 128, 0.1, 4, 0), ("lenet5", 128, 0.1, 5, 0)]
    assert [command["recipe"]["epochs"] for command in simulated.commands] == [1, 1, 1, 2, 2]
    assert [command["recipe"]["test_images"] for command in simulated.commands] == [None] * 3 + [100] * 2
    assert chosen(record) == {Setup("lenet5", (), 128): 0.1}


def test_one_network_keeps_its_own_rate_while_another_chooses(sweep, simulated):
    """The own rate of lenet5 is the book's, 0.9."""
    record = sweep(learning_rates=(0.03, 0.1), learning_rates_of={"lenet5": ()}, held_out=5000, seeds=(0, 1)).run()
    assert list_trained(simulated) == [("lenet5-relu", 128, 0.03, 0, 5000), ("lenet5-relu", 128, 0.1, 0, 5000),
                                    ("lenet5", 128, 0.9, 0, 0), ("lenet5-relu", 128, 0.1, 0, 0),
                                    ("lenet5", 128, 0.9, 1, 0), ("lenet5-relu", 128, 0.1, 1, 0)]
    assert record.complete
    assert parse(plain(record), Record) == record


def test_rates_of_a_network_override_the_common_rate(sweep, simulated):
    sweep(learning_rates=(0.5,), learning_rates_of={"lenet5-relu": (0.075, 0.125)}, held_out=10).run()
    assert list_trained(simulated) == [("lenet5-relu", 128, 0.075, 0, 10), ("lenet5-relu", 128, 0.125, 0, 10),
                                    ("lenet5", 128, 0.5, 0, 0), ("lenet5-relu", 128, 0.075, 0, 0)]


def test_every_training_uses_the_plans_momentum(sweep, simulated):
    record = sweep(nets=("lenet5",), momentum=0.9, learning_rates=(0.03, 0.1), held_out=10).run()
    assert [command["recipe"]["sgd"]["momentum"] for command in simulated.commands] == [0.9] * 3
    assert record.plan.momentum == 0.9
    assert "momentum 0.9" in report(record).tables[1].title
    assert parse(plain(record), Record) == record


def test_no_training_follows_if_every_rate_diverges(sweep, simulated):
    simulated.fails = lambda command: {"failed": "diverged", "reason": "NaN"}
    record = sweep(nets=("lenet5",), learning_rates=(0.03, 0.1), held_out=10).run()
    assert len(simulated.commands) == 2
    assert record.complete
    assert report(record).failed
    assert "lenet5: training failed at every learning rate" in report(record).remarks


def test_the_smaller_of_two_equally_good_rates_is_chosen(sweep, simulated):
    record = sweep(nets=("lenet5",), learning_rates=(0.125, 0.075), held_out=10).run()  # both 0.025 off the best
    assert chosen(record)[Setup("lenet5", (), 128)] == 0.075


@pytest.mark.parametrize("failure, state", [
    ({"failed": "does not fit", "reason": "a batch of 32 does not fit"}, "does not fit"),
    (WorkerGone("python ended with exit code -9"), "ended")])
def test_a_failed_training_does_not_end_the_sweep(sweep, simulated, failure, state):
    simulated.fails = lambda command: failure if command["recipe"]["batch_size"] == 32 else None
    record = sweep(nets=("lenet5",), batch_sizes=(16, 32, 64)).run()
    assert [entry.failed for entry in record.trainings] == [None, state, None]
    assert record.complete
    assert simulated.closed == 3
    assert parse(plain(record), Record) == record


def test_another_dataset_ends_the_sweep(sweep, simulated):
    simulated.images = "1" * 64
    with pytest.raises(SweepError, match=r"seed0: holds a run with another dataset; move it away"):
        sweep().run()


@pytest.mark.parametrize("at", range(6))
def test_an_interrupted_sweep_trains_only_what_is_missing(sweep, simulated, at):
    plan = {"learning_rates": (0.1, 0.2), "held_out": 10, "nets": ("lenet5",), "seeds": (0, 1, 2, 3)}
    whole = sweep(**plan).run().trainings
    simulated.commands.clear()
    simulated.fails = lambda command: KeyboardInterrupt() if len(simulated.commands) == at + 1 else None
    first = sweep(**plan)
    saved = []
    first.save = lambda record: saved.append(copy.deepcopy(record))
    with pytest.raises(KeyboardInterrupt), pytest.warns(Notice):
        first.run()
    assert simulated.closed == 6 + at + 1, "no process remains"
    assert (len(saved), saved[-1].complete) == (at + 2, False)
    assert len(saved[-1].trainings) == at
    assert simulated.interrupted == 1, "the interrupted training saves its work"
    assert load(Path(saved[-1].folder)) == saved[-1]
    simulated.fails = lambda command: None
    simulated.commands.clear()
    record = sweep(saved[-1]).run()
    assert len(simulated.commands) == 6 - at
    assert without_times(record.trainings) == without_times(whole)
    assert record.complete
    assert [entry.session for entry in record.trainings] == [0] * at + [1] * (6 - at)


def without_times(trainings: list[Entry]) -> list[Any]:
    return [(entry.training, entry.result, entry.failed) for entry in trainings]


def test_resuming_a_complete_sweep_does_nothing(sweep, simulated):
    record = sweep().run()
    before = copy.deepcopy(record)
    simulated.commands.clear()
    assert sweep(record).run() == before
    assert simulated.commands == []


def test_progress_names_the_training(sweep, simulated):
    reports = []
    new_sweep = sweep(nets=("lenet5",), seeds=(3, 4))
    new_sweep.report_progress = lambda training, number, count, now: reports.append((training.seed, number, count, now))
    first, second = new_sweep.run().trainings
    progress = {"epoch": 1, "epochs": 2, "loss": 1.5, "images_per_second": 1000.0, "seconds_left": 3.0, "done": 0.4}
    assert reports == [(3, 1, 2, None), (3, 1, 2, progress), (3, 1, 2, first),
                    (4, 2, 2, None), (4, 2, 2, progress), (4, 2, 2, second)]


@pytest.mark.parametrize("plan, fragment", [
    ({"learning_rates": (0.1, 0.2)}, "`held_out`"), ({"held_out": 5}, "`learning_rates`"),
    ({"choosing_epochs": 5}, "`learning_rates`"), ({"learning_rates": (0.1,), "held_out": 5}, "several learning"),
    ({"nets": ("lenet5",), "learning_rates_of": {"alexnet": (0.1,)}}, "but is not trained; the networks are lenet5 "),
    ({"learning_rates_of": {"alexnet": (0.1, 0.2)}}, "`held_out`"),
    ({"learning_rates_of": {"alexnet": (-1.0,)}}, "`learning_rate` must be a number from 0"),
    ({"nets": ()}, "`nets` cannot be .*length >= 1"), ({"seeds": (1, 1)}, "`seeds` has a value twice"),
    ({"seeds": (1.5,)}, r"`seeds` cannot be \(1.5,\): .*Expected `int`, got `float`"), ({"seeds": 3}, "`seeds`"),
    ({"nets": "lenet5"}, "`nets` cannot be 'lenet5'"),
    ({"backend": "jax"}, "`backend` must be one of torch, .*, not 'jax'"),
    ({"speed": {"warp": True}}, "`speed` must be one of allocator, .*, not 'warp'"),
    ({"seeds": (-1,)}, "`seeds` cannot be"), ({"speed": {"compile": 1}}, "`speed` cannot be"), ({"seeds": range(3)},
    "`seeds` cannot be"), ({"batch_sizes": (0,)}, "`batch_size` must be at least 1"),
    ({"epochs": 0}, "`epochs` must be at least 1"),
    ({"augments": (("blur",),)}, "known: flip, crop, resized-crop, color, pca"),
    ({"momentum": 1.0}, "`momentum` must be less than 1"),
    ({"learning_rates": (-1.0,)}, "`learning_rate` must be a number from 0"),
    ({"held_out": -1, "learning_rates": (0.1, 0.2)}, "`held_out` cannot be -1"),
    ({"learning_rates": (0.1, float("nan")), "held_out": 5}, "`learning_rate` must be a number from 0"),
])
def test_an_invalid_plan_is_refused(plan, fragment):
    with pytest.raises(AlexnetMfError, match=fragment):
        Plan(**{"backend": "numpy", **plan})


def test_a_plan_survives_json():
    plan = Plan("numpy", ["a", "b"], (0, 1), (8,), ((), ("flip", "crop")), 3, (0.1, 0.2), {"a": (), "b": (0.3, 0.4)}, 5,
                2, 100, 10, "cpu", "float32", {"threads": False, "compile": True})
    assert parse(plain(plan), Plan) == plan


def test_a_run_folder_is_named_by_the_settings_that_differ():
    def names(**plan: Any) -> list[str]:
        plan = Plan("torch", **plan)
        rates = dict.fromkeys(plan.setups(), 0.5)
        return [plan.run_name(training) for training in [*plan.choices(), *plan.trainings(rates)]]

    assert names(nets=("alexnet-28",), seeds=(0, 1)) == ["alexnet-28-torch-lr0.5-seed0", "alexnet-28-torch-lr0.5-seed1"]
    assert names(learning_rates=(0.03, 1), held_out=5) == [
        "alexnet-torch-lr0.03-seed0-held-out", "alexnet-torch-lr1-seed0-held-out", "alexnet-torch-lr0.5-seed0"]
    assert names(augments=((), ("flip", "crop")), batch_sizes=(8, 16)) == [
        f"alexnet-torch-{augment}-batch{size}-lr0.5-seed0" for augment in ("none", "flip+crop") for size in (8, 16)]
    assert names(nets=("a/my net.toml", "b/my net.toml")) == ["my_net-torch-lr0.5-seed0", "my_net-2-torch-lr0.5-seed0"]


# Run folders


OTHER_WEIGHTS = StartingWeights("other.npz", "1" * 64)


@pytest.mark.parametrize("plan, difference, first, resumed", [
    ({}, "another recipe", {"recipe": replace(BOOK, epochs=3)}, None), ({}, "another seed", {"seed": 5}, None),
    ({}, "another network", {"spec_sha256": "1" * 64}, None), ({}, "another dataset", {"data_sha256": "1" * 64}, None),
    ({}, r"starting weights \(other.npz\)", {"weights": OTHER_WEIGHTS}, None),
    ({}, "backend torch, expected numpy", {"backend": "torch"}, None),
    ({}, "backend torch, expected numpy", {}, {"backend": "torch"}),
    ({"speed": {"compile": True}}, "speed settings compile=False, expected compile=True",
     {"speed": {"compile": False}}, None),
    ({"speed": {"compile": True}}, "speed settings none, expected compile=True", {"speed": {}}, None),
    ({}, "speed settings compile=True, expected none", {"speed": {"compile": True}}, None),
    ({}, "speed settings threads=False, expected none", {}, {"speed": {"threads": False}}),
    ({}, "precision bfloat16, expected float64", {"precision": "bfloat16"}, None),
    ({"precision": "float32"}, "precision float64, expected float32", {}, None),
    ({}, "device cuda, expected cpu", {"device": "cuda:1"}, None)])
@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_a_run_that_differs_from_the_plan_is_refused(sweep, simulated, plan, difference, first, resumed, state):
    """The check covers every session: one with other settings, then one like the first."""
    new_sweep = sweep(nets=("lenet5",), **plan)
    new_sweep.run()
    simulated.commands.clear()
    new_sweep.record.trainings.clear()
    folder = new_sweep.folder / "lenet5-numpy-lr0.9-seed0"
    values = read(folder)
    session = {name: value for name, value in plain(values).items() if name in ResumedSession.__struct_fields__}
    values.resumed = [parse({**session, "step": 1, **other}, ResumedSession) for other in (resumed, {})] if resumed \
        else []
    for name, value in {"state": state, **first}.items():
        setattr(values, name, value)
    write(folder, values)
    with pytest.raises(SweepError, match=f"seed0: holds a run with {difference}; move it away, or name another"):
        new_sweep.run()
    assert simulated.commands == [] and new_sweep.record.trainings == []


def test_the_result_has_the_versions_of_the_last_session(sweep, simulated):
    new_sweep = sweep(nets=("lenet5",))
    new_sweep.run()
    new_sweep.record.trainings.clear()
    folder = new_sweep.folder / "lenet5-numpy-lr0.9-seed0"
    values = read(folder)
    session = {name: value for name, value in plain(values).items() if name in ResumedSession.__struct_fields__}
    values.resumed = [parse({**session, "step": 1, "versions": {"numpy": "2"}}, ResumedSession)]
    write(folder, values)
    assert [entry.result.versions for entry in new_sweep.run().trainings] == [{"numpy": "2"}]


def test_a_run_whose_worker_cannot_resolve_the_device_is_refused(sweep, simulated, monkeypatch):
    new_sweep = sweep(nets=("lenet5",))
    new_sweep.run()
    new_sweep.record.trainings.clear()

    def ask(command):
        raise WorkerGone("python ended with exit code -9")
    monkeypatch.setattr(simulated, "ask", ask)
    with pytest.raises(SweepError, match="exit code -9"):
        new_sweep.run()
    assert new_sweep.record.trainings == []


def test_only_runs_trained_by_one_process_have_a_total_time(sweep, simulated):
    new_sweep = sweep(nets=("lenet5",), seeds=(0, 1, 2))
    assert all(entry.whole_seconds >= 0 for entry in new_sweep.run().trainings)
    stopped = new_sweep.folder / "lenet5-numpy-lr0.9-seed1"
    values = read(stopped)
    values.state = "stopped"
    write(stopped, values)
    shutil.rmtree(new_sweep.folder / "lenet5-numpy-lr0.9-seed2")
    new_sweep.record.trainings.clear()
    record = new_sweep.run()
    assert [entry.whole_seconds is None for entry in record.trainings] == [True, True, False]
    assert parse(plain(record), Record) == record


def test_a_full_disk_is_reported_once(sweep, simulated, monkeypatch, recwarn):
    new_sweep = sweep(nets=("lenet5",))

    def save(record):
        if record.trainings:
            raise AlexnetMfError("s.json: cannot be written")
    new_sweep.save = save
    with pytest.raises(AlexnetMfError, match="cannot be written"):
        new_sweep.run()
    assert not recwarn.list


def test_a_run_without_its_record_is_refused(sweep, simulated):
    new_sweep = sweep(nets=("lenet5",))
    new_sweep.run()
    new_sweep.record.trainings.clear()
    folder = new_sweep.folder / "lenet5-numpy-lr0.9-seed0"
    for path in (folder / "checkpoint").iterdir():
        path.unlink()
    (folder / "run.json").write_text("{}")
    with pytest.raises(SweepError, match=f"run.json: is damaged; move {folder} away to train it again"):
        new_sweep.run()


@pytest.mark.parametrize("keep", [True, False])
def test_a_finished_run_keeps_no_checkpoint_and_its_weights_only_if_asked(sweep, keep):
    new_sweep = sweep(nets=("lenet5",))
    new_sweep.keep_weights = keep
    [entry] = new_sweep.run().trainings
    names = {path.name for path in (new_sweep.folder / entry.run).rglob("*") if path.is_file()}
    assert names == {"run.json", "metrics.jsonl"} | ({"weights.safetensors", "weights-best.safetensors"} if keep else
                                                    set())


# The function `sweep`


@pytest.fixture
def called(small_sweeps):
    return functools.partial(run.sweep, quiet=True)


PLAN = Plan("numpy", ("lenet5",), (0, 1))


def test_sweep_trains_in_its_folder_and_records_its_call(called):
    saved = []
    record = called(PLAN, data="synthetic", out="s", save=saved.append)
    assert record.complete and saved[-1] is record
    assert record.folder == str(Path("s").resolve())
    assert sorted(path.name for path in Path("s").iterdir() if path.name != ".lock") == [
        "lenet5-numpy-lr0.9-seed0", "lenet5-numpy-lr0.9-seed1", "sweep.json"]
    assert record.sessions[0].command == ["alexnet_mf.api.sweep(Plan(backend='numpy', nets=('lenet5',), seeds=(0, 1)))"]
    assert called(PLAN, data="synthetic", command=["a"]).sessions[0].command == ["a"]


def test_sweep_without_a_folder_makes_one_and_names_it(called):
    with pytest.warns(Notice, match="sweep folder: sweeps/.*-numpy-2-networks"):
        record = called(Plan("numpy", ("lenet5", "lenet5-relu")), data="synthetic", quiet=False)
    assert Path(record.folder).parent == Path("sweeps").resolve()


@pytest.mark.parametrize("source", ["s", "s/sweep.json", "copy.json"])
def test_sweep_resumes_a_folder_or_a_record(called, simulated, source):
    simulated.fails = lambda command: KeyboardInterrupt() if len(simulated.commands) == 2 else None
    with pytest.raises(KeyboardInterrupt, match=r"s: stopped; resume with `alexnet_mf.api.sweep\(resume='s'\)`"), \
            pytest.warns(Notice, match="finishing this step"):
        called(PLAN, data="synthetic", out="s")
    Path("copy.json").write_bytes(Path("s/sweep.json").read_bytes())
    record = called(resume=source)
    assert record.complete and len(record.trainings) == len(record.sessions) == 2
    assert record.sessions[1].command == [f"alexnet_mf.api.sweep(resume={source!r})"]
    assert load(Path("s")) == record == called(resume=source)


def test_a_lost_record_is_rebuilt_from_the_runs(called, simulated):
    before = called(PLAN, data="synthetic", out="s")
    Path("s/sweep.json").unlink()
    simulated.commands.clear()
    record = called(Plan("numpy", ("lenet5",), (0, 1, 2)), data="synthetic", out="s")
    assert record.complete and [command["seed"] for command in simulated.commands] == [2]
    for entry, trained in zip(record.trainings, before.trainings):
        trained.result.peak_memory_bytes = None
        assert (entry.training, entry.run, entry.result) == (trained.training, trained.run, trained.result)


def test_a_run_without_its_folder_is_trained_again(called, simulated):
    before = called(PLAN, data="synthetic", out="s")
    simulated.commands.clear()
    shutil.rmtree("s/lenet5-numpy-lr0.9-seed1")
    with pytest.warns(Notice, match="s/lenet5-numpy-lr0.9-seed1: missing; training again"):
        record = called(resume="s")
    assert [command["seed"] for command in simulated.commands] == [1]
    assert record.complete and without_times(record.trainings) == without_times(before.trainings)


@pytest.mark.parametrize("keep, name, change, fragment", [
    (True, "run.json", Path.unlink, "is missing"), (False, "run.json", Path.unlink, "is missing"),
    (True, "run.json", lambda path: path.write_text("{}"), "is damaged"),
    (True, "weights.safetensors", Path.unlink, "No such file"),
    (True, "weights-best.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-9]), "")])
def test_a_damaged_run_is_refused_with_the_remedy(called, simulated, keep, name, change, fragment):
    called(PLAN, data="synthetic", out="s", keep_weights=keep)
    assert called(resume="s").complete
    simulated.commands.clear()
    folder = Path("s/lenet5-numpy-lr0.9-seed1")
    change(folder / name)
    before = Path("s/sweep.json").read_bytes()
    with pytest.raises(SweepError, match=f"{folder / name}: .*{fragment}.*; move {folder} away to train it again$"):
        called(resume="s")
    assert Path("s/sweep.json").read_bytes() == before and simulated.commands == []
    folder.rename("away")
    with pytest.warns(Notice, match="missing"):
        assert called(resume="s").complete


@pytest.mark.parametrize("options, fragment", [
    ({}, "`plan` must be of type Plan, not None"), ({"plan": "lenet5"}, "`plan` must be of type Plan, not 'lenet5'"),
    ({"plan": PLAN, "out": 3}, "`out` must be a path, not 3"), ({"resume": 3}, "`resume` must be a path, not 3"),
    ({"plan": PLAN, "resume": "s"}, "leave out `plan` and `out`"), ({"resume": "gone"}, "gone: cannot be read"),
    ({"plan": Plan("numpy", ("lenet6",))}, "unknown network 'lenet6'"),
    ({"plan": PLAN, "data": "mnist"}, "mnist: is neither a built-in dataset"),
    ({"plan": PLAN, "out": "full"}, "full: holds notes.txt, which is not a run; name another folder"),
    ({"plan": PLAN, "out": "full/s"}, "full/s: holds a sweep; resume it with `resume='full/s'`, or name another"),
    ({"plan": PLAN, "out": "full/run"}, "full/run: is a run, not a sweep; name another folder"),
    ({"plan": PLAN, "out": "full/notes.txt"}, "full/notes.txt: cannot be read as a folder"),
    ({"plan": PLAN, "out": "full/notes.txt/s"}, "full/notes.txt/s: cannot be"),
    ({"plan": Plan("numpy", ("lenet5",), learning_rates=(0.1, 0.2), held_out=20)}, "`held_out` must be smaller"),
    ({"plan": Plan("numpy", ("lenet5",), train_images=21)}, "`train_images` is 21, but there are 20 images"),
    ({"plan": Plan("numpy", ("lenet5",), learning_rates=(0.1, 0.2), held_out=5, train_images=16)}, "there are 15 "),
    ({"plan": Plan("numpy", ("lenet5",), test_images=11)}, "`test_images` is 11, but there are 10 images"),
])
def test_impossible_arguments_are_refused_and_leave_nothing(called, simulated, options, fragment):
    for folder in ("s", "run"):
        Path("full", folder).mkdir(parents=True)
    for name in ("notes.txt", "s/sweep.json", "run/run.json"):
        Path("full", name).touch()
    with pytest.raises(AlexnetMfError, match=fragment):
        called(**{"data": "synthetic", **options})
    assert simulated.commands == [] and [path.name for path in Path().iterdir()] == ["full"]


def test_a_backend_that_is_not_installed_is_refused(called, monkeypatch):
    monkeypatch.setattr(backends, "is_installed", lambda name: False)
    with pytest.raises(BackendUnavailable, match="backend numpy: not installed here; pip install numpy"):
        called(PLAN, data="synthetic")


def test_a_sweep_that_could_not_start_leaves_no_folder(called, simulated):
    simulated.fails = lambda command: WorkerFailed("no device 'cuda' here")
    with pytest.raises(SweepError, match="no device"):
        called(PLAN, data="synthetic", out="a/b")
    assert len(simulated.commands) == 1, "the next training would fail too"
    assert not Path("a").exists()


def test_a_folder_that_another_sweep_started_using_is_refused(called, simulated, monkeypatch):
    """The other sweep starts after the first check of the folder; all its trainings fail."""
    def open_source(*arguments, open_source=run.datasets.open_source):
        Path("s").mkdir()
        Path("s/sweep.json").write_text("its record")
        return open_source(*arguments)
    monkeypatch.setattr(run.datasets, "open_source", open_source)
    with pytest.raises(SweepError, match="s: holds a sweep; resume it"):
        called(PLAN, data="synthetic", out="s")
    assert simulated.commands == [] and Path("s/sweep.json").read_text() == "its record"
    lock(Path("s")).release()


def test_a_folder_in_use_is_refused(called):
    Path("s").mkdir()
    folder_lock = lock(Path("s"))
    with pytest.raises(RunError, match="s: is in use by process"):
        called(PLAN, data="synthetic", out="s")
    folder_lock.release()


def test_sweep_refuses_another_dataset_and_a_folder_without_its_sweep(called, monkeypatch):
    record = called(PLAN, data="synthetic", out="s")
    record.complete = False
    Path("s/sweep.json").write_bytes(to_json(record))
    Path("s").rename("moved")
    Path("moved/sweep.json").rename("copy.json")
    with pytest.raises(SweepError, match=r"copy.json: its folder .*s has no sweep; name the folder"):
        called(resume="copy.json")
    Path("copy.json").rename("moved/sweep.json")
    monkeypatch.setattr(data.Dataset, "digest", lambda self: "1" * 64)
    with pytest.raises(SweepError, match="the images differ"):
        called(resume="moved")
