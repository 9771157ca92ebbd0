"""TensorFlow runs steps in blocks, which give the numbers of single steps and leave none out."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet_mf import backends, data
from alexnet_mf.backends.contract import RATE_INSIDE, Sgd, TrainerState
from alexnet_mf.data.augmentation import draw
from alexnet_mf.weights import parameters


@pytest.fixture
def model(small, requires):
    requires("tensorflow")
    return backends.load("tensorflow").build(small, parameters.initialize(small, 0))


@pytest.fixture
def images(model):
    drawn = data.synthetic.draw(0, train=40, test=1).train
    return model.place(drawn.images, drawn.labels)


def train(model, images, block: int, augment=()):
    """Take 7 steps of 8 rows and one of 5."""
    trainer = model.trainer(Sgd(0.05, momentum=0.9), 3)
    for number, size in enumerate([8] * 7 + [5]):
        trainer._block_steps = block
        draws = draw(augment, 3, number, size, (1, 28, 28))
        trainer.step(images, np.arange(number, number + size) % 40, number, draws)
    return trainer


def reset(model, small) -> None:
    model.trainer(Sgd(0.1), 0).load_state(TrainerState(parameters.initialize(small, 0), {}, RATE_INSIDE))


@pytest.mark.parametrize("augment", [(), pytest.param(("flip", "crop"), marks=pytest.mark.exhaustive)])
def test_the_numbers_do_not_depend_on_the_blocks(model, images, small, augment):
    results = []
    for block in (1, 3, 64):
        trainer = train(model, images, block, augment)
        metrics, state = trainer.read(), trainer.export_state()
        assert len(metrics.losses) == len(metrics.correct) == 8
        results.append((metrics.losses.tolist(), metrics.correct.tolist(), parameters.digest(state.parameters),
                        parameters.digest(state.velocity)))
        reset(model, small)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("ask", [
    lambda model, images: parameters.digest(model.export()), lambda model, images: model.logits(images, 40).tobytes(),
    pytest.param(lambda model, images: model.gradients(images)[0], marks=pytest.mark.exhaustive),
    pytest.param(lambda model, images: model.outputs(images)["fc4"].tobytes(), marks=pytest.mark.exhaustive),
    lambda model, images: parameters.digest(model.trainer(Sgd(0.1), 0).export_state().parameters),
], ids=["export", "logits", "gradients", "outputs", "another trainer"])
def test_pending_steps_run_before_the_weights_are_used(model, images, small, ask):
    train(model, images, 64)
    after_block = ask(model, images)
    reset(model, small)
    train(model, images, 1)
    assert ask(model, images) == after_block


def test_the_pending_steps_of_another_trainer_run_first(model, images):
    first = train(model, images, 64)
    second = model.trainer(Sgd(0.05), 3)
    second.step(images, np.arange(8), 8)
    assert not first._block, "all its steps have run"
    assert len(first.read().losses) == 8 and len(second.read().losses) == 1


def test_short_steps_make_longer_blocks(model, images):
    trainer = model.trainer(Sgd(0.05), 3)
    for number in range(30):
        trainer.step(images, np.arange(8), number)
    trainer.read()
    assert trainer._block_steps > 1, "steps of this network take milliseconds"
