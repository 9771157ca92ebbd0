"""Measure what each change to PyTorch's training step gains on one device, before any of it enters the backend.

Each variant takes the same steps on the same batches from the same weights. The table shows its rate, its share of the
device's matrix product on random data, and the distance of its weight update from the plain float32 one:

    python benchmarks/torch_step_variants.py --device cuda --batch-sizes 128,512 --json variants.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from alexnet_mf.backends.common import PIXEL_SCALE, dropout_seed, random_matrices
from alexnet_mf.backends.torch import network as native
from alexnet_mf.backends.torch import weights
from alexnet_mf.bench.plan import work
from alexnet_mf.spec import zoo
from alexnet_mf.weights import parameters

VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "layout": ("layout",),
    "layout fused": ("layout", "fused"),
    "layout fused benchmark": ("layout", "fused", "benchmark"),
    "layout fused benchmark fold": ("layout", "fused", "benchmark", "fold"),
    "graph": ("graph",),
    "graph layout fused": ("graph", "layout", "fused"),
    "graph layout fused benchmark": ("graph", "layout", "fused", "benchmark"),
    "graph layout fused benchmark fold": ("graph", "layout", "fused", "benchmark", "fold"),
    "graph layout fused benchmark compile": ("graph", "layout", "fused", "benchmark", "compile"),
    "graph layout fused benchmark fold compile": ("graph", "layout", "fused", "benchmark", "fold", "compile"),
}
CHECKED_STEPS = 3
IMAGES = 6000
LEARNING_RATE = 0.01


class FoldedConv2d(nn.Module):
    """conv1 (1 input channel, kernel 11, stride 4, padding 1) as a 3x3 convolution of 16 channels: the same function.

    Tensor cores need several input channels. The weight keeps its canonical shape (96, 1, 11, 11).
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.pixel_unshuffle(functional.pad(x, (1, 0, 1, 0))[:, :, :224, :224], 4)
        weight = functional.pad(self.weight, (0, 1, 0, 1)).view(96, 3, 4, 3, 4).permute(0, 2, 4, 1, 3)
        return functional.conv2d(x, weight.reshape(96, 16, 3, 3), self.bias)


class Step:
    """A training step on data that lies on the device: gather, upsample, scale, forward, backward, update, metrics."""

    def __init__(self, batch_size: int, device: str, precision: str, options: tuple[str, ...]) -> None:
        self.device, self.precision, self.options, self.batch_size = device, precision, options, batch_size
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = "benchmark" in options
        network = zoo.ALEXNET
        self.net = native.build(network).to(device)
        weights.load(self.net, parameters.initialise(network, 0))
        if "layout" in options:
            self.net.to(memory_format=torch.channels_last)
        self.net.train()
        self.start = self.flat_weights()
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(256, (IMAGES, 28, 28), dtype=torch.uint8, generator=generator).to(device)
        self.labels = torch.randint(10, (IMAGES,), generator=generator).to(device)
        self.order = torch.randperm(IMAGES, generator=generator).to(device)
        self.number = torch.zeros(1, dtype=torch.int64, device=device)
        self.positions = torch.arange(batch_size, device=device)
        self.losses = torch.zeros(1024, device=device)
        self.correct = torch.zeros(1024, dtype=torch.int64, device=device)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=LEARNING_RATE,
                                         fused=True if "fused" in options else None)
        if "fold" in options:
            self.net.conv1 = FoldedConv2d(self.net.conv1)
        self.forward: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] = self.compute
        if "compile" in options:
            self.forward = torch.compile(self.compute, dynamic=False, options={"fallback_random": True})
        self.graph: torch.cuda.CUDAGraph | None = None

    def flat_weights(self) -> torch.Tensor:
        return torch.cat([value.detach().float().contiguous().flatten() for value in self.net.parameters()])

    def compute(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = functional.interpolate(images.unsqueeze(1).float(), (224, 224), mode="bilinear", align_corners=False)
        pixels = pixels * float(PIXEL_SCALE)
        with torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.precision == "bfloat16"):
            logits = self.net(pixels)
            return functional.cross_entropy(logits, labels), logits

    def once(self) -> None:
        rows = self.order[(self.number * self.batch_size + self.positions) % IMAGES]
        labels = self.labels[rows]
        self.optimizer.zero_grad()
        loss, logits = self.forward(self.images[rows], labels)
        loss.backward()
        self.optimizer.step()
        slot = self.number % 1024
        self.losses.index_copy_(0, slot, loss.detach().float().view(1))
        self.correct.index_copy_(0, slot, (logits.detach().argmax(1) == labels).sum().view(1))
        self.number.add_(1)

    def capture(self) -> None:
        """Warm up on a side stream, capture, and go back to the weights of the start."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.once()
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.once()
        self.graph = graph

    def rewind(self) -> None:
        with torch.no_grad():
            position = 0
            for value in self.net.parameters():
                part = self.start[position:position + value.numel()]
                value.copy_(part.view(value.shape))
                position += value.numel()
        self.number.zero_()

    def __call__(self, number: int) -> None:
        torch.manual_seed(dropout_seed(0, number))
        if self.graph is not None:
            self.graph.replay()
        else:
            self.once()


def synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def sample(call: Callable[[int], None], device: str, seconds: float, rounds: int) -> list[float]:
    """Seconds of one call in each round, the device synchronized before and after."""
    for number in range(3):
        call(number)
    synchronize(device)
    began = time.perf_counter()
    call(0)
    synchronize(device)
    calls = max(1, int(seconds / (time.perf_counter() - began)))
    result = []
    for _ in range(rounds):
        synchronize(device)
        began = time.perf_counter()
        for number in range(calls):
            call(number)
        synchronize(device)
        result.append((time.perf_counter() - began) / calls)
    return result


def matrix_rate(device: str, precision: str, seconds: float, rounds: int) -> float:
    """The median FLOP/s of a large product of random matrices."""
    size = 1024 if device == "cpu" else 8192
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.from_numpy(matrix).to(device, dtype) for matrix in random_matrices(size))
    return 2 * size**3 / statistics.median(sample(lambda number: torch.mm(a, b), device, seconds, rounds))


def measure(batch_size: int, device: str, precision: str, name: str, seconds: float, rounds: int,
            plain_update: torch.Tensor | None) -> tuple[dict[str, Any], torch.Tensor]:
    began = time.perf_counter()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    step = Step(batch_size, device, precision, VARIANTS[name])
    if "graph" in VARIANTS[name]:
        step.capture()
        step.rewind()
    for number in range(CHECKED_STEPS):
        step(number)
    update = step.flat_weights() - step.start
    prepared = time.perf_counter() - began
    times = sorted(sample(step, device, seconds, rounds))
    peak = torch.cuda.max_memory_allocated() if device != "cpu" else None
    error = float((update - plain_update).norm() / plain_update.norm()) if plain_update is not None else None
    return {"batch_size": batch_size, "precision": precision, "variant": name, "seconds": times,
            "images_per_second": batch_size / statistics.median(times), "prepared_seconds": prepared,
            "update_error": error, "losses": step.losses[:CHECKED_STEPS].tolist(), "peak_bytes": peak}, update


def profile(batch_size: int, device: str, precision: str, name: str) -> str:
    """Kernel times of a few steps of one variant."""
    step = Step(batch_size, device, precision, VARIANTS[name])
    if "graph" in VARIANTS[name]:
        step.capture()
    for number in range(3):
        step(number)
    synchronize(device)
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if device != "cpu" else []
    with torch.profiler.profile(activities=activities) as recorded:
        for number in range(5):
            step(number)
        synchronize(device)
    order = "self_cpu_time_total" if device == "cpu" else "self_cuda_time_total"
    table = recorded.key_averages().table(sort_by=order, row_limit=30, max_name_column_width=90)
    return f"{name}, {precision}, batch {batch_size}, 5 steps\n{table}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch-sizes", default="128,512")
    parser.add_argument("--precisions", default="bfloat16")
    parser.add_argument("--variants", default=";".join(VARIANTS), help="separated by ;")
    parser.add_argument("--sample-seconds", type=float, default=0.3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=200, help="seconds after which no new variant begins")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", type=Path, help="write the kernel tables of the last two variants here")
    options = parser.parse_args()
    began, rows, names = time.perf_counter(), [], options.variants.split(";")
    device = options.device

    def report(row: dict[str, Any]) -> None:
        rows.append(row)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1))

    for precision in options.precisions.split(","):
        rate = matrix_rate(device, precision, options.sample_seconds, options.rounds)
        print(f"matrix product, {precision}: {rate / 1e12:.1f} TFLOP/s", flush=True)
        report({"precision": precision, "matrix_product_flops": rate, "torch": torch.__version__,
                "device": torch.cuda.get_device_name() if device != "cpu" else "cpu"})
        for batch_size in map(int, options.batch_sizes.split(",")):
            flops = work("step", zoo.ALEXNET, precision, 784, batch_size).flops
            _, plain = measure(batch_size, device, "float32", "plain", 0.0, 1, None)
            for name in names:
                if time.perf_counter() - began > options.budget:
                    print("no time left")
                    return
                try:
                    row, _ = measure(batch_size, device, precision, name, options.sample_seconds, options.rounds, plain)
                except Exception as error:  # one variant that fails leaves the others
                    print(f"{batch_size} {precision} {name}: {type(error).__name__}: {str(error)[:300]}", flush=True)
                    report({"batch_size": batch_size, "precision": precision, "variant": name, "error": str(error)})
                    continue
                finally:
                    if device != "cpu":
                        torch.cuda.empty_cache()
                share = flops / statistics.median(row["seconds"]) / rate
                report(row | {"share_of_matrix_product": share})
                print(f"{batch_size:5} {precision} {name:42} {row['images_per_second']:9.0f} images/s "
                      f"{share:6.1%} of the product, update error {row['update_error']:.1e}, "
                      f"ready after {row['prepared_seconds']:.1f} s, peak {(row['peak_bytes'] or 0) / 1e9:.2f} GB",
                      flush=True)
    if options.profile:
        tables = [profile(batch_size, device, precision, name) for name in names[-2:]]
        options.profile.write_text("\n\n".join(tables))


if __name__ == "__main__":
    main()
