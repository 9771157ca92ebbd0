"""Train `alexnet-cifar` on CIFAR-10 in each backend, with several seeds: `python benchmarks/cifar.py FOLDER`.

FOLDER has CIFAR-10 as class folders or in its binary version. Each training takes the same steps: batches of 128, SGD
with momentum 0.9, rate 0.05 and a fifth of it in the last quarter, random crops and flips. Prints a line for each
training, then mean and standard deviation of the test accuracies, and writes both to FILE as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import alexnet_mf
from alexnet_mf.instruments import machine
from alexnet_mf.instruments.records import plain

EPOCHS, BATCH_SIZE, RATE, MOMENTUM, ANNEALED = 10, 128, 0.05, 0.9, 0.25


def main() -> None:
    """Train, print, and write the results after each training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder of CIFAR-10")
    parser.add_argument("--backends", default="torch,tensorflow,mxnet")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path, default=Path("cifar"), help="folder of the runs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    for seed in map(int, options.seeds.split(",")):
        for backend in options.backends.split(","):
            began = time.perf_counter()
            run = alexnet_mf.train("alexnet-cifar", backend, data=options.data, seed=seed, epochs=options.epochs,
                                   batch_size=BATCH_SIZE, learning_rate=RATE, momentum=MOMENTUM, annealed=ANNEALED,
                                   augment=("flip", "crop"), out=options.out / f"{backend}-{seed}", progress=False)
            assert run.result
            last = run.epochs[-1]
            results.append({"backend": backend, "seed": seed, "versions": run.session.versions,
                            "test_accuracy": last.test_accuracy, "test_loss": last.test_loss,
                            "train_accuracy": last.train_accuracy, "loss": last.loss,
                            "images_per_second": run.result.images_per_second,
                            "seconds": time.perf_counter() - began})
            print(f"{backend} {seed}: {last.describe()}, {run.result.images_per_second:.0f} images/s, "
                  f"{results[-1]['seconds']:.0f} s", flush=True)
            if options.json:
                conditions = plain(machine.WholeConditions(**machine.conditions(sys.argv)))
                options.json.write_text(json.dumps({"conditions": conditions, "trainings": results}, indent=1) + "\n")
    for backend in options.backends.split(","):
        accuracies = [each["test_accuracy"] for each in results if each["backend"] == backend]
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else float("nan")
        print(f"{backend}: test accuracy {statistics.mean(accuracies):.4f}, standard deviation {spread:.4f}, "
              f"{len(accuracies)} seeds")


if __name__ == "__main__":
    main()
