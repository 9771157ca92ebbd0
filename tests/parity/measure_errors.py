"""The errors that correct code shows, over seeds and batch sizes: what the ladder's tolerances rest on.

`python tests/parity/measure_errors.py --seeds 0,1,2 --batch-sizes 4,8` runs the whole ladder for each, and prints the
largest error of each kind in each backend beside the tolerance that it was held to, as a Markdown table. It takes some
minutes a ladder on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

KINDS = {  # rung, how the measurement is called, and the kind of error that it is
    ("layer outputs", "layer"): "a layer's output, relative L2",
    ("layer outputs", "largest"): "a layer's output, largest difference over largest value",
    ("logits and loss", "layer"): "logits, relative L2",
    ("logits and loss", "loss"): "loss",
    ("gradients", "layer"): "a gradient, relative L2",
    ("gradients", "near ties"): "widest near tie decided otherwise, over largest value",
    ("SGD steps", "loss"): "loss of an SGD step",
    ("SGD steps", "layer"): "what the steps changed in a parameter, relative L2",
    ("weights", "loss"): "loss of a step begun elsewhere",
}


def kind(rung: str, measurement: dict[str, Any]) -> str | None:
    """The kind of error of one measurement."""
    where, what = measurement["where"], measurement["what"]
    name = ("largest" if what.endswith("largest") else "near ties" if where.endswith("near ties")
            else "loss" if where.startswith("loss") else "layer")
    return KINDS.get((rung, name))


def ladder(flags: list[str]) -> dict[str, Any]:
    """One report of the parity command."""
    command = [sys.executable, "-m", "alexnet_mf", "parity", "--json", "-", *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout:
        raise SystemExit(done.returncode)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def main() -> int:
    """Run the ladders and print the table; 1 if one was red."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2,3,4", help="comma-separated (default: 0,1,2,3,4)")
    parser.add_argument("--batch-sizes", default="4", help="comma-separated (default: 4)")
    options, flags = parser.parse_known_args()  # the others go to the parity command
    errors: dict[str, dict[str, float]] = {name: {} for name in KINDS.values()}
    tolerances: dict[str, list[float]] = {name: [] for name in KINDS.values()}
    red = 0
    for seed in options.seeds.split(","):
        for batch in options.batch_sizes.split(","):
            report = ladder(["--seed", seed, "--batch-size", batch, "--images", str(max(64, 9 * int(batch))), *flags])
            red += not report["holds"]
            print(f"seed {seed}, batch {batch}: {'green' if report['holds'] else 'RED'}", file=sys.stderr, flush=True)
            for backend, found in report["backends"].items():
                for rung in found["rungs"]:
                    for measurement in rung["measurements"]:
                        name = kind(rung["name"], measurement)
                        if name and backend != "numpy":
                            error = float("inf") if measurement["error"] is None else measurement["error"]
                            errors[name][backend] = max(errors[name].get(backend, 0.0), error)
                            tolerances[name].append(measurement["tolerance"])
    backends = list(dict.fromkeys(backend for row in errors.values() for backend in row))
    print(f"| largest error | {' | '.join(backends)} | tolerance |\n|---|{'---|' * (len(backends) + 1)}")
    for name, row in errors.items():
        low, high = (f"{bound(tolerances[name], default=0.0):.0e}" for bound in (min, max))
        cells = [f"{row[backend]:.1e}" if backend in row else "none" for backend in backends]
        print(f"| {name} | {' | '.join(cells)} | {low if low == high else f'{low} to {high}'} |")
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
