"""Time the training loop of the book's PyTorch or TensorFlow tab with its own loader, which `bench` leaves out.

    python benchmarks/book_loop.py --backend torch --device cuda

The wall clock times one epoch of Fashion-MNIST from $ALEXNET_MF_DATA_DIR, including the start of the loader, its
resizing of the images, and the wait for them. `alexnet-mf train --recipe book` is the same training in our style.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time

from alexnet_mf import backends, data
from alexnet_mf.cli import arguments
from alexnet_mf.instruments.machine import conditions


def main() -> None:
    """Print as JSON the images/s of the whole loop, the images/s by the book's own clock, and the conditions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch", choices=["torch", "tensorflow"], help="default: torch")
    parser.add_argument("--device", help="PyTorch's device (default: a GPU if there is one)")
    parser.add_argument("--batch-size", type=arguments.at_least_one, default=128, help="images (default: 128)")
    parser.add_argument("--images", type=arguments.at_least_one, default=60_000, help="of one epoch (default: 60,000)")
    options = parser.parse_args()
    device = options.device or backends.load(options.backend).devices()[0].name
    book = importlib.import_module(f"alexnet_mf.backends.{options.backend}.book")
    train = data.fashion_mnist.load().train.first(options.images)
    few = train.first(options.batch_size)
    batches = book.loader(train.images, train.labels, True, options.batch_size)
    test = book.loader(few.images, few.labels, False, options.batch_size)
    net, flags = book.alexnet(), {"device": device} if options.backend == "torch" else {}
    book.train(net, test, test, 1, **flags)  # the libraries' first calls
    start = time.perf_counter()
    *_, book_rate = book.train(net, batches, test, 1, **flags)
    seconds = time.perf_counter() - start
    print(json.dumps({**conditions(sys.argv), "versions": backends.load(options.backend).versions(),
                      "images": len(train.images), "seconds": seconds,
                      "images_per_second": len(train.images) / seconds,
                      "images_per_second_by_its_clock": book_rate}, indent=1))


if __name__ == "__main__":
    main()
