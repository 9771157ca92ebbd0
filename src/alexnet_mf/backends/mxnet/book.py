"""The MXNet tab of section 8.1, as a reader would type it: every number a literal, imperative, no settings.

It verifies how `alexnet-tab-mxnet` is built, and is the baseline of the benchmark. Nothing else uses it. Its import
switches the whole process to NumPy semantics, as the tab does; the backend's own code needs them off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import mxnet as mx
from mxnet import autograd, gluon, init, np, npx
from mxnet.gluon import nn
from numpy.typing import NDArray

npx.set_np()


def alexnet() -> nn.Sequential:
    """Return the tab's 13 blocks, not hybridized; conv1 is not padded, and Dense flattens by itself."""
    net = nn.Sequential()
    net.add(
        nn.Conv2D(96, kernel_size=11, strides=4, activation="relu"), nn.MaxPool2D(pool_size=3, strides=2),
        nn.Conv2D(256, kernel_size=5, padding=2, activation="relu"), nn.MaxPool2D(pool_size=3, strides=2),
        nn.Conv2D(384, kernel_size=3, padding=1, activation="relu"),
        nn.Conv2D(384, kernel_size=3, padding=1, activation="relu"),
        nn.Conv2D(256, kernel_size=3, padding=1, activation="relu"), nn.MaxPool2D(pool_size=3, strides=2),
        nn.Dense(4096, activation="relu"), nn.Dropout(0.5),
        nn.Dense(4096, activation="relu"), nn.Dropout(0.5),
        nn.Dense(10),
    )
    return net


def initialize(net: nn.Sequential, context: mx.Context) -> None:
    """Draw Xavier-uniform weights; biases are zero."""
    net.initialize(init.Xavier(), ctx=context, force_reinit=True)


def loader(images: NDArray[np.uint8], labels: NDArray[np.int64], shuffle: bool, batch_size: int = 128,
           workers: int = 4) -> gluon.data.DataLoader:
    """Return batches of images, resized one by one on the host with OpenCV and scaled to [0, 1]."""
    transform = gluon.data.vision.transforms.Compose([
        gluon.data.vision.transforms.Resize(224), gluon.data.vision.transforms.ToTensor()])
    pairs = gluon.data.ArrayDataset(np.array(images[..., np.newaxis], dtype=np.uint8), labels.astype(np.int32))
    return gluon.data.DataLoader(pairs.transform_first(transform), batch_size, shuffle=shuffle, num_workers=workers)


def train(net: nn.Sequential, train_batches: Iterable[Any], test_batches: Iterable[Any], epochs: int = 10,
          lr: float = 0.01, context: mx.Context | None = None) -> tuple[float, float, float, float]:
    """Train by the tab's loop. The clock excludes waiting for data and includes copies and reading metrics.

    Returns:
        The last epoch's loss, train accuracy and test accuracy, and examples per second.
    """
    context = context or mx.cpu()
    initialize(net, context)
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": lr})
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    seconds, seen = 0.0, 0
    for _ in range(epochs):
        loss_sum, correct, count = 0.0, 0, 0
        for x, y in train_batches:
            start = time.perf_counter()
            batch_loss, batch_correct = train_batch(net, trainer, loss_of, x, y, context)
            loss_sum += batch_loss
            correct += batch_correct
            count += len(y)
            seconds += time.perf_counter() - start
        seen += count
        test_accuracy = evaluate(net, test_batches, context)
    return loss_sum / count, correct / count, test_accuracy, seen / seconds


def train_batch(net: nn.Sequential, trainer: gluon.Trainer, loss_of: gluon.loss.Loss, x: np.ndarray,
                y: np.ndarray, context: mx.Context) -> tuple[float, int]:
    """Take the step that the clock measures; return the summed loss of the batch and the number of correct images."""
    x, y = x.as_in_ctx(context), y.as_in_ctx(context)
    with autograd.record():
        logits = net(x)
        losses = loss_of(logits, y)
    losses.backward()
    trainer.step(len(y))
    return float(losses.sum()), int((logits.argmax(axis=1).astype(y.dtype) == y).sum())


def evaluate(net: nn.Sequential, batches: Iterable[Any], context: mx.Context) -> float:
    """Return the top-1 accuracy."""
    correct, count = 0, 0
    for x, y in batches:
        logits = net(x.as_in_ctx(context))
        correct += int((logits.argmax(axis=1).astype(y.dtype) == y.as_in_ctx(context)).sum())
        count += len(y)
    return correct / count


def calls(batch_size: int, context: mx.Context) -> dict[str, Callable[[], Any]]:
    """Return the benchmark's calls: `train` and `evaluate` on one batch that is ready on the host."""
    net = alexnet()
    initialize(net, context)
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.01})
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    x = np.random.uniform(size=(batch_size, 1, 224, 224))
    y = np.random.randint(0, 10, size=(batch_size,), dtype=np.int32)
    return {"forward": lambda: evaluate(net, [(x, y)], context),
            "step": lambda: train_batch(net, trainer, loss_of, x, y, context)}
