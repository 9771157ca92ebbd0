"""The training loop: on a simulated device, and in every backend."""

from __future__ import annotations

import dataclasses
import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alexnet_mf import data, evaluation
from alexnet_mf.backends.contract import RATE_OUTSIDE, Model, Sgd, StepMetrics, Trainer, TrainerState
from alexnet_mf.data import LabeledImages, epoch_order
from alexnet_mf.data.augmentation import Draws
from alexnet_mf.errors import TrainingDiverged
from alexnet_mf.spec import Dense, Flatten, Network
from alexnet_mf.training import loop
from alexnet_mf.training.recipe import Recipe
from alexnet_mf.weights import parameters

# A simulated device that works asynchronously, as GPUs do, and its clock. Times are binary fractions: sums are exact.


class Clock:
    """Clock that advances only while the host works or waits."""

    def __init__(self) -> None:
        self.now = 100.0
        self.device_free = 100.0
        """Time at which the device finishes all queued work."""

    def perf_counter(self) -> float:
        return self.now

    def queue_on_device(self, seconds: float) -> None:
        self.device_free = max(self.now, self.device_free) + seconds

    def wait_for_device(self) -> None:
        self.now = max(self.now, self.device_free)


class FakeTrainer(Trainer[LabeledImages]):
    """Trainer that records its steps. Each step takes time on the host, then on the device."""

    def __init__(self, model: FakeModel):
        self.model = model
        self.steps: list[tuple[LabeledImages, list[int], int]] = []
        self.readings: list[int] = []
        """Number of steps in each reading."""
        self.unread = 0
        self.loaded: TrainerState | None = None

    def step(self, data: LabeledImages, indices: np.ndarray, number: int, draws: Draws | None = None) -> None:
        is_first = not self.steps
        self.model.augments.append(draws.kinds if draws else ())
        self.steps.append((data, indices.tolist(), number))
        self.unread += 1
        self.model.clock.now += self.model.host_seconds
        self.model.clock.queue_on_device(self.model.first_seconds if is_first else self.model.device_seconds)

    def prepare(self, data: LabeledImages, size: int) -> None:
        self.model.prepared.append((len(self.steps), len(data), size))
        self.model.clock.queue_on_device(self.model.compilation_seconds)

    def read(self) -> StepMetrics:
        self.model.clock.wait_for_device()
        self.readings.append(self.unread)
        read = self.steps[len(self.steps) - self.unread:]
        self.unread = 0
        losses = [self.model.losses.get(number, 1.0 + number) for _, _, number in read]
        return StepMetrics(np.array(losses), np.array([min(number, len(rows)) for _, rows, number in read], np.int64))

    def export_state(self) -> TrainerState:
        assert self.unread == 0, "a snapshot loses unread metrics"
        self.model.clock.now += self.model.export_seconds
        return TrainerState({"steps": np.array([number for _, _, number in self.steps])}, {}, RATE_OUTSIDE)

    def load_state(self, state: TrainerState) -> None:
        self.loaded = state


class FakeModel(Model[LabeledImages]):
    """Model with wrong logits for every fourth test image."""

    device = "fake:0"
    network = Network("fake", (1, 1, 1), (Flatten("flatten"), Dense("fc1", units=10)))
    describe = export = pixels = outputs = gradients = phases = None  # type: ignore  # the loop does not use them

    def __init__(self, clock: Clock):
        self.clock = clock
        self.host_seconds = 0.0
        self.device_seconds = 0.25
        self.first_seconds = 32.0
        self.compilation_seconds = 0.0
        self.evaluation_seconds = 1000.0
        self.export_seconds = 500.0
        self.losses: dict[int, float] = {}
        self.evaluations: list[tuple[LabeledImages, int]] = []
        self.trainers: list[tuple[FakeTrainer, Sgd, int]] = []
        self.prepared: list[tuple[int, int, int]] = []
        """Steps taken before, images and batch size of each preparation."""
        self.augments: list[tuple[str, ...]] = []
        """Augmentations of each step."""

    def place(self, inputs: np.ndarray, labels: np.ndarray) -> LabeledImages:
        return LabeledImages(inputs, labels)

    def logits(self, data: LabeledImages, batch_size: int) -> np.ndarray:
        self.evaluations.append((data, batch_size))
        self.clock.now += self.evaluation_seconds
        labels = np.where(np.arange(len(data)) % 4 == 3, (data.labels + 1) % 10, data.labels)
        return np.float32(math.log(9)) * (np.arange(10) == labels[:, np.newaxis]).astype(np.float32)

    def trainer(self, sgd: Sgd, seed: int) -> FakeTrainer:
        self.trainers.append((FakeTrainer(self), sgd, seed))
        return self.trainers[-1][0]

    def synchronize(self) -> None:
        self.clock.wait_for_device()

    def count_steps(self) -> int:
        return sum(len(trainer.steps) for trainer, _, _ in self.trainers)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    return clock


@pytest.fixture
def model(clock: Clock) -> FakeModel:
    return FakeModel(clock)


def images(count: int) -> LabeledImages:
    return LabeledImages(np.arange(count, dtype=np.uint8)[:, np.newaxis, np.newaxis], np.arange(count) % 10)


SGD = Sgd(learning_rate=0.125, momentum=0.5)
RECIPE = Recipe("test", epochs=3, batch_size=4, sgd=SGD)


def train_fake(model: FakeModel, recipe: Recipe = RECIPE, train: int = 10, test: int = 8, seed: int = 7,
               start: loop.Snapshot | None = None, **hooks: Any) -> loop.Result:
    return loop.train(model, images(train), images(test), recipe, seed, loop.Hooks(**hooks), start=start)


def run(model: FakeModel, recipe: Recipe = RECIPE, train: int = 10, test: int = 8, seed: int = 7,
        **how: Any) -> tuple[loop.Result, FakeTrainer]:
    """Train at one learning rate. Return the result and the trainer."""
    model.trainers.clear()
    result = train_fake(model, recipe, train, test, seed, **how)
    ((trainer, sgd, trainer_seed),) = model.trainers
    assert (sgd, trainer_seed) == (recipe.sgd, seed)
    return result, trainer


def test_the_last_steps_of_an_annealed_training_use_a_smaller_rate(model: FakeModel) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=2, batch_size=2, annealed=0.3, augment=("flip", "crop"))  # 2 x 5 steps
    result = train_fake(model, recipe)
    (first, sgd, seed), (last, slower, same_seed) = model.trainers
    assert slower == dataclasses.replace(sgd, learning_rate=sgd.learning_rate / 5)
    assert (seed, model.augments) == (same_seed, [("flip", "crop")] * 10)
    assert [number for _, _, number in first.steps] == list(range(7))
    assert [number for _, _, number in last.steps] == [7, 8, 9]
    assert (first.unread, last.unread) == (0, 0)  # no metrics are lost
    assert result.losses == [1.0 + number for number in range(10)]


def test_every_epoch_visits_its_order_and_uses_the_short_batch(model):
    _, trainer = run(model)
    for epoch in range(3):
        batches = [rows for _, rows, _ in trainer.steps[3 * epoch:3 * epoch + 3]]
        assert [len(rows) for rows in batches] == [4, 4, 2]
        assert list(itertools.chain(*batches)) == epoch_order(10, 7, epoch).tolist()
    assert trainer.steps[0][1] != trainer.steps[3][1], "each epoch has an order of its own"
    assert [number for _, _, number in trainer.steps] == list(range(9)), "no two steps share a dropout mask"


def test_limits_take_random_images(model):
    """The training images by the seed; the test images are the same for every seed."""
    recipe = dataclasses.replace(RECIPE, train_images=6, test_images=3)
    result, trainer = run(model, recipe)
    assert {len(placed) for placed, _, _ in trainer.steps} == {6}
    chosen = trainer.steps[0][0].images.ravel().tolist()
    assert sorted(set(chosen)) == chosen, "in their order"
    assert chosen != list(range(6)), "a set that is sorted by class would lose classes"
    assert sorted(itertools.chain(*(rows for _, rows, _ in trainer.steps[:2]))) == list(range(6))
    assert [len(placed) for placed, _ in model.evaluations] == [3, 3, 3]
    tested = model.evaluations[0][0].labels.tolist()
    assert result.epochs[0].test_accuracy == 1.0
    again = FakeModel(model.clock)
    _, other = run(again, recipe, seed=1)
    assert other.steps[0][0].images.ravel().tolist() != chosen
    assert again.evaluations[0][0].labels.tolist() == tested


def test_limits_beyond_the_dataset_use_all_images(model):
    result, trainer = run(model, dataclasses.replace(RECIPE, train_images=1000, test_images=1000))
    assert len(trainer.steps) == 9
    assert result.epochs[0].test_accuracy == 6 / 8


def test_epochs_report_means_over_their_images(model):
    """Step n has loss 1 + n and min(n, batch) correct; the batches have 4, 4 and 2 images."""
    seen: list[loop.Epoch] = []
    result, _ = run(model, on_epoch=seen.append)
    assert seen == result.epochs
    assert [epoch.epoch for epoch in seen] == [1, 2, 3]
    assert seen[0].loss == pytest.approx((4 * 1 + 4 * 2 + 2 * 3) / 10)
    assert seen[0].train_accuracy == pytest.approx((0 + 1 + 2) / 10)
    assert seen[1].loss == pytest.approx((4 * 4 + 4 * 5 + 2 * 6) / 10)
    assert seen[1].train_accuracy == pytest.approx((3 + 4 + 2) / 10)
    assert result.losses == [1.0 + number for number in range(9)]


def test_evaluation_is_accuracy_and_mean_cross_entropy(model):
    """One logit is log 9 and nine are 0: probability 1/2 for the one, 1/18 for each other. 6 of 8 images are right."""
    result, _ = run(model)
    assert result.epochs[0].test_accuracy == 6 / 8
    assert result.epochs[0].test_loss == pytest.approx((6 * math.log(2) + 2 * math.log(18)) / 8, rel=1e-6)


def test_evaluation_does_not_overflow():
    assert loop.score(np.float32([[3e38, -3e38], [0, 1e30]]), np.array([0, 1])) == (0.0, 1.0)


# The clock


def test_the_time_excludes_the_first_step_and_evaluations(model, clock):
    """Eight steps of 1/4 s count. The first step (32 s, 4 images) and the evaluations (1000 s each) do not."""
    result, _ = run(model)
    assert result.seconds == 8 * 0.25
    assert result.images == 30 - 4
    assert result.images_per_second == 26 / 2
    assert clock.now == 100 + 32 + 8 * 0.25 + 3 * 1000, "the fake clock ran all the time"


def test_the_time_includes_the_host(model):
    """The host is slower than its device, so input and launches determine the time."""
    model.host_seconds, model.device_seconds = 0.25, 0.125
    result, _ = run(model)
    # After the last step of an epoch the device needs another 1/8 s.
    assert result.seconds == (2 * 0.25 + 0.125) + 2 * (3 * 0.25 + 0.125)


def test_the_clock_stops_after_the_device_has_finished(model, monkeypatch):
    """A reading returns losses while the last update still runs on the device."""
    make_trainer = model.trainer

    def trainer(sgd: Sgd, seed: int) -> FakeTrainer:
        fake = make_trainer(sgd, seed)
        read = fake.read

        def read_early() -> StepMetrics:
            metrics = read()
            model.clock.queue_on_device(0.125)
            return metrics

        monkeypatch.setattr(fake, "read", read_early)
        return fake

    monkeypatch.setattr(model, "trainer", trainer)
    result, trainer = run(model)
    assert result.seconds == 8 * 0.25 + 0.125 * len(trainer.readings)


def test_work_queued_before_an_epoch_is_not_counted(model):
    """An evaluation leaves the device busy. The clock of the next epoch starts after that work."""
    logits = model.logits

    def logits_without_waiting(placed: LabeledImages, batch_size: int) -> np.ndarray:
        model.clock.queue_on_device(500)
        return logits(placed, batch_size)

    model.logits = logits_without_waiting
    model.evaluation_seconds = 0.0
    result, _ = run(model)
    assert result.seconds == 8 * 0.25


@pytest.mark.parametrize("count, prepared", [(10, [(1, 10, 2)]), (8, []), (3, [])])
def test_the_short_last_batch_is_prepared_before_the_clock_starts(model, count, prepared):
    """An epoch has batches of 4, 4 and 2 images, of 4 and 4, or of 3 alone."""
    model.compilation_seconds = 64.0
    result, trainer = run(model, train=count)
    assert model.prepared == prepared
    assert result.seconds == (len(trainer.steps) - 1) * 0.25


@pytest.mark.parametrize("epochs, counted", [(1, (10, 32.0)), (3, (20, 0.5))])
def test_the_first_step_is_counted_only_if_there_is_no_other(model, epochs, counted):
    result, _ = run(model, dataclasses.replace(RECIPE, epochs=epochs, batch_size=10))
    assert (result.images, result.seconds) == counted


def test_steps_do_not_wait_for_readings(model):
    """A reading waits for the device. An epoch of less than a second has one reading, at its end."""
    model.first_seconds = 0.25
    _, trainer = run(model, train=100)
    assert trainer.readings == [25, 25, 25]


def test_readings_come_about_once_a_second(model):
    """A step takes 3/8 s on the host, so a reading follows every third step."""
    model.host_seconds, model.first_seconds = 0.375, 0.0
    seen: list[loop.Progress] = []
    _, trainer = run(model, dataclasses.replace(RECIPE, epochs=1), train=32, on_progress=seen.append)
    assert trainer.readings == [3, 3, 2]
    assert [now.step for now in seen] == [3, 6, 8]


def test_progress_reports_means_rate_and_time_left(model):
    """Two epochs have 8 steps each. A step has 2 images and takes 1 s."""
    model.host_seconds, model.device_seconds, model.first_seconds = 1.0, 0.0, 0.0
    seen: list[loop.Progress] = []
    run(model, Recipe("slow", epochs=2, batch_size=2, sgd=SGD), train=16, on_progress=seen.append)
    assert [(now.epoch, now.step) for now in seen] == [(epoch, step) for epoch in (1, 2) for step in range(1, 9)]
    assert {(now.epochs, now.steps) for now in seen} == {(2, 8)}
    assert seen[2].loss == pytest.approx((1 + 2 + 3) / 3)
    assert seen[8 + 2].loss == pytest.approx((9 + 10 + 11) / 3), "each epoch starts new means"
    assert seen[8 + 2].train_accuracy == pytest.approx(1.0)
    middle = seen[8 + 3]
    assert middle.images_per_second == 2.0
    assert middle.seconds_left == 4.0
    assert seen[-1].seconds_left == 0
    assert math.isnan(seen[0].images_per_second), "the first step is not timed"


# Divergence


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 5, 8])
def test_a_loss_that_is_not_finite_stops_and_names_step_and_rate(model, number, bad):
    model.losses |= {number: bad, number + 1: math.nan}
    message = rf"the loss is {bad} in step {number + 1}; the learning rate is 0\.125"
    with pytest.raises(TrainingDiverged, match=message) as caught:
        run(model)
    assert caught.value.exit_code == 1
    assert len(model.evaluations) == number // 3, "no evaluation after a broken epoch"


def test_a_bad_loss_is_detected_within_an_epoch(model):
    """The reading after step 6 of 25 reports the loss of step 5; the training stops there."""
    model.host_seconds, model.first_seconds = 0.5, 0.0
    model.losses[4] = math.nan
    with pytest.raises(TrainingDiverged, match="nan in step 5;"):
        run(model, train=100)
    ((trainer, _, _),) = model.trainers
    assert len(trainer.steps) == 6


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_evaluation_detects_a_last_update_that_breaks_the_weights(model, bad):
    """No later step exists to show the broken weights in its loss."""
    model.logits = lambda placed, batch_size: np.full((8, 10), bad, np.float32)
    message = r"the loss on the test images is nan after step 3; the learning rate is 0\.125"
    with pytest.raises(TrainingDiverged, match=message):
        run(model, dataclasses.replace(RECIPE, epochs=1))


# Snapshots, stops and resuming


def stop_after(calls: int) -> Any:
    """Return a `stop` hook that is False for its first `calls` calls, then True."""
    number = itertools.count()
    return lambda: next(number) >= calls


def test_a_snapshot_follows_every_epoch(model):
    snapshots: list[loop.Snapshot] = []
    result, _ = run(model, save=snapshots.append)
    assert [now.position.number for now in snapshots] == [3, 6, 9]
    assert [len(now.position.epochs) for now in snapshots] == [1, 2, 3]
    assert {(now.position.loss_sum, now.position.correct, now.position.images) for now in snapshots} == {(0, 0, 0)}
    assert snapshots[1].position.losses == result.losses[:6]
    assert snapshots[1].position.epochs == result.epochs[:2]
    assert snapshots[2].state.parameters["steps"].tolist() == list(range(9))


def test_snapshots_within_an_epoch_come_by_the_clock_and_are_not_timed(model):
    """A step takes 3/8 s, so a snapshot follows every third step. A snapshot takes 500 s."""
    model.host_seconds, model.first_seconds, model.device_seconds = 0.375, 0.0, 0.0
    snapshots: list[loop.Snapshot] = []
    recipe = dataclasses.replace(RECIPE, epochs=1)
    result, _ = run(model, recipe, train=32, save=snapshots.append, save_seconds=1.0)
    assert [now.position.number for now in snapshots] == [3, 6, 8]
    assert snapshots[0].position == loop.Position(3, [], [1.0, 2.0, 3.0], 4 * (1.0 + 2 + 3), 0 + 1 + 2, 12, 8, 0.75)
    assert result.seconds == 7 * 0.375
    assert result.images == 28


@pytest.mark.parametrize("calls", range(1, 14))
def test_a_stopped_training_resumes_at_the_same_step(model, calls):
    """The stops come before the first step, after a step, and before or after an evaluation."""
    whole, _ = run(model)
    snapshots: list[loop.Snapshot] = []
    stopped, trainer = run(model, save=snapshots.append, stop=stop_after(calls))
    assert not stopped.finished
    assert snapshots[-1].position.number == len(trainer.steps)
    resumed, trainer = run(model, start=snapshots[-1])
    assert resumed.finished
    assert (resumed.epochs, resumed.losses) == (whole.epochs, whole.losses)
    assert trainer.loaded is snapshots[-1].state
    first = snapshots[-1].position.number
    assert [number for _, _, number in trainer.steps] == list(range(first, 9))
    for _, rows, number in trainer.steps:
        assert rows == epoch_order(10, 7, number // 3)[4 * (number % 3):][:4].tolist()


def test_a_stop_before_the_first_step_takes_no_step(model):
    snapshots: list[loop.Snapshot] = []
    result, trainer = run(model, save=snapshots.append, stop=lambda: True)
    assert (result.finished, trainer.steps, snapshots) == (False, [], [])


def test_a_stop_ends_a_long_evaluation(model, monkeypatch):
    monkeypatch.setattr(evaluation, "EVALUATION_PART", 2)
    recipe = dataclasses.replace(RECIPE, epochs=1)
    snapshots: list[loop.Snapshot] = []
    result, _ = run(model, recipe, save=snapshots.append, stop=stop_after(1 + 3 + 2))  # start, steps, two of four parts
    assert (result.finished, len(model.evaluations)) == (False, 2)
    assert (snapshots[-1].position.number, snapshots[-1].position.epochs) == (3, [])


def test_evaluating_in_parts_changes_no_result_and_reports_each_part(model, monkeypatch):
    whole, _ = run(model)
    monkeypatch.setattr(evaluation, "EVALUATION_PART", 4)  # the fake has one mistake in four
    reports: list[tuple[int, int]] = []
    parts, _ = run(model, on_evaluation=lambda *now: reports.append(now))
    assert parts.epochs == whole.epochs
    assert reports == [(0, 8), (4, 8)] * 3


def test_every_process_excludes_its_first_step_from_the_time(model):
    """The clock continues after a resume. One process counts 8 of 9 steps; two processes count 7."""
    snapshots: list[loop.Snapshot] = []
    run(model, save=snapshots.append)
    result, _ = run(model, start=snapshots[0])
    assert (result.images, result.seconds) == (30 - 4 - 4, 7 * 0.25)


def test_a_single_remaining_step_is_timed(model):
    snapshots: list[loop.Snapshot] = []
    recipe = dataclasses.replace(RECIPE, epochs=1, batch_size=5)
    run(model, recipe, save=snapshots.append, stop=stop_after(1))
    result, _ = run(model, recipe, start=snapshots[0])
    assert (result.images, result.seconds) == (5, 32.0)


@pytest.mark.parametrize("stop, rates", [(6, [0.125, 0.025]), (7, [0.025]), (8, [0.025])])
def test_a_resumed_annealed_training_uses_the_rate_of_its_step(model, stop, rates):
    """The last three of ten steps are annealed. A snapshot after step 7 comes from the slower trainer."""
    recipe = dataclasses.replace(RECIPE, epochs=2, batch_size=2, annealed=0.3)
    snapshots: list[loop.Snapshot] = []
    train_fake(model, recipe, save=snapshots.append, stop=lambda: model.count_steps() == stop)
    assert snapshots[-1].position.number == stop
    assert snapshots[-1].state.parameters["steps"].tolist() == ([] if stop == 7 else list(range(7 * (stop > 7), stop)))
    model.trainers.clear()
    train_fake(model, recipe, start=snapshots[-1])
    assert [sgd.learning_rate for _, sgd, _ in model.trainers] == pytest.approx(rates)


def test_means_do_not_depend_on_when_they_are_read(model):
    """Float64 sums depend on their grouping; losses such as 1/3 make the difference visible."""
    model.losses = {number: 1 / (3 + number) for number in range(75)}
    often, _ = run(model, train=100)
    model.host_seconds = 2.0
    seldom, _ = run(model, train=100)
    assert often.epochs == seldom.epochs


@pytest.mark.parametrize("stop", [2, 7, 9])
def test_a_resumed_training_gives_the_same_bits(backend, small, garments, stop):
    """The run has momentum, dropout and a short last batch. The last 4 of its 2 x 7 steps are annealed."""
    recipe = Recipe("test", 2, batch_size=32, sgd=Sgd(0.03, momentum=0.9), train_images=200, annealed=0.3)

    def build(seed: int) -> Model[Any]:
        return backend.build(small, parameters.initialize(small, seed), "cpu")

    def train(model: Model[Any], start: loop.Snapshot | None = None, **hooks: Any) -> loop.Result:
        return loop.train(model, garments.train, garments.test, recipe, 3, loop.Hooks(**hooks), start=start)

    whole = build(3)
    expected = train(whole)
    snapshots: list[loop.Snapshot] = []
    train(build(3), save=snapshots.append, stop=stop_after(stop))
    resumed = build(8)
    actual = train(resumed, snapshots[-1])
    assert (actual.losses, actual.epochs) == (expected.losses, expected.epochs)
    assert parameters.digest(resumed.export()) == parameters.digest(whole.export())


# Every backend


@pytest.fixture(scope="module")
def garments() -> data.Dataset:
    return data.synthetic.draw(0, train=3000, test=500)


def test_training_learns(backend, small, garments):
    """Four epochs on 3,000 images gave 70 to 79 % test accuracy in sixteen runs; chance is 10 %."""
    recipe = Recipe("test", epochs=4, batch_size=32, sgd=Sgd(0.03, momentum=0.9))
    model = backend.build(small, parameters.initialize(small, 0), "cpu")
    result = loop.train(model, garments.train, garments.test, recipe)
    assert result.epochs[-1].test_accuracy > 0.6
    assert result.epochs[-1].train_accuracy > 0.4
    assert result.epochs[-1].loss < result.epochs[0].loss
    assert result.epochs[-1].test_loss < 1.5
    assert len(result.losses) == 4 * 94
    assert result.images == 4 * 3000 - 32
    assert result.images_per_second > 100
