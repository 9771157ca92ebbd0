"""`analyze`: what a network costs, which part dominates, and how near a device comes to its limits."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from alexnet_mf import backends
from alexnet_mf.analysis import words
from alexnet_mf.analysis.costs import Costs, LayerCost, Work, costs
from alexnet_mf.analysis.measure import ROUNDS, SAMPLE_SECONDS, TOLERANCE, Measured, default_precision, measure
from alexnet_mf.analysis.peak import Peak, predicted_peak
from alexnet_mf.analysis.record import as_json
from alexnet_mf.analysis.roofline import layer_times, predictions
from alexnet_mf.bench.plan import ITEM_BYTES
from alexnet_mf.cli import output
from alexnet_mf.cli.arguments import add_json, add_network, at_least_one, first_installed, given_flags
from alexnet_mf.cli.bench import positive
from alexnet_mf.errors import AlexnetMfError, BackendUnavailable, OutOfMemory
from alexnet_mf.instruments import machine
from alexnet_mf.instruments.statistics import title_of_medians
from alexnet_mf.instruments.units import estimate_text
from alexnet_mf.spec.toml import find_network
from alexnet_mf.training.memory import check_fits_machine
from alexnet_mf.training.recipe import RECIPES, Recipe, for_network

ONLY_MEASURED = ("device", "rounds", "sample_seconds")
"""Flags of what is measured."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its flags."""
    add = parser.add_argument
    add("--backend", choices=list(backends.BACKENDS),
        help="what to measure (default: the first that is installed of torch, tensorflow, mxnet)")
    add_network(parser)
    add("--batch-size", type=at_least_one, metavar="N", help="images in a batch (default: the recipe's)")
    add("--recipe", choices=list(RECIPES), default="quick",
        help="whose batch size and momentum; with momentum the optimizer keeps a velocity (default: quick)")
    add("--measure", action=argparse.BooleanOptionalAction, default=True,
        help="measure ceilings, times and memory too; without it only the arithmetic, at once and without any "
             "framework (default: measure)")
    add("--rounds", type=at_least_one, default=ROUNDS, metavar="N",
        help=f"samples of each time; intervals take 6 (default: {ROUNDS})")
    add("--sample-seconds", type=positive, default=SAMPLE_SECONDS, metavar="S",
        help=f"the least length of a sample in seconds (default: {SAMPLE_SECONDS})")
    add("--plot", metavar="FILE", help="draw the roofline as PNG; takes matplotlib")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Carry it out; the exit code."""
    drawing = importer(options) if options.plot else None
    if not options.measure:
        check_measures(options)
    backend = options.backend or (backend_to_measure() if options.measure else "torch")
    network = find_network(options.net)
    recipe = for_network(RECIPES[options.recipe], network)
    found = costs(network, options.batch_size or recipe.batch_size, ITEM_BYTES[default_precision(backend)],
                  recipe.sgd.momentum > 0)
    peak = predicted_peak(found)
    quiet = options.json == "-"
    if not quiet:
        show_costs(found, recipe)
        for line in words.conclusions(found):
            output.say(f"\n{line}")
        output.say(f"\nPredicted peak of a training step, tensors alone, as PyTorch makes and frees them: "
                   f"{words.size(peak.bytes)}, at {peak.moment}.")
    measured = None
    if options.measure:
        if options.device == "cpu" or not machine.gpus():
            try:
                check_fits_machine(network, found.batch_size, found.item_bytes)
            except OutOfMemory as error:
                raise OutOfMemory(f"{error}; --no-measure needs none") from error
        measured = measure(network, backend, options.device, found.batch_size, recipe.sgd.momentum,
                           rounds=options.rounds, sample_seconds=options.sample_seconds,
                           command=["alexnet-mf", *options.words], tell=tell)
        if not quiet:
            show_measured(found, peak, measured)
    if drawing and measured:
        title = f"{network.name}, {measured.backend} {measured.precision} on {where(measured)}"
        seconds = {phase: estimate.median for phase, estimate in measured.seconds.items()}
        output.write_picture(options.plot, drawing.png(found, measured.ceilings, seconds, title))
    if options.json:
        output.write_json(options.json, as_json(found, recipe, peak, measured))
    if measured and not measured.memory.holds(peak.bytes):
        output.notice(f"the prediction of memory does not hold: it is off by more than {words.percent(TOLERANCE)}")
        return 1
    return 0


def importer(options: argparse.Namespace) -> Any:
    """What draws, checked before the work.

    Raises:
        AlexnetMfError: where there will be nothing to draw, or nothing to draw it with.
    """
    if not options.measure:
        raise AlexnetMfError("--plot draws the roofline, and its ceilings are measured: leave out --no-measure")
    return output.drawing("alexnet_mf.analysis.plot", "--plot")


def backend_to_measure() -> str:
    """The first that is installed.

    Raises:
        BackendUnavailable: where none is; says how to do without.
    """
    try:
        return first_installed()
    except BackendUnavailable as error:
        raise BackendUnavailable(f"{error}; --no-measure takes none") from error


def check_measures(options: argparse.Namespace) -> None:
    """Refuse what only a measurement has a use for, where there is none.

    Raises:
        AlexnetMfError: names the flag.
    """
    for name in given_flags(add_arguments, options.words[1:]):
        if name in ONLY_MEASURED:
            raise AlexnetMfError(f"--no-measure measures nothing: leave out --{name.replace('_', '-')}")


def tell(line: str) -> None:
    """What goes on, for those who wait."""
    if sys.stderr.isatty():
        output.notice(line)


# Tables


def show_costs(found: Costs, recipe: Recipe) -> None:
    """What each layer holds, and what it does."""
    with_momentum = "with" if found.momentum else "without"
    title = (f"{found.network.name}, batch {found.batch_size}, {found.item_bytes} bytes a number, SGD {with_momentum} "
             f"momentum (recipe {recipe.name})")
    kept = [layer.held for layer in found.layers]
    rows = [[layer.name, output.shape_text(layer.output), *held_cells(layer, found.held)] for layer in found.layers]
    sums = [sum(getattr(held, field) for held in kept) for field in
            ("weights", "weight_gradients", "optimizer", "activations")]
    rows.append(["total", "", f"{sum(layer.parameters for layer in found.layers):,}", *map(cell, sums),
                 cell(sum(layer.activation_gradients for layer in found.layers)),
                 cell(sum(held.auxiliary for held in kept)), "100 %"])
    output.table(["layer", "output", "parameters", "weights", "gradients", "optimizer", "activations", "gradients *",
                  "beside **", "share"], rows, right=range(2, 10), title=title)
    output.say("* of activations: they come and go layer by layer, and are not in the share")
    output.say("** kept for backward too: PyTorch's positions of maxima, dropout masks, parts of a normalisation\n")
    rows = [[layer.name, *work_cells(layer.forward, found.forward), *work_cells(layer.training, found.training)]
            for layer in found.layers]
    rows.append(["total", *work_cells(found.forward, found.forward), *work_cells(found.training, found.training)])
    output.table(["layer", "forward MAC", "share", "traffic", "share", "FLOP/byte", "training MAC", "share", "traffic",
                  "share", "FLOP/byte"], rows, right=range(1, 11),
                 title="multiply-accumulates (MAC), least memory traffic, and arithmetic intensity")


def held_cells(layer: LayerCost, whole: int) -> list[str]:
    """A layer's part of the first table."""
    held = layer.held
    return [output.count_text(layer.parameters), *map(cell, (
        held.weights, held.weight_gradients, held.optimizer, held.activations, layer.activation_gradients,
        held.auxiliary)), share(held.total, whole)]


def work_cells(work: Work, whole: Work) -> list[str]:
    """A layer's half of the second table."""
    return [words.rate(work.macs, "").rstrip() if work.macs else "", share(work.macs, whole.macs), cell(work.traffic),
            share(work.traffic, whole.traffic), words.number(work.intensity) if work.macs else ""]


def cell(count: int) -> str:
    """Bytes; nothing for none."""
    return words.size(count) if count else ""


def share(part: float, whole: float) -> str:
    """Of the whole; nothing for none."""
    return words.percent(part / whole) if part else ""


def show_measured(found: Costs, peak: Peak, measured: Measured) -> None:
    """The roofline as a table, and each prediction beside what was measured."""
    ceilings = measured.ceilings
    rows = []
    for layer in found.layers:
        times, training = layer_times(layer, ceilings), layer.training
        if not training.traffic:
            continue
        rows.append([layer.name, *attained(layer.forward, times.forward, measured),
                     *attained(training, times.training, measured), share(times.training, predictions(
                         found, ceilings)["step"])])
    output.say()
    output.table(["layer", "forward: FLOP/byte", "GFLOP/s at most", "limit", "predicted", "training: FLOP/byte",
                  "GFLOP/s at most", "limit", "predicted", "share of step"], rows, right=(1, 2, 4, 5, 6, 8, 9),
                 title=f"roofline: {words.rate(ceilings.flops, 'FLOP/s')}, {words.rate(ceilings.bandwidth, 'B/s')} "
                       f"({measured.backend} {measured.precision} on {where(measured)})")
    for line in words.bandwidth(found, ceilings):
        output.say(f"\n{line}")
    output.say()
    predicted = predictions(found, ceilings)
    output.table(["on a batch", "predicted", "measured", "measured / predicted"], [
        [phase, words.seconds(expected), estimate_text(measured.seconds[phase], words.seconds),
         f"{measured.seconds[phase].median / expected:.2f}"] for phase, expected in predicted.items()], right=(1, 3),
        title=f"times, {counted(measured.seconds['step'].n)}, {title_of_medians(measured.seconds.values())}")
    output.say(f"\n{memory_line(peak, measured)}")
    versions = ", ".join(f"{name} {version}" for name, version in measured.versions.items())
    output.say(f"{versions}, Python {measured.conditions['python']}, {processor(measured)}{load(measured)}")


def load(measured: Measured) -> str:
    """What else the machine was doing, as far as it tells."""
    found = measured.conditions["load_before"]
    return f", load {found[0]:.1f}, this included" if found else ""


def attained(work: Work, seconds: float, measured: Measured) -> list[str]:
    """Half a row of the roofline."""
    if not work.traffic:
        return ["", "", "", ""]
    attainable = measured.ceilings.attainable(work.intensity) / 1e9
    return [words.number(work.intensity) if work.macs else "", words.number(attainable) if work.macs else "",
            measured.ceilings.limit(work), words.seconds(seconds)]


def memory_line(peak: Peak, measured: Measured) -> str:
    """The predicted peak beside what was measured."""
    memory = measured.memory
    off = memory.off(peak.bytes)
    if memory.allocator is not None and off is not None:
        return (f"Memory: predicted peak {words.size(peak.bytes)}, the allocator's, workspaces apart, "
                f"{words.size(memory.allocator)}: {100 * off:+.1f} %")
    if memory.process is None or memory.imported is None:
        return f"Memory: predicted peak {words.size(peak.bytes)}; this system does not tell what a process held"
    return (f"Memory: predicted peak {words.size(peak.bytes)} of tensors; the process held at most "
            f"{words.size(memory.process)}, of it {words.size(memory.imported)} with {measured.backend} alone: "
            f"{words.size(memory.process - memory.imported)} more")


def where(measured: Measured) -> str:
    """The device, as a reader knows it."""
    if measured.device == "cpu":
        return processor(measured)
    return f"{measured.device}, {measured.description}"


def processor(measured: Measured) -> str:
    """The processor, and how much of it computed: AMD EPYC, 1 thread on 2 cores."""
    cores = f"{measured.conditions['usable_cores'] or '?'} cores"
    threads = "" if measured.threads is None else f"{measured.threads} thread{'s' * (measured.threads != 1)} on "
    return f"{measured.conditions['cpu']}, {threads}{cores}"


def counted(n: int) -> str:
    """6 samples."""
    return f"{n} sample{'s' * (n != 1)}"
