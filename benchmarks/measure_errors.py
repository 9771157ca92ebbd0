"""Measure the errors of correct code over seeds and batch sizes. The ladder's tolerances rest on these errors.

`python benchmarks/measure_errors.py` runs a whole ladder for each seed and batch size,
and prints a Markdown table. A ladder contributes its largest error of each kind, over all layers, parameters or steps.
The table shows the median and the largest of these errors in each backend, the largest cost of float32 to the reference
implementation, and the tolerances. A ladder takes some minutes on two cores. Other flags go to the parity command:
`--net`, `--backends torch,mxnet`, `--data synthetic`, `--data-dir`, `--steps`, `--device`, `--tier`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

KINDS = {  # rung and name of the measurement; kind of error and prefix of its float32 cost in the report
    ("layer outputs", "layer"): ("layer output, L2", "outputs/"),
    ("layer outputs", "largest"): ("layer output, largest difference over largest value", "largest/"),
    ("logits and loss", "layer"): ("logits, L2", None),
    ("logits and loss", "loss"): ("loss", "loss"),
    ("gradients", "layer"): ("gradient, L2", "gradients/"),
    ("gradients", "near ties"): ("widest near tie decided differently, over largest value", None),
    ("SGD steps", "loss"): ("loss of an SGD step", "step_loss"),
    ("SGD steps", "layer"): ("weight change after the steps, L2", "updates/"),
    ("weight exchange", "loss"): ("loss of a continued step", None),
}
COSTS = dict(KINDS.values())


def classify(rung: str, measurement: dict[str, Any]) -> str | None:
    """Return the kind of error of a measurement in the report, or None if the table has no line for it."""
    where, what = measurement["where"], measurement["what"]
    name = ("largest" if what.endswith("largest") else "near ties" if where.endswith("near ties")
            else "loss" if where.startswith("loss") else "layer")
    return KINDS.get((rung, name), (None, None))[0]


def ladder(flags: list[str]) -> dict[str, Any]:
    """Run the parity command with these flags and return its report. Exit if there is no report."""
    command = [sys.executable, "-m", "alexnet_mf", "parity", "--json", "-", *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout:
        raise SystemExit(done.returncode)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def largest(report: dict[str, Any]) -> tuple[dict[str, dict[str, float]], dict[str, list[float]]]:
    """Return the largest error of each kind in each backend except the reference, and all tolerances of each kind."""
    errors: dict[str, dict[str, float]] = {name: {} for name in COSTS}
    tolerances: dict[str, list[float]] = {name: [] for name in COSTS}
    for backend, result in report["backends"].items():
        for rung in result["rungs"]:
            for measurement in rung["measurements"]:
                name = classify(rung["name"], measurement)
                if name and backend != "numpy":
                    error = float("inf") if measurement["error"] is None else measurement["error"]
                    errors[name][backend] = max(errors[name].get(backend, 0.0), error)
                    tolerances[name].append(measurement["tolerance"])
    return errors, tolerances


def table(reports: list[dict[str, Any]]) -> str:
    """Return the table in Markdown, with a line for each kind of error."""
    results = [largest(report) for report in reports]
    backends = list(dict.fromkeys(name for report in reports for name in report["backends"] if name != "numpy"))
    lines = [f"| error (relative), median / largest | {' | '.join(backends)} | error of float32 itself | tolerance |",
             f"|---|{'---|' * (len(backends) + 2)}"]
    for name, prefix in COSTS.items():
        cells = []
        for backend in backends:
            values = [errors[name][backend] for errors, _ in results if backend in errors[name]]
            cells.append(f"{statistics.median(values):.1e} / {max(values):.1e}" if values else "none")
        costs = [cost for report in reports for key, cost in report["float32_cost"].items()
                 if prefix and key.startswith(prefix)]  # "loss" is not a prefix of "step_loss"
        limits = [tolerance for _, tolerances in results for tolerance in tolerances[name]]
        low, high = (f"{bound(limits, default=0.0):.0e}" for bound in (min, max))
        lines.append(f"| {name} | {' | '.join(cells)} | {f'{max(costs):.1e}' if costs else ''} | "
                     f"{low if low == high else f'{low} to {high}'} |")
    return "\n".join(lines)


def main() -> int:
    """Run the ladders and print the table; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2,3,4", help="comma-separated (default: 0,1,2,3,4)")
    parser.add_argument("--batch-sizes", default="4,8", help="comma-separated (default: 4,8)")
    options, flags = parser.parse_known_args()  # other flags go to the parity command
    reports = []
    for seed in options.seeds.split(","):
        for batch in options.batch_sizes.split(","):
            report = ladder(["--seed", seed, "--batch-size", batch, "--images", str(max(64, 9 * int(batch))), *flags])
            verdict = "passed" if report["holds"] else "FAILED"
            print(f"seed {seed}, batch {batch}: {verdict}", file=sys.stderr, flush=True)
            reports.append(report)
    print(table(reports))
    return 0 if all(report["holds"] for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
