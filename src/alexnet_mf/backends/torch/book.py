"""The PyTorch tab of section 8.1, as a reader would type it: every number a literal, eager, no settings.

It verifies how `alexnet-tab-torch` is built, and is the baseline of the benchmark. Nothing else uses it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset


def alexnet() -> nn.Sequential:
    """Return the tab's 21 modules."""
    return nn.Sequential(
        nn.Conv2d(1, 96, kernel_size=11, stride=4, padding=1), nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(96, 256, kernel_size=5, padding=2), nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(256, 384, kernel_size=3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 384, kernel_size=3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Flatten(),
        nn.Linear(6400, 4096), nn.ReLU(), nn.Dropout(p=0.5),
        nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(p=0.5),
        nn.Linear(4096, 10),
    )


def initialize(net: nn.Sequential) -> None:
    """Draw Xavier-uniform weights; the biases stay as PyTorch draws them."""
    for module in net:
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(module.weight)


class Images(Dataset[Any]):
    """Gray images, resized one by one on the host with PIL and scaled to [0, 1]."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64]):
        self.images, self.labels = images, labels
        self.transform = torchvision.transforms.Compose([
            torchvision.transforms.ToPILImage(), torchvision.transforms.Resize(224), torchvision.transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[i]), int(self.labels[i])


def loader(images: NDArray[np.uint8], labels: NDArray[np.int64], shuffle: bool, batch_size: int = 128,
           workers: int = 4) -> DataLoader[Any]:
    """Return batches of images that worker processes resize."""
    return DataLoader(Images(images, labels), batch_size, shuffle=shuffle, num_workers=workers)


def train(net: nn.Sequential, train_batches: DataLoader[Any], test_batches: DataLoader[Any], epochs: int = 10,
          lr: float = 0.01, device: str = "cpu") -> tuple[float, float, float, float]:
    """Train by the tab's loop. The clock excludes waiting for data and includes copies and reading metrics.

    Returns:
        The last epoch's loss, train accuracy and test accuracy, and examples per second.
    """
    initialize(net)
    net.to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    loss_of = nn.CrossEntropyLoss()
    seconds, seen = 0.0, 0
    for _ in range(epochs):
        loss_sum, correct, count = 0.0, 0, 0
        net.train()
        for x, y in train_batches:
            start = time.perf_counter()
            batch_loss, batch_correct = train_batch(net, optimizer, loss_of, x, y, device)
            loss_sum += batch_loss
            correct += batch_correct
            count += len(y)
            seconds += time.perf_counter() - start
        seen += count
        test_accuracy = evaluate(net, test_batches, device)
    return loss_sum / count, correct / count, test_accuracy, seen / seconds


def train_batch(net: nn.Sequential, optimizer: torch.optim.Optimizer, loss_of: nn.Module, x: torch.Tensor,
                y: torch.Tensor, device: str) -> tuple[float, int]:
    """Take the step that the clock measures; return the summed loss of the batch and the number of correct images."""
    optimizer.zero_grad()
    x, y = x.to(device), y.to(device)
    logits = net(x)
    loss = loss_of(logits, y)
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        return float(loss) * len(y), int((logits.argmax(1) == y).sum())


def evaluate(net: nn.Sequential, batches: Iterable[Any], device: str) -> float:
    """Return the top-1 accuracy."""
    net.eval()
    correct, count = 0, 0
    with torch.no_grad():
        for x, y in batches:
            correct += int((net(x.to(device)).argmax(1) == y.to(device)).sum())
            count += len(y)
    return correct / count


def calls(batch_size: int, device: str) -> dict[str, Callable[[], Any]]:
    """Return the benchmark's calls: `train` and `evaluate` on one batch that is ready on the host."""
    net = alexnet()
    initialize(net)
    net.to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    x, y = torch.rand(batch_size, 1, 224, 224), torch.randint(10, (batch_size,))

    def step() -> None:
        net.train()
        train_batch(net, optimizer, nn.CrossEntropyLoss(), x, y, device)

    return {"forward": lambda: evaluate(net, [(x, y)], device), "step": step}
