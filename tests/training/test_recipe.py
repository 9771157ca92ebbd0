"""Recipes: the book's values, their adaptation to a network, and refused values."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from alexnet_mf.backends.contract import Sgd
from alexnet_mf.data import synthetic
from alexnet_mf.errors import AlexnetMfError
from alexnet_mf.spec import arithmetic, zoo
from alexnet_mf.spec.zoo import ALEXNET, ALEXNET_28, ALEXNET_SLIM, LENET5, LENET5_RELU
from alexnet_mf.training.recipe import ALL_IMAGES, BOOK, QUICK, Recipe, for_network


def test_the_book_recipe_has_the_books_values():
    assert BOOK == Recipe("book", epochs=10, batch_size=128, sgd=Sgd(0.01))
    assert BOOK.sgd == Sgd(0.01, momentum=0.0, weight_decay=0.0)


@pytest.mark.parametrize("network", [ALEXNET, *zoo.TABS.values()], ids=lambda network: network.source)
def test_alexnet_uses_the_recipes_unchanged(network):
    assert for_network(BOOK, network) == BOOK
    assert for_network(QUICK, network) == QUICK


@pytest.mark.parametrize("network, rate", [(LENET5, 0.9), (LENET5_RELU, LENET5_RELU.learning_rate),
                                           (ALEXNET_28, ALEXNET_28.learning_rate), (ALEXNET_SLIM, 0.01)])
def test_the_book_recipe_uses_the_networks_learning_rate(network, rate):
    recipe = for_network(BOOK, network)
    assert recipe.sgd.learning_rate == rate
    assert replace(recipe, sgd=BOOK.sgd) == BOOK, "nothing else changes"


def test_a_quick_training_costs_no_more_than_alexnets():
    budget = 3840 * 2_780_566_272
    for network in map(zoo.get_network, zoo.NETWORKS):
        recipe = for_network(QUICK, network)
        images = recipe.epochs * (recipe.train_images or ALL_IMAGES)
        assert images * sum(arithmetic.training_macs(network).values()) <= budget, network.name


def test_quick_equals_book_for_a_cheap_network():
    assert for_network(QUICK, LENET5) == for_network(BOOK, LENET5)


def test_quick_takes_whole_epochs_of_book_if_they_fit():
    cost = sum(arithmetic.training_macs(ALEXNET_28).values())
    epochs = 3840 * 2_780_566_272 // (60_000 * cost)
    assert 1 <= epochs < BOOK.epochs
    book = for_network(BOOK, ALEXNET_28)
    assert for_network(QUICK, ALEXNET_28) == replace(book, name="quick", epochs=epochs)


def test_quick_scales_its_rate_with_the_networks_if_no_epoch_fits():
    faster = replace(ALEXNET_SLIM, learning_rate=0.03)
    recipe = for_network(QUICK, faster)
    assert recipe.sgd.learning_rate == pytest.approx(0.06)
    assert for_network(QUICK, ALEXNET_SLIM) == QUICK
    assert recipe.sgd == replace(QUICK.sgd, learning_rate=recipe.sgd.learning_rate)
    assert replace(recipe, sgd=QUICK.sgd) == QUICK


def test_a_limit_beyond_the_dataset_becomes_none():
    data = synthetic.draw(0, train=20, test=10)
    assert replace(QUICK, train_images=21, test_images=10).fitted(data) == replace(QUICK, train_images=None,
                                                                                   test_images=10)
    assert replace(QUICK, train_images=20, test_images=11).fitted(data) == replace(QUICK, train_images=20,
                                                                                   test_images=None)
    assert BOOK.fitted(data) == BOOK


@pytest.mark.parametrize("change, message", [
    ({"name": ["book"]}, "the name of a recipe must be a string, not"),
    ({"epochs": None}, "`epochs` must be an integer, not None"), ({"epochs": True}, "`epochs` must be an integer"),
    ({"batch_size": 0}, "`batch_size` must be at least 1, not 0"), ({"batch_size": -5}, "`batch_size`.*-5"),
    ({"train_images": "all"}, "`train_images` must be an integer"), ({"train_images": 0}, "`train_images`.*at least 1"),
    ({"test_images": 0}, "`test_images` must be at least 1, not 0"), ({"annealed": "x"}, "`annealed` must be a number"),
    ({"augment": "flip"}, "`augment` must be a list of names, not 'flip'"),
    ({"sgd": Sgd(-0.1)}, "learning_rate.*-0.1"), ({"sgd": Sgd(math.nan)}, "learning_rate.*nan"),
    ({"sgd": Sgd(math.inf)}, "learning_rate.*inf"), ({"sgd": Sgd(1e39)}, r"learning_rate.*1e\+39"),
    ({"sgd": Sgd(0.1, momentum=-0.5)}, "momentum.*-0.5"), ({"sgd": Sgd(0.1, momentum=1.0)}, "momentum.*less than 1"),
    ({"sgd": Sgd(0.1, momentum=math.nan)}, "momentum.*nan"), ({"sgd": Sgd(0.1, weight_decay=-1e-9)}, "decay.*-1e-09"),
    ({"sgd": Sgd(0.1, weight_decay=math.inf)}, "weight_decay.*inf")])
def test_wrong_values_are_refused(change, message):
    """A damaged run.json can contain such values."""
    with pytest.raises(AlexnetMfError, match=message):
        replace(BOOK, **change)
