"""The plot of a training: its lines, in shades of gray."""

from __future__ import annotations

import pytest
from matplotlib.colors import to_rgb

from alexnet_mf.plots import curves


def lines(epochs: int, shift: float = 0.0) -> list[dict]:
    """Return the metrics of `epochs` epochs, each with two readings and an end."""
    entries: list[dict] = []
    for epoch in range(1, epochs + 1):
        for part in (0.5, 1.0):
            at = epoch - 1 + part
            entries.append({"kind": "step", "step": 10 * at, "epoch": epoch, "epochs": at, "loss": 2 / at + shift,
                          "train_accuracy": 1 - 1 / (1 + at), "images_per_second": None})
        entries.append({"kind": "epoch", "epoch": epoch, "loss": 2 / epoch, "train_accuracy": 0.5, "test_loss": 1.0,
                      "test_accuracy": epoch / 10})
    return entries


def test_one_run_is_drawn_as_in_the_chapter():
    figure = curves.draw({"run": lines(3)})
    (panel,) = figure.axes
    drawn = {line.get_label(): (line.get_xdata(), line.get_ydata()) for line in panel.lines}
    assert list(drawn) == ["train loss", "train accuracy", "test accuracy"]
    assert list(drawn["train loss"][0]) == [0.5, 1, 1.5, 2, 2.5, 3]
    assert drawn["train loss"][1][1] == 2
    assert list(drawn["test accuracy"][0]) == [1, 2, 3]
    assert list(drawn["test accuracy"][1]) == [0.1, 0.2, 0.3]
    assert panel.get_xlabel() == "epoch"
    assert panel.get_ylabel() == "loss (nats), accuracy (share of images)"


def test_several_runs_share_their_panels():
    figure = curves.draw({name: lines(2, shift) for name, shift in (("torch", 0), ("tensorflow", 1), ("mxnet", 2))})
    losses, accuracies = figure.axes
    assert [line.get_label() for line in losses.lines] == [f"{name}: train loss" for name in
                                                           ("torch", "tensorflow", "mxnet")]
    assert len(accuracies.lines) == 6
    assert (losses.get_ylabel(), accuracies.get_ylabel()) == ("loss (nats)", "accuracy (share of images)")
    assert [line.get_ydata()[-1] for line in losses.lines] == [1, 2, 3]


@pytest.mark.parametrize("runs", [1, 3, 8])
def test_no_color_is_needed(runs):
    """All lines are gray. No two lines of a panel share both dashes and marker. The first run is black."""
    figure = curves.draw({str(number): lines(2) for number in range(runs)})
    for panel in figure.axes:
        looks = [(line.get_linestyle(), line.get_marker()) for line in panel.lines]
        assert len(set(looks)) == len(looks)
        assert len({line.get_color() for line in panel.lines}) == runs and panel.lines[0].get_color() == "0.0"
        for line in panel.lines:
            red, green, blue = to_rgb(line.get_color())
            assert red == green == blue <= 0.65


def test_a_run_that_has_just_begun_is_drawn():
    assert curves.png({"run": lines(1)[:1]}).startswith(b"\x89PNG")
