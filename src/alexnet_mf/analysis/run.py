"""Costs of a network, by arithmetic and as measured on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alexnet_mf import backends
from alexnet_mf.analysis import measure as measurements
from alexnet_mf.analysis.costs import Costs, costs
from alexnet_mf.analysis.measure import ROUNDS, SAMPLE_SECONDS, Measured, default_precision
from alexnet_mf.analysis.peak import Peak, predicted_peak
from alexnet_mf.analysis.record import Record, make_record
from alexnet_mf.bench.plan import ITEM_BYTES
from alexnet_mf.errors import BenchError, OutOfMemory
from alexnet_mf.instruments import machine
from alexnet_mf.spec import Network
from alexnet_mf.spec.toml import find_network
from alexnet_mf.training.memory import check_fits_machine
from alexnet_mf.training.recipe import RECIPES, Recipe, for_network


@dataclass(frozen=True)
class Analysis:
    """Costs of a network on a batch."""

    costs: Costs
    recipe: Recipe
    peak: Peak
    """The predicted peak of memory."""
    measured: Measured | None = None

    @property
    def holds(self) -> bool:
        """True if the prediction of memory holds, as far as it was measured."""
        return self.measured is None or self.measured.memory.holds(self.peak.bytes)

    def record(self) -> Record:
        """Return everything as a record, for JSON."""
        return make_record(self.costs, self.recipe, self.peak, self.measured)


def analyze(net: Network | str = "alexnet", backend: str | None = None, *, batch_size: int | None = None,
            recipe: str = "quick", measure: bool = True, device: str = "auto", rounds: int = ROUNDS,
            sample_seconds: float = SAMPLE_SECONDS, command: Sequence[str] = (),
            report_progress: Callable[[str], None] = lambda line: None,
            report_costs: Callable[[Analysis], None] = lambda analysis: None) -> Analysis:
    """Compute what a network costs in memory, multiply-accumulates and traffic, and measure how near a device comes.

    Args:
        net: network, its name, or the path of a TOML file.
        backend: what to measure; the first installed framework without it.
        batch_size: images; the recipe's without it.
        recipe: name of the recipe whose batch size and momentum are taken.
        measure: False for the arithmetic alone, which needs no framework.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        rounds: samples of each time.
        sample_seconds: shortest sample.
        command: words for the record; the call of this function without them.
        report_progress: takes a line on what is being done.
        report_costs: takes what is computed, before anything is measured.

    Raises:
        BackendUnavailable: if no framework is installed.
        OutOfMemory: if the batch does not fit in the machine's memory.
        BenchError: if something cannot be measured.
        AlexnetMfError: if something else cannot be done as asked.
    """
    backend = backend or (backends.default() if measure else "torch")
    network = find_network(net) if isinstance(net, str) else net
    if recipe not in RECIPES:
        raise BenchError(f"unknown recipe {recipe!r}; known: {', '.join(RECIPES)}")
    chosen = for_network(RECIPES[recipe], network)
    found = costs(network, batch_size or chosen.batch_size, ITEM_BYTES[default_precision(backend)],
                  chosen.sgd.momentum > 0)
    analysis = Analysis(found, chosen, predicted_peak(found))
    report_costs(analysis)
    if not measure:
        return analysis
    if device == "cpu" or not machine.gpus():
        try:
            check_fits_machine(network, found.batch_size, found.item_bytes)
        except OutOfMemory as error:
            raise OutOfMemory(f"{error}; the arithmetic alone (`measure=False`) needs no memory") from error
    call = [f"alexnet_mf.analyze({network.name!r}, {backend!r}, batch_size={found.batch_size}, recipe={recipe!r}, "
            f"device={device!r}, rounds={rounds}, sample_seconds={sample_seconds})"]
    return Analysis(found, chosen, analysis.peak, measurements.measure(
        network, backend, device, found.batch_size, chosen.sgd.momentum, rounds=rounds, sample_seconds=sample_seconds,
        command=command or call, report_progress=report_progress))
