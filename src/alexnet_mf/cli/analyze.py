"""`analyze`: compute the cost of each layer, and measure how near a device comes to its limits."""

from __future__ import annotations

import argparse

from alexnet_mf import api, backends
from alexnet_mf.analysis import sentences
from alexnet_mf.analysis.costs import Costs, Work
from alexnet_mf.analysis.measure import ROUNDS, SAMPLE_SECONDS, TOLERANCE, Measured
from alexnet_mf.analysis.peak import Peak
from alexnet_mf.analysis.record import json_schema
from alexnet_mf.analysis.roofline import layer_times, predictions
from alexnet_mf.analysis.run import Analysis
from alexnet_mf.cli import arguments, output
from alexnet_mf.cli.flags import add_schema
from alexnet_mf.errors import AlexnetMfError
from alexnet_mf.instruments import units
from alexnet_mf.instruments.records import plain
from alexnet_mf.instruments.statistics import title_of_medians
from alexnet_mf.plots import Picture
from alexnet_mf.training.recipe import RECIPES, Recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's flags."""
    add = parser.add_argument
    add("--backend", choices=list(backends.BACKENDS),
        help="framework to measure (default: the first installed of torch, tensorflow, mxnet)")
    arguments.add_network(parser)
    parser.set_defaults(device=None)
    add("--batch-size", type=arguments.at_least_one, metavar="N", help="images in a batch (default: the recipe's)")
    add("--recipe", choices=list(RECIPES), default="quick",
        help="recipe that sets batch size and momentum; momentum needs memory for a velocity (default: quick, "
             "which is book for small networks)")
    add("--measure", action=argparse.BooleanOptionalAction, default=True,
        help="also measure ceilings, times and memory; --no-measure needs no framework, and only computes (default: "
             "measure)")
    add("--rounds", type=arguments.at_least_one, metavar="N",
        help=f"samples of each time (default: the {ROUNDS} that a confidence interval needs)")
    add("--sample-seconds", type=arguments.positive, metavar="S",
        help=f"shortest length of a sample, in seconds (default: {SAMPLE_SECONDS} s)")
    add("--data", metavar="NAME|PATH",
        help="images whose classes and channels the network gets, as for `train --data` (default: the network's own)")
    arguments.add_data_options(parser, prepares=False)
    add("--plot", metavar="FILE", help="draw the roofline as PNG; needs matplotlib")
    arguments.add_json(parser)
    add_schema(parser, json_schema)


def run(options: argparse.Namespace) -> int:
    """Analyze, and return the exit code."""
    if options.plot and not options.measure:
        raise AlexnetMfError("--plot draws measured ceilings; leave out --no-measure")
    picture = Picture(options.plot, "alexnet_mf.analysis.plot") if options.plot else None
    quiet = options.json == "-"

    def show(analysis: Analysis) -> None:
        if not quiet:
            show_costs(analysis.costs, analysis.recipe)
            for line in sentences.conclusions(analysis.costs):
                output.say(f"\n{line}")
            output.say(f"\nPredicted peak of a training step (tensors only, as PyTorch allocates and frees them): "
                       f"{units.bytes_text(analysis.peak.bytes)}, at {analysis.peak.moment}.")

    analysis = api.analyze(options.net, options.backend, batch_size=options.batch_size, recipe=options.recipe,
                           measure=options.measure, device=options.device, rounds=options.rounds,
                           sample_seconds=options.sample_seconds, data=arguments.data_source(options),
                           command=options.command,
                           report_progress=output.show_progress, report_costs=show)
    measured = analysis.measured
    if measured and not quiet:
        show_measured(analysis.costs, analysis.peak, measured)
    if picture and measured:
        title = f"{analysis.costs.network.name}, {measured.backend} {measured.precision} on {where(measured)}"
        seconds = {phase: estimate.median for phase, estimate in measured.seconds.items()}
        picture.save(picture.module.png(analysis.costs, measured.ceilings, seconds, title))
    if options.json:
        output.write_json(options.json, plain(analysis.record()))
    if not analysis.holds:
        output.notice(f"the predicted memory is off by more than {units.percent_text(TOLERANCE)}")
        return 1
    return 0


# Tables


def show_costs(costs: Costs, recipe: Recipe) -> None:
    """Print each layer's memory and work."""
    with_momentum = "with" if costs.momentum else "without"
    title = (f"{costs.network.name}, batch {costs.batch_size}, {costs.item_bytes} bytes per number, SGD "
             f"{with_momentum} momentum (recipe {recipe.name})")
    amounts = [(layer.stored.weights, layer.stored.weight_gradients, layer.stored.optimizer, layer.stored.activations,
                layer.activation_gradients, layer.stored.auxiliary) for layer in costs.layers]
    rows = [[layer.name, output.shape_text(layer.output), output.count_text(layer.parameters), *map(cell, sizes),
             share(layer.stored.total, costs.stored)] for layer, sizes in zip(costs.layers, amounts)]
    rows.append(["total", "", f"{sum(layer.parameters for layer in costs.layers):,}",
                 *(cell(sum(column)) for column in zip(*amounts)), "100 %"])
    output.table(["layer", "output", "parameters", "weights", "weight gradients", "velocity", "activations",
                  "activation gradients *", "other **", "share"], rows, right=range(2, 10), title=title)
    output.say("* allocated and freed layer by layer, not counted in the share of memory")
    output.say("** stored for backward: PyTorch's positions of maxima, dropout masks, inputs of GELU, parts of "
               "normalization\n")
    rows = [[layer.name, *work_cells(layer.forward, costs.forward), *work_cells(layer.training, costs.training)]
            for layer in costs.layers]
    rows.append(["total", *work_cells(costs.forward, costs.forward), *work_cells(costs.training, costs.training)])
    output.table(["layer", "forward MAC", "share", "traffic", "share", "FLOP/byte", "training MAC", "share", "traffic",
                  "share", "FLOP/byte"], rows, right=range(1, 11),
                 title="multiply-accumulates (MAC), least memory traffic, and arithmetic intensity")


def work_cells(work: Work, whole: Work) -> list[str]:
    """Return a layer's cells in the second table, for forward or training."""
    macs, intensity = units.rate_text(work.macs, "").rstrip(), units.three_digits(work.intensity)
    return [macs if work.macs else "", share(work.macs, whole.macs), cell(work.traffic),
            share(work.traffic, whole.traffic), intensity if work.macs else ""]


def cell(count: int) -> str:
    """Return a number of bytes; nothing for 0."""
    return units.bytes_text(count) if count else ""


def share(part: float, whole: float) -> str:
    """Return a share of the whole; nothing for 0."""
    return units.percent_text(part / whole) if part else ""


def show_measured(costs: Costs, peak: Peak, measured: Measured) -> None:
    """Print the roofline as a table, and each prediction beside its measurement."""
    ceilings, predicted = measured.ceilings, predictions(costs, measured.ceilings)
    rows = []
    for layer in costs.layers:
        times, training = layer_times(layer, ceilings), layer.training
        if training.traffic:
            rows.append([layer.name, *attained(layer.forward, times.forward, measured),
                         *attained(training, times.training, measured), share(times.training, predicted["step"])])
    output.say()
    output.table(["layer", "forward: FLOP/byte", "GFLOP/s at most", "limit", "predicted", "training: FLOP/byte",
                  "GFLOP/s at most", "limit", "predicted", "share of step"], rows, right=(1, 2, 4, 5, 6, 8, 9),
                 title=f"roofline: {units.rate_text(ceilings.flops, 'FLOP/s')}, "
                       f"{units.rate_text(ceilings.bandwidth, 'B/s')} "
                       f"({measured.backend} {measured.precision} on {where(measured)})")
    for line in sentences.bandwidth(costs, ceilings):
        output.say(f"\n{line}")
    output.say()
    samples = measured.seconds["step"].n
    output.table(["on a batch", "predicted", "measured", "measured / predicted"], [
        [phase, units.seconds_text(expected), units.estimate_text(measured.seconds[phase], units.seconds_text),
         f"{measured.seconds[phase].median / expected:.2f}"] for phase, expected in predicted.items()], right=(1, 3),
        title=f"times, {samples} sample{'s' * (samples != 1)}, {title_of_medians(measured.seconds.values())}")
    output.say(f"\n{memory_line(peak, measured)}")
    versions = ", ".join(f"{name} {version}" for name, version in measured.versions.items())
    averages = measured.conditions.load_before  # None if the system reports none
    load = f", load {averages[0]:.1f}, this program included" if averages else ""
    output.say(f"{versions}, Python {measured.conditions.python}, {processor(measured)}{load}")


def attained(work: Work, seconds: float, measured: Measured) -> list[str]:
    """Return a row's cells in the roofline, for forward or training."""
    if not work.traffic:
        return ["", "", "", ""]
    attainable = measured.ceilings.attainable(work.intensity) / 1e9
    return [*(units.three_digits(number) if work.macs else "" for number in (work.intensity, attainable)),
            measured.ceilings.limit(work), units.seconds_text(seconds)]


def memory_line(peak: Peak, measured: Measured) -> str:
    """Return a line on the predicted and the measured peak memory."""
    memory = measured.memory
    off = memory.off(peak.bytes)
    kernels = "; ".join(f"{layer} by {units.listed(names)}" for layer, names in measured.kernels.items())
    if memory.allocator is not None and off is not None:
        where = f" with {kernels}" if kernels else ""
        return (f"Memory: predicted peak{where} {units.bytes_text(peak.bytes)}, the allocator's without workspaces "
                f"{units.bytes_text(memory.allocator)}: {100 * off:+.1f} %")
    if memory.process is None or memory.imported is None:
        return f"Memory: predicted peak {units.bytes_text(peak.bytes)}; this system does not report a process's memory"
    return (f"Memory: predicted peak {units.bytes_text(peak.bytes)} of tensors; the process took at most "
            f"{units.bytes_text(memory.process)}, and {units.bytes_text(memory.imported)} with {measured.backend} "
            f"alone: {units.bytes_text(memory.process - memory.imported)} more")


def where(measured: Measured) -> str:
    """Return the device's description."""
    if measured.device == "cpu":
        return processor(measured)
    return f"{measured.device}, {measured.description}"


def processor(measured: Measured) -> str:
    """Return the processor and its threads: `AMD EPYC, 1 thread on 2 cores`."""
    cores = f"{measured.conditions.usable_cores or '?'} cores"
    threads = "" if measured.threads is None else f"{measured.threads} thread{'s' * (measured.threads != 1)} on "
    return f"{measured.conditions.cpu}, {threads}{cores}"
