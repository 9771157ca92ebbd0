"""Which trainings a sweep takes, in what order, and what is left when something goes wrong."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
from played import DATA

from alexnet_mf import data
from alexnet_mf.errors import AlexnetMfError, SweepError
from alexnet_mf.instruments.process import WorkerFailed, WorkerGone
from alexnet_mf.instruments.records import parse, plain
from alexnet_mf.sweep import run
from alexnet_mf.sweep.plan import Plan, Setup
from alexnet_mf.sweep.record import Entry, Record
from alexnet_mf.sweep.report import report
from alexnet_mf.sweep.run import Sweep, chosen


def trained(played) -> list[tuple]:
    return [(command["network"]["name"], command["recipe"]["batch_size"], command["recipe"]["sgd"]["learning_rate"],
             command["seed"], command["held_out"]) for command in played.commands]


def test_each_network_with_its_own_rate_all_with_one_seed_before_the_next(sweep, played):
    record = sweep(seeds=(0, 1)).run()
    assert trained(played) == [("lenet5", 128, 0.9, 0, 0), ("lenet5-relu", 128, 0.3, 0, 0),
                               ("lenet5", 128, 0.9, 1, 0), ("lenet5-relu", 128, 0.3, 1, 0)]
    assert record.complete
    assert played.closed == 4, "a process for each"
    assert parse(plain(record), Record) == record


def test_everything_with_everything(sweep, played):
    sweep(batch_sizes=(16, 32), augments=((), ("flip", "crop"))).run()
    assert [(command["network"]["name"], command["recipe"]["augment"], command["recipe"]["batch_size"])
            for command in played.commands] == [(net, augment, size) for net in ("lenet5", "lenet5-relu")
                                                for augment in ((), ("flip", "crop")) for size in (16, 32)]


def test_a_rate_is_chosen_on_images_held_out_and_the_trainings_that_count_see_all(sweep, played):
    record = sweep(nets=("lenet5",), learning_rates=(0.03, 0.1, 0.3), held_out=5000, choosing_epochs=1, seeds=(4, 5),
                   test_images=100).run()
    assert trained(played) == [*(("lenet5", 128, rate, 4, 5000) for rate in (0.03, 0.1, 0.3)),
                               ("lenet5", 128, 0.1, 4, 0), ("lenet5", 128, 0.1, 5, 0)]
    assert [command["recipe"]["epochs"] for command in played.commands] == [1, 1, 1, 2, 2]
    assert [command["recipe"]["test_images"] for command in played.commands] == [None] * 3 + [100] * 2
    assert chosen(record) == {Setup("lenet5", (), 128): 0.1}


def test_one_rate_is_taken_without_a_choice(sweep, played):
    sweep(learning_rates=(0.5,)).run()
    assert {training[2] for training in trained(played)} == {0.5}


def test_in_one_sweep_a_network_keeps_its_own_rate_and_another_chooses(sweep, played):
    """Own of lenet5: the book's 0.9."""
    record = sweep(learning_rates=(0.03, 0.1), learning_rates_of={"lenet5": ()}, held_out=5000, seeds=(0, 1)).run()
    assert trained(played) == [("lenet5-relu", 128, 0.03, 0, 5000), ("lenet5-relu", 128, 0.1, 0, 5000),
                               ("lenet5", 128, 0.9, 0, 0), ("lenet5-relu", 128, 0.1, 0, 0),
                               ("lenet5", 128, 0.9, 1, 0), ("lenet5-relu", 128, 0.1, 1, 0)]
    assert record.complete
    assert parse(plain(record), Record) == record
    again = sweep(copy.deepcopy(record))
    played.commands.clear()
    again.run()
    assert played.commands == []


def test_single_networks_have_rates_beside_the_one_for_all(sweep, played):
    sweep(learning_rates=(0.5,), learning_rates_of={"lenet5-relu": (0.075, 0.125)}, held_out=10).run()
    assert trained(played) == [("lenet5-relu", 128, 0.075, 0, 10), ("lenet5-relu", 128, 0.125, 0, 10),
                               ("lenet5", 128, 0.5, 0, 0), ("lenet5-relu", 128, 0.075, 0, 0)]


def test_momentum_is_that_of_every_training(sweep, played):
    record = sweep(nets=("lenet5",), momentum=0.9, learning_rates=(0.03, 0.1), held_out=10).run()
    assert [command["recipe"]["sgd"]["momentum"] for command in played.commands] == [0.9] * 3
    assert record.plan.momentum == 0.9
    assert "momentum 0.9" in report(record).tables[1].title
    assert parse(plain(record), Record) == record


def test_a_rate_that_diverges_is_not_chosen(sweep, played):
    played.fails = lambda command: ({"failed": "diverged", "reason": "NaN"}
                                    if command["recipe"]["sgd"]["learning_rate"] == 0.1 else None)
    record = sweep(nets=("lenet5",), learning_rates=(0.03, 0.1), held_out=10).run()
    assert chosen(record) == {Setup("lenet5", (), 128): 0.03}
    assert record.complete


def test_where_every_rate_diverges_nothing_is_trained_with_it(sweep, played):
    played.fails = lambda command: {"failed": "diverged", "reason": "NaN"}
    record = sweep(nets=("lenet5",), learning_rates=(0.03, 0.1), held_out=10).run()
    assert len(played.commands) == 2
    assert record.complete


def test_of_two_equally_good_rates_the_smaller_is_taken(sweep, played):
    record = sweep(nets=("lenet5",), learning_rates=(0.125, 0.075), held_out=10).run()  # both 0.025 off the best
    assert chosen(record)[Setup("lenet5", (), 128)] == 0.075


@pytest.mark.parametrize("failure, kind", [
    ({"failed": "does not fit", "reason": "a batch of 32 does not fit"}, "does not fit"),
    (WorkerGone("python ended with exit code -9"), "ended")])
def test_a_size_that_does_not_fit_ends_nothing_but_itself(sweep, played, failure, kind):
    played.fails = lambda command: failure if command["recipe"]["batch_size"] == 32 else None
    record = sweep(nets=("lenet5",), batch_sizes=(16, 32, 64)).run()
    assert [entry.failed for entry in record.trainings] == [None, kind, None]
    assert record.complete
    assert played.closed == 3
    assert parse(plain(record), Record) == record


def test_what_would_fail_every_training_ends_the_sweep(sweep, played):
    played.fails = lambda command: WorkerFailed("backend numpy: no device 'cuda' here")
    with pytest.raises(SweepError, match="no device 'cuda' here"):
        sweep().run()
    assert len(played.commands) == 1


def test_other_images_end_the_sweep(sweep, played):
    played.fails = lambda command: {"data_sha256": "1" * 64}
    with pytest.raises(SweepError, match="not the images"):
        sweep().run()


@pytest.mark.parametrize("at", range(6))
def test_a_sweep_that_is_interrupted_goes_on_with_what_is_missing(sweep, played, at):
    plan = {"learning_rates": (0.1, 0.2), "held_out": 10, "nets": ("lenet5",), "seeds": (0, 1, 2, 3)}
    whole = sweep(**plan).run().trainings
    played.commands.clear()
    played.fails = lambda command: KeyboardInterrupt() if len(played.commands) == at + 1 else None
    first = sweep(**plan)
    saved = []
    first.save = lambda record: saved.append(copy.deepcopy(record))
    with pytest.raises(KeyboardInterrupt):
        first.run()
    assert played.closed == 6 + at + 1, "no process stays"
    assert (len(saved), saved[-1].complete) == (at + 1, False)
    assert len(saved[-1].trainings) == at
    played.fails = lambda command: None
    played.commands.clear()
    record = sweep(saved[-1]).run()
    assert len(played.commands) == 6 - at
    assert without_times(record.trainings) == without_times(whole)
    assert record.complete
    assert [entry.session for entry in record.trainings] == [0] * at + [1] * (6 - at)


def without_times(trainings: list[Entry]) -> list[Any]:
    return [(entry.training, entry.result, entry.failed) for entry in trainings]


def test_a_sweep_that_is_over_does_nothing_more(sweep, played):
    record = sweep().run()
    before = copy.deepcopy(record)
    played.commands.clear()
    assert sweep(record).run() == before
    assert played.commands == []


def test_progress_names_the_training(sweep, played):
    told = []
    made = sweep(nets=("lenet5",), seeds=(3, 4))
    made.report_progress = lambda training, number, count, now: told.append((training.seed, number, count, now))
    first, second = made.run().trainings
    progress = {"epoch": 1, "epochs": 2, "loss": 1.5, "images_per_second": 1000.0, "seconds_left": 3.0, "done": 0.4}
    assert told == [(3, 1, 2, None), (3, 1, 2, progress), (3, 1, 2, first),
                    (4, 2, 2, None), (4, 2, 2, progress), (4, 2, 2, second)]


@pytest.mark.parametrize("plan, fragment", [
    ({"learning_rates": (0.1, 0.2)}, "`held_out`"), ({"held_out": 5}, "`learning_rates`"),
    ({"choosing_epochs": 5}, "`learning_rates`"), ({"learning_rates": (0.1,), "held_out": 5}, "several learning"),
    ({"nets": ("lenet5",), "learning_rates_of": {"alexnet": (0.1,)}}, "takes no part; the networks are lenet5 "),
    ({"learning_rates_of": {"alexnet": (0.1, 0.2)}}, "`held_out`"),
    ({"learning_rates_of": {"alexnet": (-1.0,)}}, "`learning_rate` must be a number from 0"),
    ({"nets": ()}, "network"), ({"seeds": (1, 1)}, "seed"), ({"batch_sizes": (0,)}, "`batch_size` must be at least 1"),
    ({"epochs": 0}, "`epochs` must be at least 1"), ({"augments": (("blur",),)}, "known: flip, crop, color"),
    ({"momentum": 1.0}, "`momentum` must be less than 1"),
    ({"learning_rates": (-1.0,)}, "`learning_rate` must be a number from 0"),
    ({"learning_rates": (0.1, float("nan")), "held_out": 5}, "`learning_rate` must be a number from 0"),
])
def test_a_plan_that_makes_no_sense_is_told(plan, fragment):
    with pytest.raises(AlexnetMfError, match=fragment):
        Plan("numpy", **plan)


def test_a_plan_comes_back_from_json():
    plan = Plan("numpy", ("a", "b"), (0, 1), (8,), ((), ("flip", "crop")), 3, (0.1, 0.2), {"a": (), "b": (0.3, 0.4)}, 5,
                2, 100, 10, "cpu", "float32", ("threads",), ("compile",))
    assert parse(plain(plan), Plan) == plan


# The function of the verb


@pytest.fixture
def called(monkeypatch, played):
    """`sweep`, its trainings played, on small images."""
    monkeypatch.setattr(Sweep.__init__, "__defaults__", (*Sweep.__init__.__defaults__[:-1], played.connect))
    monkeypatch.setattr(data.synthetic, "draw", lambda seed, draw=data.synthetic.draw: draw(seed, train=20, test=10))
    monkeypatch.setattr(data.Dataset, "digest", lambda self: DATA.sha256)
    return functools.partial(run.sweep, data_name="synthetic")


def test_it_trains_and_records_how_it_was_called(called, played):
    saved = []
    record = called(Plan("numpy", ("lenet5",), (0, 1)), save=saved.append)
    assert record.complete and saved[-1] is record
    assert record.sessions[0].command == ["alexnet_mf.sweep(Plan(backend='numpy', nets=('lenet5',), seeds=(0, 1)))"]
    assert called(Plan("numpy", ("lenet5",)), command=["a"]).sessions[0].command == ["a"]


def test_it_resumes_a_record(called, played):
    played.fails = lambda command: KeyboardInterrupt() if len(played.commands) == 2 else None
    saved = []
    with pytest.raises(KeyboardInterrupt):
        called(Plan("numpy", ("lenet5",), (0, 1)), save=saved.append)
    record = called(saved[-1])
    assert record.complete and len(record.trainings) == len(record.sessions) == 2
    assert record.sessions[1].command == ["alexnet_mf.sweep(resume)"]


def test_it_refuses_other_images_and_networks_that_take_none_of_them(called, monkeypatch):
    record = called(Plan("numpy", ("lenet5",)))
    record.complete = False
    monkeypatch.setattr(data.Dataset, "digest", lambda self: "1" * 64)
    with pytest.raises(SweepError, match="not the images"):
        called(record)
    with pytest.raises(AlexnetMfError, match="28x28 grey images"):
        called(Plan("numpy", ("alexnet-2012",)))
