"""Reports: their figures, and the conclusions that these support."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

from alexnet_mf import api
from alexnet_mf.bench import plot, report, run
from alexnet_mf.bench.record import Record
from alexnet_mf.bench.report import Report
from alexnet_mf.errors import AlexnetMfError, BenchError
from alexnet_mf.instruments.records import parse
from alexnet_mf.instruments.units import number_text


def make_report(values: list[dict[str, Any]]) -> Report:
    """Return the report on records given as JSON values."""
    return report.bench_report([parse(value, Record) for value in values])


def cell(summary: Report, name: str, phase: str, column: str) -> str:
    table = summary.tables[0]
    row = next(row for row in table.rows if (row[1], row[2]) == (phase, name))
    return row[table.columns.index(column)]


def set_rates(record: dict[str, Any], backend: str, phase: str, seconds: list[float],
              style: str = "alexnet_mf") -> None:
    """Set the seconds of the samples of a phase."""
    ids = [w["id"] for w in record["workers"] if (w["backend"], w["style"]) == (backend, style)]
    for result in record["results"]:
        if result["worker"] in ids and result["phase"] == phase:
            result["samples"] = [{"round": i, "at": float(i), "seconds": value, "calls": 1, "cpu_seconds": value}
                                 for i, value in enumerate(seconds)]


def scale(record: dict[str, Any], phase: str, factor: float, **fields: Any) -> None:
    """Make the samples of a phase longer in the workers that have these fields."""
    ids = [worker["id"] for worker in record["workers"] if fields.items() <= worker.items()]
    samples = [sample for result in record["results"] if result["worker"] in ids and result["phase"] == phase
               for sample in result["samples"]]
    assert samples
    for sample in samples:
        sample["seconds"] *= factor


@pytest.fixture
def record(measured) -> dict[str, Any]:
    """Record of steps of 4 s in our style and 8 s in the book's. An epoch consists of steps; input takes 1/16."""
    return measured(rounds=7)


def test_records_and_their_files_give_the_same_report(record, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    assert api.bench_report([tmp_path / "run.json", str(tmp_path / "run.json")]) == make_report([record, record])
    for records, message in (([], "`records` must have at least one item"), ("run.json", "`records` must be a list"),
                             ([3], "`records` must not contain 3")):
        with pytest.raises(AlexnetMfError, match=message):
            api.bench_report(records)


def test_rates_and_their_ratio_to_the_book_are_reported(record):
    summary = make_report([record])
    assert cell(summary, "torch float32", "step", "images/s") == "1 [1, 1]"
    assert cell(summary, "torch book", "step", "images/s") == "0.5 [0.5, 0.5]"
    assert cell(summary, "torch float32", "step", "vs. the book's style") == "2.00x [2.00, 2.00]"
    assert cell(summary, "torch float32", "forward", "vs. the book's style") == "2.00x [2.00, 2.00]"
    assert cell(summary, "torch book", "step", "vs. the book's style") == ""
    assert cell(summary, "torch float32", "epoch", "vs. the book's style") == ""


def test_rates_are_reported_as_shares_of_the_ceilings(record, find):
    """A share is FLOP/s over the matrix product's or bytes/s over the copy's, both measured by the same backend."""
    summary = make_report([record])
    work = find(record, "torch", "step")["work"]["flops"]
    share = f"{100 * work / 4 / 2**40:.2g}"
    assert cell(summary, "torch float32", "step", "share of the ceiling") == (
        f"{share} % [{share}, {share}] of matrix product")
    moved = find(record, "torch", "input")["work"]["bytes"]
    assert cell(summary, "torch float32", "input", "share of the ceiling").startswith(
        f"{100 * (moved / 0.25) / (2**30 / 0.5):.2g} % [")
    assert cell(summary, "torch float32", "optimizer", "share of the ceiling").endswith("of copy")
    assert cell(summary, "torch book", "step", "share of the ceiling").startswith(f"{100 * work / 8 / 2**40:.2g} % [")


def test_the_ceiling_is_the_fastest_of_the_run(measured, fake, find):
    """The matrix product of torch is half as fast as mxnet's. Ceilings are shared within one precision only."""
    fake["torch"].seconds = {**fake["torch"].seconds, "matrix product": 2 * fake["torch"].seconds["matrix product"]}
    record = measured(rounds=7)
    own, best = (find(record, name, "matrix product")["samples"][0] for name in ("torch", "mxnet"))
    assert own["seconds"] / own["calls"] == 2 * best["seconds"] / best["calls"]
    summary = make_report([record])
    rows = {(row.label, row.phase): row for row in summary.rows}
    row, other = rows["torch float32", "step"], rows["mxnet float32", "step"]
    assert row.ceiling == "mxnet's matrix product" and other.ceiling == "matrix product"
    assert row.share.median == other.share.median == row.own_share.median / 2
    assert other.own_share is None
    assert rows["torch book", "step"].own_share.median == 2 * rows["torch book", "step"].share.median
    assert "% [" in (text := cell(summary, "torch float32", "step", "share of the ceiling"))
    assert " of mxnet's matrix product (" in text and text.endswith("of its own)")
    for worker in record["workers"]:
        if worker["backend"] == "mxnet":
            worker["precision"] = "bfloat16"
    assert {row.own_share for row in make_report([record]).rows} == {None}


def test_a_step_beside_busy_processes_is_reported(measured, fake, monkeypatch):
    """Busy processes slow torch to a quarter and mxnet not at all. They run only during the samples of this phase."""
    counts = []

    @contextmanager
    def busy(count: int) -> Iterator[None]:
        counts.append(count)
        fake["torch"].seconds["step"] *= 4 if count else 1
        yield
        fake["torch"].seconds["step"] /= 4 if count else 1

    monkeypatch.setattr(run, "busy_processes", busy)
    summary = make_report([measured(rounds=6, beside=3, phases=("step",))])
    assert cell(summary, "torch float32", "beside 3", "images/s") == "0.25 [0.25, 0.25]"
    assert cell(summary, "mxnet float32", "beside 3", "images/s") == cell(summary, "mxnet float32", "step", "images/s")
    line = "step beside 3 busy processes, batch 4: torch float32 trains at 25 % [25, 25] of its speed "
    assert f"{line}without them" in summary.conclusions
    assert "beside, batch 4: mxnet float32 is faster than torch float32, 4.00x [4.00, 4.00]" in summary.conclusions
    assert "beside: 3 busy processes of one thread each" in summary.conditions
    assert counts.count(3) == 6 * 4 and set(counts) == {0, 3}, "two styles of two backends"
    assert not [row for row in make_report([measured(rounds=1)]).rows if row.phase == "beside"]


def test_steps_beside_different_loads_are_not_ranked(measured, monkeypatch):
    monkeypatch.setattr(run, "busy_processes", lambda count: nullcontext())
    summary = make_report([measured(("torch",), rounds=6, beside=number, phases=("step",)) for number in (1, 2)])
    assert "beside, batch 4: not ranked where these differ: busy processes (1, 2)" in summary.conclusions
    assert not [line for line in summary.conclusions if line.startswith("beside, batch 4:") and "torch" in line]


def test_the_ceiling_of_a_variant_is_not_shared(measured):
    """The fastest of many variants may be fast by chance."""
    record = measured(("torch", "mxnet"), rounds=6, ablate=("compile",), book=False)
    scale(record, "matrix product", 0.5, backend="mxnet", speed={"compile": False})
    steps = [row for row in make_report([record]).rows if row.phase == "step"]
    assert {row.ceiling for row in steps} == {"matrix product"}
    plain, variant = (row.share.median for row in steps if row.worker.backend == "mxnet")
    assert variant == plain / 2, "its own ceiling is faster"


def test_the_energy_of_an_image_is_reported(record, find):
    assert "J/image" not in make_report([record]).tables[0].columns
    for sample, joules in zip(find(record, "torch", "step")["samples"], (1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 1.0)):
        sample["joules"] = joules * sample["calls"]
    find(record, "torch", "forward")["samples"][0]["joules"] = 1.0
    find(record, "torch", "epoch")["samples"] = [{**sample, "joules": 1.0}
                                                 for sample in find(record, "torch", "epoch")["samples"]]
    summary = make_report([record])
    assert cell(summary, "torch float32", "step", "J/image") == "0.25", "7 J in all samples, seven times four images"
    for phase in ("forward", "epoch"):
        assert cell(summary, "torch float32", phase, "J/image") == ""
    assert summary.tables[0].columns[-1] == "J/image"


def test_shares_of_several_runs_are_not_compared(record):
    line = "each run has its own ceiling: do not compare shares across runs"
    assert line in make_report([record, record]).conclusions and line not in make_report([record]).conclusions


def test_ratios_are_taken_round_by_round(record):
    """The machine is ten times slower in every other round."""
    slowdowns = [1.0, 10.0] * 3 + [1.0]
    set_rates(record, "torch", "step", [4.0 * slowdown for slowdown in slowdowns])
    set_rates(record, "torch", "step", [6.0 * slowdown for slowdown in slowdowns], "book")
    summary = make_report([record])
    assert cell(summary, "torch float32", "step", "vs. the book's style") == "1.50x [1.50, 1.50]"
    assert cell(summary, "torch float32", "step", "images/s") == "1 [0.1, 1]"


def test_the_second_table_shows_the_parts_of_a_step(record):
    table = make_report([record]).tables[1]
    row = dict(zip(table.columns, table.rows[0]))
    assert (row["backend"], row["batch"]) == ("torch float32", "4")
    assert row["input in a step"] == "6.2 % [6.2, 6.2]"
    assert row["steps in an epoch"] == "100.0 % [100.0, 100.0]"
    assert row["matrix product"] == "1,100 GFLOP/s [1,100, 1,100]"
    assert row["copy"] == "2.15 GB/s [2.15, 2.15]"
    assert len(table.rows) == 2, "the book's style has no ceilings"


def test_first_call_peak_memory_and_spread_are_reported(record, find):
    result = find(record, "torch", "step")
    result |= {"first_call_seconds": 12.345, "peak_memory_bytes": 2_345_000_000}
    find(record, "torch", "step", "book")["peak_memory_bytes"] = 2_000_000_000
    set_rates(record, "torch", "step", [4.0, 4.0, 5.0, 4.0, 4.0, 8.0, 2.0])
    summary = make_report([record])
    assert cell(summary, "torch float32", "step", "first call") == "12.3 s"
    assert cell(summary, "torch float32", "step", "peak memory (process; vs. the book's)") == "2.35 GB (1.17x)"
    assert cell(summary, "torch book", "step", "peak memory (process; vs. the book's)") == "2.00 GB"
    assert cell(summary, "torch float32", "step", "spread") == "10 %"
    result["peak_device_memory_bytes"] = 5_000_000
    column = "peak memory (process/device; vs. the book's)"
    assert cell(make_report([record]), "torch float32", "step", column) == "5.00 MB", "not compared with a process"


def test_without_enough_rounds_there_is_no_interval(measured):
    summary = make_report([measured(rounds=3)])
    assert cell(summary, "torch float32", "step", "images/s") == "1 (n = 3)"
    assert cell(summary, "torch float32", "step", "vs. the book's style") == "2.00x (n = 3)"
    assert "step, batch 4: torch float32 and mxnet float32: not ranked, an interval needs 6 rounds" \
        in summary.conclusions


# Ranking


def test_faster_is_concluded_only_from_separate_intervals(record):
    set_rates(record, "torch", "step", [4.0, 4.1, 4.2, 4.3, 4.2, 4.1, 4.0])
    set_rates(record, "mxnet", "step", [5.0, 5.1, 5.2, 5.3, 5.2, 5.1, 5.0])
    set_rates(record, "torch", "forward", [4.0, 4.1, 4.2, 5.3, 4.2, 4.1, 4.0])
    set_rates(record, "mxnet", "forward", [5.0, 5.1, 5.2, 5.3, 5.2, 5.1, 5.0])
    conclusions = make_report([record]).conclusions
    assert "step, batch 4: torch float32 is faster than mxnet float32, 1.24x [1.23, 1.25]" in conclusions
    assert "forward, batch 4: torch float32 and mxnet float32: no difference seen" in conclusions
    assert "epoch, batch 4: torch float32 and mxnet float32: no difference seen" in conclusions
    assert not [line for line in conclusions if line.startswith(("input", "optimizer")) or "book" in line]


@pytest.mark.parametrize("field, value, difference", [
    ("precision", "bfloat16", "precision (bfloat16, float32)"), ("spec_sha256", "other", "spec (")])
def test_different_conditions_are_not_ranked(record, field, value, difference):
    record["workers"][2][field] = value
    record["networks"]["other"] = {"name": "other"}
    conclusions = make_report([record]).conclusions
    assert any(line.startswith(f"step, batch 4: not ranked where these differ: {difference}") for line in conclusions)
    assert not [line for line in conclusions if "faster" in line or "no difference" in line]


def other_machine(record: dict[str, Any]) -> dict[str, Any]:
    other = copy.deepcopy(record)
    other["conditions"]["cpu"] = "Another CPU"
    set_rates(other, "torch", "step", [1.0] * 7)
    return other


def test_other_machines_are_not_ranked(record):
    summary = make_report([record, other_machine(record)])
    assert cell(summary, "B: torch float32", "step", "images/s") == "4 [4, 4]"
    line = next(line for line in summary.conclusions if line.startswith("step, batch 4: not ranked"))
    assert "differ: device (cpu, " in line and "cpu, Another CPU, " in line
    assert "step, batch 4: B: torch float32 is faster than B: mxnet float32, 4.00x [4.00, 4.00]" in summary.conclusions
    assert not [line for line in summary.conclusions if "A: torch float32 is faster than B" in line
                or "B: torch float32 is faster than A" in line]


def test_separate_runs_of_one_machine_are_ranked_and_marked(record):
    other = copy.deepcopy(record)
    set_rates(other, "torch", "step", [1.0] * 7)
    assert "step, batch 4: B: torch float32 is faster than A: torch float32, in separate runs" in make_report(
        [record, other]).conclusions


def test_gpus_of_the_same_model_count_as_one_device(record):
    for worker, name in zip(record["workers"], ("cuda:0", "cuda:0", "cuda:1", "cuda:1")):
        worker |= {"device": name, "description": "H100"}
    assert [line for line in make_report([record]).conclusions if "no difference seen" in line]
    record["workers"][2]["description"] = "V100"
    conclusions = make_report([record]).conclusions
    assert "step, batch 4: not ranked where these differ: device (cuda, H100, cuda, V100)" in conclusions


# Settings, failures, remarks


def test_the_gain_of_a_setting_is_reported(measured):
    record = measured(("torch",), ablate=("compile",), rounds=7)
    scale(record, "step", 1.5, speed={"compile": False})
    summary = make_report([record])
    assert "step, batch 4: torch float32 runs at 1.50x [1.50, 1.50] its speed without compile" in summary.conclusions
    assert ("forward, batch 4: torch float32 runs at 1.00x [1.00, 1.00] its speed without compile: no difference seen"
            in summary.conclusions)
    assert not [line for line in summary.conclusions if "faster" in line], "a backend is not ranked against itself"
    assert cell(summary, "torch float32 -compile", "step", "vs. the book's style") == "1.33x [1.33, 1.33]"


def test_the_gain_of_a_tried_setting_is_reported(measured):
    record = measured(("torch",), tried=("compile+fused",), rounds=7)
    scale(record, "step", 0.5, speed={"compile": True, "fused": True})
    assert ("step, batch 4: torch float32 with compile and fused runs at 2.00x [2.00, 2.00] its speed without"
            in make_report([record]).conclusions)


def test_failures_and_an_early_end_are_reported(record):
    record["failures"] = [{"backend": "tensorflow", "style": "alexnet_mf", "precision": "tf32", "speed": {},
                           "batch_size": 4, "phase": "start", "reason": "no tf32 on cpu"}]
    record["complete"] = False
    conclusions = make_report([record]).conclusions
    assert "tensorflow alexnet_mf tf32, batch 4, start failed: no tf32 on cpu" in conclusions
    assert "stopped early: only the samples until then are shown" in conclusions


def test_figures_that_may_be_too_low_are_marked(record, find):
    find(record, "torch", "step")["steady"] = False
    summary = make_report([record])
    assert cell(summary, "torch float32", "step", "images/s") == "1 [1, 1] *"
    assert [line for line in summary.conclusions if line.startswith("* still getting faster")]


def test_a_rate_above_the_ceiling_is_remarked(record, find):
    find(record, "torch", "forward")["work"]["flops"] = 2.0**41
    assert [line for line in make_report([record]).conclusions if "faster than the matrix product" in line
            and "torch float32 forward" in line]


def test_a_phase_without_samples_is_left_out(record, find):
    find(record, "torch", "step")["samples"] = []
    assert not [row for row in make_report([record]).rows if (row.label, row.phase) == ("torch float32", "step")]
    for result in record["results"]:
        result["samples"] = []
    assert make_report([record]).rows == []


def test_conditions_are_listed(record):
    text = "\n".join(make_report([record]).conditions)
    for part in (record["conditions"]["cpu"], "fake 1.0", "small (", "7 rounds, seed 0", "alexnet-mf bench",
                 "revision"):
        assert part in text


def test_runs_have_letters():
    assert [report.letters(i) for i in (0, 1, 25, 26, 27, 52)] == ["A", "B", "Z", "AA", "AB", "BA"]


@pytest.mark.parametrize("value, text", [(12345.6, "12,346"), (123.45, "123.5"), (45.14, "45.1"), (4.567, "4.57"),
                                         (0.01234, "0.0123")])
def test_numbers_are_rounded(value, text):
    assert number_text(value) == text


# Markdown and plot


def test_markdown_is_a_table(record):
    record["conditions"]["command"] = ["alexnet-mf", "bench", "a|b"]
    text = make_report([record, other_machine(record)]).markdown()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    widths = {line.replace("\\|", "").count("|") for line in lines}
    assert widths == {10, 9}
    assert "| 4 | step | B: torch float32 | 4 [4, 4] |" in text
    assert text.endswith("\n") and "\n\n\n" not in text


def panel_texts(figure: Any) -> list[str]:
    return [panel.get_title(loc="left") for panel in figure.axes]


def test_the_plot_has_a_panel_for_each_phase_and_batch_size(measured):
    figure = plot.draw(make_report([measured(("torch",), batch_sizes=(4, 8), rounds=6)]).rows)
    assert panel_texts(figure) == ["forward, batch 4", "forward, batch 8", "step, batch 4", "step, batch 8",
                                   "epoch, batch 4", "epoch, batch 8"]
    for panel in figure.axes:
        assert panel.get_xlabel() == "images/s"
        assert panel.get_xlim()[0] == 0
    assert [text.get_text() for text in figure.axes[2].get_yticklabels()] == ["torch float32", "torch book"]


def test_the_plot_shows_the_interval_and_every_sample(record):
    set_rates(record, "torch", "step", [4.0, 4.0, 5.0, 4.0, 4.0, 8.0, 2.0])
    panel = plot.draw(make_report([record]).rows).axes[1]
    lines = [(list(line.get_xdata()), line.get_linestyle()) for line in panel.lines]
    assert ([0.5, 2.0], "-") in lines
    assert [1.0] in [xs for xs, _ in lines]
    assert sorted([1.0, 1.0, 0.8, 1.0, 1.0, 0.5, 2.0]) in [sorted(xs) for xs, _ in lines]


@pytest.mark.parametrize("rounds, title", [(6, "medians with their 95 % intervals"),
                                           (5, "medians without intervals: a 95 % interval needs 6 samples")])
def test_table_and_plot_mention_intervals_only_if_there_are_any(measured, rounds, title):
    summary = make_report([measured(("torch",), rounds=rounds)])
    assert summary.tables[0].title == title
    assert plot.draw(summary.rows).texts[0].get_text().startswith(f"{title}; dots: samples;")


def test_the_plot_needs_no_color(record):
    """Every pixel of the plot is a shade of gray."""
    image = io.BytesIO()
    figure = plot.draw(make_report([record]).rows)
    figure.savefig(image, format="rgba", dpi=50)
    pixels = memoryview(image.getvalue())
    assert pixels[0::4] == pixels[1::4] == pixels[2::4]


def test_without_results_there_is_no_plot():
    with pytest.raises(BenchError, match="no results to draw"):
        plot.png([])


def test_only_the_phases_that_were_measured_are_drawn(measured):
    summary = make_report([measured(("torch",), phases=("input",), rounds=6)])
    assert panel_texts(plot.draw(summary.rows)) == ["input, batch 4"]
