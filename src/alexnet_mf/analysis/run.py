"""Costs of a network, by arithmetic and as measured on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from alexnet_mf import backends, datasets
from alexnet_mf.analysis import measure as measurements
from alexnet_mf.analysis.costs import Costs, costs
from alexnet_mf.analysis.measure import ROUNDS, SAMPLE_SECONDS, Measured
from alexnet_mf.analysis.peak import Peak, predicted_peak
from alexnet_mf.analysis.record import Record, make_record
from alexnet_mf.bench.plan import ITEM_BYTES
from alexnet_mf.checks import check_choice, check_integer, check_number, check_type
from alexnet_mf.data import DataSource
from alexnet_mf.errors import AlexnetMfError, BackendUnavailable, OutOfMemory
from alexnet_mf.instruments import machine
from alexnet_mf.models import default_backend
from alexnet_mf.spec import Network
from alexnet_mf.spec.toml import find_network
from alexnet_mf.training.memory import check_fits
from alexnet_mf.training.recipe import RECIPES, Recipe, for_network


@dataclass(frozen=True)
class Analysis:
    """Costs of a network on a batch."""

    costs: Costs
    recipe: Recipe
    peak: Peak
    """Predicted peak memory; after a measurement, with the kernels that it used."""
    measured: Measured | None = None

    @property
    def holds(self) -> bool:
        """True if the measured memory is near the predicted peak, or nothing was measured."""
        return self.measured is None or self.measured.memory.holds(self.peak.bytes)

    def record(self) -> Record:
        """Return everything as a record, for JSON."""
        return make_record(self.costs, self.recipe, self.peak, self.measured)


def analyze(net: Network | Path | str = "alexnet", backend: str | None = None, *, batch_size: int | None = None,
            recipe: str = "quick", measure: bool = True, device: str | None = None, rounds: int | None = None,
            sample_seconds: float | None = None, data: DataSource | Path | str | None = None,
            command: Sequence[str] = (), report_progress: Callable[[str], None] = lambda line: None,
            report_costs: Callable[[Analysis], None] = lambda analysis: None) -> Analysis:
    """Compute a network's memory, multiply-accumulates and memory traffic, and measure it on a device.

    Args:
        net: network, its name, or a .toml file.
        backend: the backend to measure; by default the first installed framework.
        batch_size: number of images; by default the recipe's.
        recipe: name of the recipe that gives batch size and momentum.
        measure: False to compute the costs only, which needs no framework.
        device: the device to measure, as for `build`; by default `auto`.
        rounds: number of samples of each time; by default 6, the fewest that give a confidence interval.
        sample_seconds: shortest length of a sample, in seconds; by default 0.2.
        data: images whose classes and channels the network gets, as for `train`; by default the network's own.
        command: command line for the record; by default the call of this function.
        report_progress: receives a line about each stage.
        report_costs: receives the computed costs, before anything is measured.

    Raises:
        BackendUnavailable: if the backend, or any framework, is missing.
        OutOfMemory: if the batch does not fit in the machine's memory.
        BenchError: if something cannot be measured.
        AlexnetMfError: if an argument is wrong.
    """
    check_type("measure", measure, bool)
    for argument, value in (("device", device), ("rounds", rounds), ("sample_seconds", sample_seconds)):
        if value is not None and not measure:
            raise AlexnetMfError(f"`measure=False` measures nothing: leave out `{argument}`")
    if backend is not None:
        check_choice("backend", backend, backends.BACKENDS)
    if batch_size is not None:
        check_integer("batch_size", batch_size)
    device = "auto" if device is None else check_type("device", device, str)
    rounds = ROUNDS if rounds is None else check_integer("rounds", rounds)
    sample_seconds = SAMPLE_SECONDS if sample_seconds is None else \
        check_number("sample_seconds", sample_seconds, above=True)
    network = find_network(net)
    if data is not None:
        network = datasets.adapted(network, datasets.open_source(datasets.source_of(data), quiet=True))
    chosen = for_network(RECIPES[check_choice("recipe", recipe, RECIPES)], network)
    backend = backend or (_backend_to_measure() if measure else "torch")
    result = costs(network, batch_size or chosen.batch_size, ITEM_BYTES[backends.BACKENDS[backend].precision],
                  chosen.sgd.momentum > 0)
    analysis = Analysis(result, chosen, predicted_peak(result))
    report_costs(analysis)
    if not measure:
        return analysis
    if device == "cpu" or not machine.gpus():
        try:
            check_fits(network, result.batch_size, result.item_bytes)
        except OutOfMemory as error:
            raise OutOfMemory(f"{error}; `measure=False` computes only the costs") from error
    call = [f"alexnet_mf.analyze({network.name!r}, {backend!r}, batch_size={result.batch_size}, recipe={recipe!r}, "
            f"device={device!r}, rounds={rounds}, sample_seconds={sample_seconds})"]
    measured = measurements.measure(
        network, backend, device, result.batch_size, chosen.sgd.momentum, rounds=rounds, sample_seconds=sample_seconds,
        command=command or call, report_progress=report_progress)
    return Analysis(result, chosen, predicted_peak(result, measured.kernels), measured)


def _backend_to_measure() -> str:
    """Return the first installed framework.

    Raises:
        BackendUnavailable: if none is installed; also names `measure=False` as a remedy.
    """
    try:
        return default_backend()
    except BackendUnavailable as error:
        raise BackendUnavailable(f"{error}; `measure=False` needs no framework") from error
