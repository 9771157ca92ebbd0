"""Measure in one process what PyTorch's speed settings gain on a device, before they are switched on in `speed.py`.

    python benchmarks/torch_settings.py --device cuda --batch-sizes 128,512 --precisions bfloat16 --json settings.json

Each set of settings takes the same steps on the same batches from the same weights. A row shows the rates of training
and inference, their shares of a product of random matrices, the energy of an image, and how far the weight update of
the first steps is from the plain one in the same precision. `bench --try` measures the same with a process for each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet_mf import backends, files
from alexnet_mf.backends.contract import Sgd
from alexnet_mf.backends.execution import Execution
from alexnet_mf.backends.torch.speed import SPEED
from alexnet_mf.bench.plan import work
from alexnet_mf.instruments import machine
from alexnet_mf.instruments.energy import EnergyMeter
from alexnet_mf.spec.toml import find_network
from alexnet_mf.weights import parameters

SETTINGS = ["", "layout+fused", "layout+fused+fold", "graph+layout+fused+fold", "graph+layout+fused+fold+pool",
            "graph+layout+fused+fold+pool+compile"]
CHECKED_STEPS = 3
IMAGES = 6000


def sample(call: Callable[[int], Any], synchronize: Callable[[], None], seconds: float, rounds: int,
           meter: EnergyMeter) -> tuple[list[float], float | None]:
    """Return the seconds of one call in each round, and the joules of one call over all rounds, None if unknown."""
    for number in range(3):
        call(number)
    synchronize()
    start = time.perf_counter()
    call(3)
    synchronize()
    calls = max(2, int(seconds / (time.perf_counter() - start)))
    times, before = [], meter.joules()
    for _ in range(rounds):
        start = time.perf_counter()
        for number in range(calls):
            call(number)
        synchronize()
        times.append((time.perf_counter() - start) / calls)
    after = meter.joules()
    return times, None if before is None or after is None else (after - before) / (rounds * calls)


class Comparison:
    """Comparison of sets of settings on one device."""

    def __init__(self, net: str, device: str, seconds: float, rounds: int) -> None:
        self.backend = backends.load("torch")
        self.device, self.seconds, self.rounds = device, seconds, rounds
        models = {entry.name: entry.description for entry in self.backend.devices()}
        self.meter = EnergyMeter(device, models.get(device, ""))
        self.network = find_network(net)
        self.weights = parameters.initialize(self.network, 0)
        generator = np.random.default_rng(0)
        self.images = generator.integers(256, size=(IMAGES, 28, 28), dtype=np.uint8)
        self.labels = generator.integers(10, size=IMAGES)

    def synchronize(self) -> None:
        self.backend.synchronize(self.device)

    def matrix_product(self, precision: str) -> float:
        """Return the FLOP/s of a large product of random matrices."""
        self.build(precision, "")  # sets the process's precision switches
        ceiling = self.backend.ceilings(self.device, Execution(precision))["matrix product"]
        times, _ = sample(lambda number: ceiling.call(), self.synchronize, self.seconds, self.rounds,
                          self.meter)
        return ceiling.amount / statistics.median(times)

    def build(self, precision: str, settings: str) -> Any:
        speed = {name: name in settings.split("+") for name in SPEED[self.device.partition(":")[0]]}
        return self.backend.build(self.network, self.weights, self.device, Execution(precision, speed))

    def update(self, model: Any, batch_size: int) -> dict[str, np.ndarray]:
        """Return the change of each parameter over the first steps."""
        data = model.place(self.images, self.labels)
        trainer = model.trainer(Sgd(0.01, 0.9), 0)
        for number in range(CHECKED_STEPS):
            trainer.step(data, np.arange(batch_size) + number * batch_size, number)
        return {name: value - self.weights[name] for name, value in model.export().items()}

    def row(self, batch_size: int, precision: str, settings: str, plain: dict[str, np.ndarray]) -> dict[str, Any]:
        """Measure one set of settings."""
        start = time.perf_counter()
        if self.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        model = self.build(precision, settings)
        update = self.update(model, batch_size)
        data = model.place(self.images, self.labels)
        phases = model.phases(data, np.random.default_rng(1).permutation(IMAGES)[:batch_size], Sgd(2.0**-20), 0)
        result: dict[str, Any] = {
            "batch_size": batch_size, "precision": precision, "settings": settings,
            "update_errors": {name: float(np.linalg.norm(update[name] - value) / np.linalg.norm(value))
                              for name, value in plain.items()}}
        for phase in ("step", "forward"):
            phases[phase](0)
            times, joules = sample(phases[phase], self.synchronize, self.seconds, self.rounds, self.meter)
            flops = work(phase, self.network, precision, 784, batch_size).flops
            result[phase] = {"seconds": times, "images_per_second": batch_size / statistics.median(times),
                             "flops": flops / statistics.median(times),
                             "joules_per_image": None if joules is None else joules / batch_size}
        peak = self.backend.peak_memory(self.device)
        return result | {"peak_bytes": peak, "whole_seconds": time.perf_counter() - start}


def main() -> None:
    """Print a line for each set of settings, and write all results to the JSON file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="alexnet", help="network (default: alexnet)")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu",
                        help="PyTorch's device (default: a GPU if there is one)")
    parser.add_argument("--batch-sizes", default="128,512", help="images, comma-separated (default: 128,512)")
    parser.add_argument("--precisions", default="bfloat16", help="comma-separated (default: bfloat16)")
    parser.add_argument("--settings", help="sets of settings, as in layout+fused,graph (default: growing sets)")
    parser.add_argument("--sample-seconds", type=float, default=0.3, help="shortest sample (default: 0.3 s)")
    parser.add_argument("--rounds", type=int, default=5, help="samples of each figure (default: 5)")
    parser.add_argument("--budget", type=float, default=200, help="seconds until the last set begins (default: 200)")
    parser.add_argument("--json", type=Path, help="file for all rows")
    options = parser.parse_args()
    allowed = SPEED[options.device.partition(":")[0]]
    sets = [names for names in SETTINGS if {*names.split("+")} <= {"", *allowed}] if options.settings is None else \
        options.settings.split(",")
    if unknown := {*"+".join(sets).split("+")} - {"", *allowed}:
        parser.error(f"unknown setting {min(unknown)!r} on {options.device}; available: {', '.join(allowed)}")
    start, rows = time.perf_counter(), list[dict[str, Any]]()
    comparison = Comparison(options.net, options.device, options.sample_seconds, options.rounds)
    conditions = machine.conditions(sys.argv)
    versions, devices = comparison.backend.versions(), comparison.backend.devices()

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        if options.json:
            described = [f"{device.name}: {device.description}" for device in devices]
            content = {"conditions": conditions, "versions": versions, "devices": described, "rows": rows}
            files.write(options.json, json.dumps(content, indent=1).encode())

    for precision in options.precisions.split(","):
        product = comparison.matrix_product(precision)
        print(f"matrix product in {precision}: {product / 1e12:.1f} TFLOP/s", flush=True)
        keep({"precision": precision, "matrix_product_flops": product})
        for batch_size in map(int, options.batch_sizes.split(",")):
            plain = comparison.update(comparison.build(precision, ""), batch_size)
            for settings in sets:
                if time.perf_counter() - start > options.budget:
                    print("the budget is used up; raise it with --budget", flush=True)
                    return
                try:
                    row = comparison.row(batch_size, precision, settings, plain)
                except Exception as error:  # a setting that fails does not stop the others
                    row = {"batch_size": batch_size, "precision": precision, "settings": settings,
                           "error": f"{type(error).__name__}: {error}"}
                keep(row)
                print(line(row, product), flush=True)
                if options.device != "cpu":
                    torch.cuda.empty_cache()


def line(row: dict[str, Any], product: float) -> str:
    """Return a row as text."""
    name = f"{row['batch_size']:5} {row['precision']} {row['settings'] or 'plain':34}"
    if "error" in row:
        return f"{name} {row['error'][:300]}"
    phases = []
    for phase in ("step", "forward"):
        joules = row[phase]["joules_per_image"]
        phases.append(f"{phase} {row[phase]['images_per_second']:8.0f} images/s {row[phase]['flops'] / product:6.1%}"
                      + ("" if joules is None else f" {joules * 1000:5.1f} mJ/image"))
    return (f"{name} {', '.join(phases)}; update error {max(row['update_errors'].values()):.1e}, "
            f"peak {(row['peak_bytes'] or 0) / 1e9:.2f} GB, {row['whole_seconds']:.1f} s")


if __name__ == "__main__":
    main()
