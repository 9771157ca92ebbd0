"""Measure the way from pictures to batches: `python benchmarks/pictures.py PART...`.

Parts: `prepare` (decode, resize and store photographs, beside torchvision's ImageFolder and DataLoader), `crops`
(random crops from the store), `index` (list many files; names and order in memory), `memory` (a streamed set of 100,000
pictures beside one of 1,000), `feed` (training steps on a streamed set, on one that lies on the device, and on one
batch again and again). The photographs are those of scikit-image's wheel, in a hundred sizes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import photographs

from alexnet_mf import models, spec
from alexnet_mf.backends.execution import Execution
from alexnet_mf.data import DataSource, LabeledImages, epoch_order, store
from alexnet_mf.data.pictures import Names
from alexnet_mf.data.prepare import prepare
from alexnet_mf.data.sources import folder
from alexnet_mf.spec import Preprocessing, zoo
from alexnet_mf.training import feed
from alexnet_mf.training.recipe import BOOK

PAPER = Preprocessing("rgb", resize=256, patch=(256, 256), crop=(224, 224))
ROUNDS = 5


def main() -> None:
    """Run the parts that the command names."""
    parts: dict[str, Callable[..., None]] = {"prepare": measure_preparation, "crops": measure_crops,
                                                "index": measure_index, "memory": measure_memory, "feed": measure_feed}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=list(parts))
    steps = parser.add_argument_group("of `feed`")
    steps.add_argument("--backend", default="torch")
    steps.add_argument("--net", default="alexnet-owt")
    steps.add_argument("--device", default="auto")
    steps.add_argument("--precision", default="float32")
    steps.add_argument("--batch-size", type=int, default=32)
    steps.add_argument("--steps", type=int, default=20, help="steps of a timed epoch")
    steps.add_argument("--readers", default=str(feed.READERS), help="numbers of reading threads, comma-separated")
    options = parser.parse_args()
    for name in options.parts:
        with tempfile.TemporaryDirectory() as temporary:
            parts[name](Path(temporary), **({"options": options} if name == "feed" else {}))


def show(what: str, values: list[float], unit: str) -> None:
    """Print the median and the range of some values."""
    print(f"{what}: {statistics.median(values):,.0f} {unit} ({min(values):,.0f} to {max(values):,.0f}, "
          f"n = {len(values)})", flush=True)


def measure_preparation(temporary: Path) -> None:
    """Compare the store with torchvision on the same photographs: the same pixels, pictures per second."""
    import torch
    from torchvision import datasets, transforms

    photographs.write(temporary / "photos", 800, (200, 600), classes=8)
    resize = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(256), transforms.PILToTensor()])
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(ROUNDS):
        began = time.perf_counter()
        opened = DataSource(str(temporary / "photos")).open()
        images = prepare(opened, PAPER, folder=temporary / f"store-{number}", parts=("train",)).train
        ours.append(len(images) / (time.perf_counter() - began))
        began = time.perf_counter()
        loader = torch.utils.data.DataLoader(datasets.ImageFolder(str(temporary / "photos" / "train"), resize), 32,
                                             num_workers=2)
        batches = [batch for batch, _ in loader]
        theirs.append(len(images) / (time.perf_counter() - began))
    levels = torch.cat(batches).permute(0, 2, 3, 1).numpy()
    print(f"pixels equal: {np.array_equal(levels, images.images[:])}, {len(images)} photographs of 200 to 600 pixels")
    show("prepared and stored", ours, "pictures/s")
    show("ImageFolder and DataLoader, 2 workers", theirs, "pictures/s")
    print(f"ratio of the medians: {statistics.median(ours) / statistics.median(theirs):.2f}")


def fake_model() -> Any:
    """Return a model that places nothing."""
    return SimpleNamespace(network=zoo.ALEXNET_OWT, device="cpu", place=lambda images, labels: images)


def stored(temporary: Path, count: int, is_sparse: bool = False) -> LabeledImages:
    """Return pictures of 256x256 in a file that is mapped into memory: random levels, or a file of holes."""
    path = temporary / f"levels-{count}"
    with path.open("wb") as file:
        for start in range(0, 0 if is_sparse else count, 100):
            file.write(np.random.default_rng(start).bytes(min(100, count - start) * 256 * 256 * 3))
        file.truncate(count * 256 * 256 * 3)
    return LabeledImages(store._mapped(path, (count, 256, 256, 3)), np.zeros(count, np.int64))


def measure_crops(temporary: Path) -> None:
    """Measure random crops of 224x224 from a store in the page cache, as a training reads them."""
    images = stored(temporary, 4000)
    int(images.images[:].max())  # into the page cache
    rates = []
    for epoch in range(ROUNDS):
        streamed = feed.Streamed(fake_model(), images, BOOK.with_changes(augment=("flip", "crop")), 0)
        began = time.perf_counter()
        count = sum(batch.size for batch in streamed.batches(epoch, 0))
        rates.append(count / (time.perf_counter() - began))
    show("crops of 224x224x3 from the store", rates, "crops/s")


def measure_index(temporary: Path) -> None:
    """List 100,000 files, and measure names, stamps and an epoch's order of 1.3 and 14 million pictures."""
    for label in range(100):
        for part in ("train", "test"):
            (temporary / part / f"class-{label:03}").mkdir(parents=True)
            for number in range(1000 if part == "train" else 1):
                (temporary / part / f"class-{label:03}" / f"picture-{number:08}.jpg").touch()
    began = time.perf_counter()
    listed = folder.load(temporary)
    seconds = time.perf_counter() - began
    print(f"listed {len(listed.train):,} files in {seconds:.2f} s: {1e6 * seconds / len(listed.train):.1f} us each")
    for count in (1_300_000, 14_000_000):
        before, began = anonymous_bytes(), time.perf_counter()
        per_class = count // 1000
        names = Names.joined([Names(f"n{label:08}/n{label:08}_{number}.JPEG" for number in range(per_class))
                              for label in range(1000)])
        stamps = np.zeros((len(names), 2), np.int64)
        built = time.perf_counter()
        order = epoch_order(len(names), 0, 0)
        ordered = time.perf_counter()
        text = names[int(order[0])]
        print(f"{len(names):,} pictures: names in {built - began:.1f} s, an epoch's order in {ordered - built:.2f} s, "
              f"{(anonymous_bytes() - before) / 1e6:,.0f} MB ({len(names.content) / 1e6:,.0f} MB of names, "
              f"{stamps.nbytes / 1e6:,.0f} MB of stamps, {order.nbytes / 1e6:,.0f} MB of order), such as {text}")
        del names, stamps, order


def measure_memory(temporary: Path) -> None:
    """Measure the private memory of an epoch over 1,000 and over 100,000 streamed pictures."""
    peaks = {}
    for count in (1000, 100_000):
        images = stored(temporary, count, is_sparse=True)
        streamed = feed.Streamed(fake_model(), images, BOOK.with_changes(augment=("flip", "crop")), 0)
        before, peak = anonymous_bytes(), 0
        for batch in streamed.batches(0, 0):
            assert batch.size
            peak = max(peak, anonymous_bytes())
        peaks[count] = peak - before
        print(f"{count:,} pictures, {images.nbytes / 1e9:.1f} GB: {peaks[count] / 1e6:.0f} MB of private memory")
    print(f"difference: {(peaks[100_000] - peaks[1000]) / 1e6:.0f} MB")


def measure_feed(temporary: Path, options: argparse.Namespace) -> None:
    """Compare an epoch's images per second: streamed and cropped by threads, cropped on the device, one batch only."""
    size, count = options.batch_size, options.batch_size * options.steps
    images = stored(temporary, count)
    int(images.images[:].max())  # into the page cache
    network = spec.with_channels(zoo.get_network(options.net), 3)
    recipe = BOOK.with_changes(augment=("flip", "crop"), batch_size=size)
    model = models.build(network, options.backend, device=options.device,
                         execution=Execution(precision=options.precision))
    print(f"{network.name} in {options.backend} on {model.device}, {options.precision}, batch {size}, "
          f"{options.steps} steps an epoch, {os.cpu_count()} CPU cores")
    resident = feed.Resident(model, images, recipe, 0)
    feeds: dict[str, feed.Feed | None] = {"one batch": None, "on the device": resident}
    feeds.update({f"streamed, {readers} threads": feed.Streamed(model, images, recipe, 0)
                  for readers in options.readers.split(",")})
    rates: dict[str, list[float]] = {name: [] for name in feeds}
    losses: dict[str, float] = {}
    start = model.trainer(recipe.sgd, 0).export_state()
    for number in range(ROUNDS + 1):
        for name, fed in feeds.items():
            if isinstance(fed, feed.Streamed):
                feed.READERS = int(name.split()[1])
            trainer = model.trainer(recipe.sgd, 0)
            trainer.load_state(start)
            first = list(itertools.islice(resident.batches(number, 0), 1)) if fed is None else []
            began = time.perf_counter()
            for step, batch in enumerate(fed.batches(number, 0) if fed else first * options.steps):
                trainer.step(batch.data, batch.rows, step, batch.draws)
            losses[name] = float(trainer.read().losses.mean())
            if number:  # the first round compiles
                rates[name].append(count / (time.perf_counter() - began))
    for name, values in rates.items():
        show(name, values, "images/s")
        share = statistics.median(values) / statistics.median(rates["one batch"])
        print(f"  {share:.1%} of the rate of one batch, mean loss of the last epoch {losses[name]:.6f}")


def anonymous_bytes() -> int:
    """Return the memory of this process that belongs to no file."""
    status = Path(f"/proc/{os.getpid()}/status").read_text(encoding="ascii")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")))


if __name__ == "__main__":
    main()
