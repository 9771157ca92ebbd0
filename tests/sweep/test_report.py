"""Reports and pictures of sweeps."""

from __future__ import annotations

import json
import re

import pytest

from alexnet_mf.errors import SweepError
from alexnet_mf.instruments.records import plain
from alexnet_mf.sweep import plot, record
from alexnet_mf.sweep.report import report


def rows(summary, title: str) -> list[list[str]]:
    (table,) = [table for table in summary.tables if table.title.startswith(title)]
    return [table.columns, *table.rows]


def test_figures_are_means_over_the_seeds_with_the_spread(sweep):
    """The accuracy of lenet5 at 0.9 is 0.9 - 0.4 - 0.01 * seed, less 0.1 after one epoch and 0.05 after two."""
    summary = report(sweep(seeds=(0, 1, 3)).run())
    assert rows(summary, "after 2 epochs")[1:] == [
        ["lenet5", "none", "128", "0.9", "3", "0.437 (0.420 to 0.450)", "0.467", "0.500", "6,399.0", "128 MB"],
        ["lenet5-relu", "none", "128", "0.3", "3", "0.737 (0.720 to 0.750)", "0.767", "0.500", "6,399.0", "128 MB"]]
    assert rows(summary, "test accuracy by epoch") == [
        ["epoch", "lenet5", "lenet5-relu"],
        ["1", "0.387 (0.370 to 0.400)", "0.687 (0.670 to 0.700)"],
        ["2", "0.437 (0.420 to 0.450)", "0.737 (0.720 to 0.750)"]]
    assert not summary.failed
    assert summary.remarks == []
    assert any(line.startswith("numpy 1; float64 on cpu") for line in summary.conditions)
    assert "drawn for a test" in summary.conditions
    assert "alexnet-mf sweep" in summary.conditions


def test_the_choice_of_a_rate_is_shown(sweep, simulated):
    simulated.fails = lambda command: ({"failed": "diverged", "reason": "NaN"}
                                    if command["recipe"]["sgd"]["learning_rate"] == 0.1 else None)
    summary = report(sweep(nets=("lenet5",), learning_rates=(0.03, 0.1, 0.3), held_out=5000, choosing_epochs=1).run())
    table = rows(summary, "accuracy on 5,000 held-out training images by learning rate (*: chosen), seed 0, 1 ep")
    assert table == [["", "0.03", "0.1", "0.3"], ["lenet5", "0.765 *", "diverged", "0.700"]]
    assert summary.remarks == ["lenet5, lr 0.1, seed 0: diverged: NaN"]
    assert not summary.failed, "a diverging rate is not a failure"


def test_the_table_of_rates_lists_only_networks_that_choose_one(sweep):
    """The accuracy is 0.9 less half the rate's distance from 0.1, less 0.1 after one epoch."""
    summary = report(sweep(nets=("lenet5", "lenet5-relu", "alexnet-28"), learning_rates=(0.03, 0.1), held_out=5000,
                           learning_rates_of={"lenet5": (), "alexnet-28": (0.1, 0.3)}, choosing_epochs=1).run())
    assert rows(summary, "accuracy on 5,000 held-out training images") == [
        ["", "0.03", "0.1", "0.3"], ["lenet5-relu", "0.765", "0.800 *", ""], ["alexnet-28", "", "0.800 *", "0.700"]]
    assert [(row[0], row[3]) for row in rows(summary, "after 2 epochs")[1:]] == [
        ("lenet5", "0.9"), ("lenet5-relu", "0.1"), ("alexnet-28", "0.1")]


def test_the_picture_by_epoch_has_a_line_for_each_setup(sweep):
    summary = report(sweep(seeds=(0, 1), augments=((), ("flip",))).run())
    (panel,) = plot.draw(summary.outcomes).axes
    names = [text.get_text() for text in panel.get_legend().get_texts()]
    assert names == ["lenet5, none", "lenet5, flip", "lenet5-relu, none", "lenet5-relu, flip"]
    line = panel.containers[2][0]
    assert line.get_xdata().tolist() == [1, 2]
    assert line.get_ydata() == pytest.approx([0.695, 0.745])
    assert plot.png(summary.outcomes).startswith(b"\x89PNG")


def test_the_picture_by_batch_size_has_accuracy_throughput_and_memory(sweep):
    summary = report(sweep(nets=("lenet5-relu",), seeds=(0, 1), batch_sizes=(16, 32, 64)).run())
    accuracy, speed, memory = plot.draw(summary.outcomes).axes
    assert accuracy.containers[0][0].get_ydata() == pytest.approx([0.745] * 3)
    assert speed.containers[0][0].get_ydata() == pytest.approx([799.5, 1599.5, 3199.5])
    assert memory.containers[0][0].get_ydata() == pytest.approx([0.016, 0.032, 0.064])
    assert accuracy.get_xscale() == "log"


@pytest.mark.parametrize("damage, fragment", [
    (lambda record: record.pop("plan"), "missing required field `plan`"),
    (lambda record: record["trainings"][0]["training"].update(seed=-1), "trainings[0].training.seed: Expected `int`"),
    (lambda record: record["trainings"][0].pop("result"), "trainings[0].result: missing"),
    (lambda record: record["trainings"][0].update(result=None), "trainings[0]: needs either result or failed"),
    (lambda record: record["trainings"][0].update(failed="ended"), "trainings[0]: needs either result or failed"),
    (lambda record: record["plan"].update(epochs=0), "`epochs` must be at least 1"),
    (lambda record: record["networks"].pop("lenet5"), "it lacks the network lenet5"),
    (lambda record: record["trainings"][1]["result"]["epochs"].pop(), "trainings[1] does not have the 2 epochs"),
    (lambda record: record["trainings"][1]["training"].update(epochs=3), "trainings[1] does not have the 2 epochs"),
    (lambda record: record["networks"]["lenet5"].update(input=[1]), "damaged: networks: "),
    (lambda record: record.update(format=2), "its format is 2, this version reads 4"),
    (lambda record: record.update(kind="bench"), "not a record of sweep"),
])
def test_a_damaged_record_is_refused(sweep, tmp_path, damage, fragment):
    whole = sweep().run()
    values = plain(whole)
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    assert record.load(path) == whole
    damage(values)
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(SweepError, match=re.escape(fragment)) as caught:
        record.load(path)
    assert str(path) in str(caught.value)
