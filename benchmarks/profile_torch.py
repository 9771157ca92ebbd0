"""Profile the kernels of PyTorch's training step."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from alexnet_mf import backends
from alexnet_mf.backends.contract import Sgd
from alexnet_mf.cli.arguments import add_execution, add_network, at_least_one, execution
from alexnet_mf.data import synthetic
from alexnet_mf.spec.toml import find_network
from alexnet_mf.weights import parameters

WARM_UP = 5
"""Steps that compile, choose kernels and allocate."""


def main() -> None:
    """Profile some steps and print the time of each kernel."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_network(parser)
    add_execution(parser)
    parser.add_argument("--batch-size", type=at_least_one, default=128, help="images in a batch (default: 128)")
    parser.add_argument("--steps", type=at_least_one, default=10, help="steps to profile (default: 10)")
    parser.add_argument("--out", type=Path, help="file for the table; a trace for chrome://tracing goes beside it")
    options = parser.parse_args()
    settings = execution(options)
    network = find_network(options.net, "torch")
    model = backends.load("torch").build(network, parameters.initialize(network, 0), options.device, settings)
    images = synthetic.draw(0, train=options.batch_size, test=1).train
    placed, rows = model.place(images.images, images.labels), np.arange(options.batch_size)
    trainer = model.trainer(Sgd(0.01), 0)

    def steps(count: int, first: int) -> None:
        for number in range(first, first + count):
            trainer.step(placed, rows, number)
        trainer.read()

    steps(WARM_UP, 0)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if model.device != "cpu" else [])]
    with profile(activities=activities) as profiler:
        steps(options.steps, WARM_UP)
    order = "self_cpu_time_total" if model.device == "cpu" else "self_cuda_time_total"
    text = (f"torch {torch.__version__}, {model.device}, batch {options.batch_size}, {options.steps} steps, "
            f"{options.precision or 'float32'}, with {', '.join(sorted(model.speed)) or 'no setting'}\n"
            f"{profiler.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=60)}")
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
        profiler.export_chrome_trace(str(options.out.with_suffix(".json")))


if __name__ == "__main__":
    main()
