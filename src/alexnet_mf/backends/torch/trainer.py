"""Data that stays on the device, and the training step: one function of tensors, which a CUDA graph can replay."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.optim.sgd import sgd as update_by_sgd

from alexnet_mf.backends.contract import RATE_OUTSIDE, PlacedImages, Sgd, StepMetrics, Trainer, TrainerState
from alexnet_mf.backends.randomness import dropout_seed
from alexnet_mf.backends.torch import weights
from alexnet_mf.backends.torch.augment import augment, tensors
from alexnet_mf.backends.torch.graph import Graphed, GraphMemory
from alexnet_mf.data.augmentation import Draws
from alexnet_mf.data.preprocessing import PIXEL_SCALE, center_slices, check_inputs, input_size
from alexnet_mf.errors import BackendUnavailable
from alexnet_mf.spec import Network


class Placed(PlacedImages):
    """Images and labels on the device."""

    def batch(self, rows: torch.Tensor | slice, draws: Draws | None = None,
              drawn: tuple[torch.Tensor, ...] = ()) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the network's input and the labels of some rows."""
        return pixels(self.inputs[rows], self.size, draws, drawn), self.labels[rows]


def place(network: Network, inputs: NDArray[Any], labels: NDArray[np.int64], device: torch.device) -> Placed:
    """Copy images and labels to the device, once."""
    check_inputs(inputs, labels, network)
    return Placed(to_device(inputs, device), torch.tensor(labels, device=device), input_size(network))


def to_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy an array to the device. A GPU copies from pinned memory while the program continues."""
    if device.type != "cuda":
        return torch.tensor(array, device=device)
    return torch.from_numpy(np.ascontiguousarray(array)).pin_memory().to(device, non_blocking=True)


def pixels(images: torch.Tensor, size: tuple[int, int], draws: Draws | None = None,
           drawn: tuple[torch.Tensor, ...] = ()) -> torch.Tensor:
    """Return the network's input: levels are cropped, augmented, upsampled and scaled, ready inputs only augmented."""
    if images.dtype != torch.uint8:
        return augment(images, draws, drawn, 1.0) if draws else images
    levels = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2)
    if draws:
        return upsample(augment(levels.float(), draws, drawn, 255.0), size)
    rows, columns = center_slices(levels.shape[2:], size)
    return upsample(levels[..., rows, columns], size)


def upsample(levels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Turn levels (n, channels, h, w) into pixels (n, channels, *size): interpolated first, then scaled, to stay
    exact."""
    levels = levels.float()
    if levels.shape[2:] != size:
        levels = functional.interpolate(levels, size, mode="bilinear", align_corners=False)
    return levels * float(PIXEL_SCALE)


def autocast(device: str, precision: str) -> AbstractContextManager[object]:
    """Return the context in which convolutions and matrix products may take bfloat16.

    Weights, their gradients and the loss stay float32.
    """
    if precision != "bfloat16":
        return nullcontext()
    return torch.autocast(device.partition(":")[0], torch.bfloat16)


def compiled(net: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Compile the network, once for each batch size and mode. Dropout keeps the eager network's masks.

    Raises:
        BackendUnavailable: if there is no C++ compiler.
    """
    if not has_compiler("CXX", "g++"):
        raise BackendUnavailable("backend torch: torch.compile needs a C++ compiler; install g++, set CXX, or leave "
                                 "out `compile=True`")
    logging.getLogger("torch").setLevel(logging.ERROR)  # Inductor's warnings are advice to programmers
    return torch.compile(net, dynamic=False, options={"fallback_random": True})


def has_compiler(variable: str, *usual: str) -> bool:
    """Return True if the compiler that a variable of the environment names, or one of the usual ones, is installed."""
    named = shlex.split(os.environ.get(variable, ""))[:1]
    return any(shutil.which(name) for name in named or usual)


def seed_dropout(device: torch.device, seed: int) -> None:
    """Seed the device's default generator, from which nn.Dropout draws."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
    else:
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


class Readings:
    """Loss and number of correct images of each step since the last reading, on the device, in one block of memory.

    Separate tensors would be allocated, step by step, inside the large blocks that a step has freed; the blocks of the
    next step would no longer fit there, and the process would grow (by 140 MB a step at batch 128, measured).
    """

    def __init__(self, device: torch.device, room: int = 1024) -> None:
        self._losses = torch.zeros(room, device=device)
        self._correct = torch.zeros(room, dtype=torch.int64, device=device)
        self._steps = 0

    def add(self, loss: torch.Tensor, correct: torch.Tensor) -> None:
        if self._steps == len(self._losses):
            self._losses, self._correct = (torch.cat([kept, kept]) for kept in (self._losses, self._correct))
        self._losses[self._steps], self._correct[self._steps] = loss, correct
        self._steps += 1

    def take(self) -> StepMetrics:
        """Return the metrics and clear them; waits for the device."""
        steps, self._steps = self._steps, 0
        return StepMetrics(self._losses[:steps].cpu().numpy().astype(np.float64),
                           self._correct[:steps].cpu().numpy().copy())


class Update:
    """SGD's update of a network, by the function behind `torch.optim.SGD`.

    The class imports PyTorch's compiler with its first object, which takes 1 to 4 s.
    """

    def __init__(self, net: nn.Sequential, learning_rate: float | torch.Tensor, sgd: Sgd, fused: bool) -> None:
        self.parameters = dict(net.named_parameters())
        self.velocity: dict[str, torch.Tensor] = {}
        """Velocity by parameter; exists from the first step with momentum on."""
        self.options: dict[str, Any] = {
            "lr": learning_rate, "momentum": sgd.momentum, "weight_decay": sgd.weight_decay, "dampening": 0.0,
            "nesterov": False, "maximize": False, "fused": fused or None}

    def drop_gradients(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        learning = {name: value for name, value in self.parameters.items() if value.grad is not None}
        gradients = [value.grad for value in learning.values() if value.grad is not None]
        velocity = [self.velocity.get(name) for name in learning]
        update_by_sgd(list(learning.values()), gradients, velocity, **self.options)
        self.velocity |= {name: value for name, value in zip(learning, velocity) if value is not None}


class TorchTrainer(Trainer[Placed]):
    """SGD steps: the network as it is called, eager or compiled, and PyTorch's update."""

    def __init__(self, net: nn.Sequential, call: Callable[[torch.Tensor], torch.Tensor], sgd: Sgd, seed: int,
                 speed: frozenset[str] = frozenset(), precision: str = "float32", graphs: GraphMemory | None = None):
        self.net = net
        self.call = call
        self.seed = seed
        self.precision = precision
        self.graphs = graphs
        self.device = next(net.parameters()).device
        self.is_compiled = "compile" in speed
        fused = "fused" in speed
        # A graph reads the rate from memory; PyTorch's other updates take no rate from the device.
        rate = torch.tensor(sgd.learning_rate, device=self.device) if graphs and fused else sgd.learning_rate
        self.update = Update(net, rate, sgd, fused)
        if graphs and sgd.momentum:  # a replay cannot tell the first step, which has no velocity, from the others
            self.update.velocity = {name: torch.zeros_like(value) for name, value in net.named_parameters()}
        self.readings = Readings(self.device)
        self._recorded: tuple[Any, ...] = ()
        """Data of `_compute`, unless they serve one step, and the values that its draws have in common."""
        self._compute: Callable[..., tuple[torch.Tensor, ...]]

    def step(self, data: Placed, indices: NDArray[np.int64] | None, number: int, draws: Draws | None = None) -> None:
        stays = None if indices is None else data
        wanted = (stays, draws and (draws.kinds, draws.padding, draws.size))
        if self._recorded != wanted:
            self._recorded, self._compute = wanted, self._step_on(stays, data.size, draws)
        batch = (data.inputs, data.labels) if indices is None else (
            torch.from_numpy(indices).to(self.device, non_blocking=True),)
        self._begin(number)
        self.readings.add(*self._compute(*batch, *(tensors(draws, self.device) if draws else ())))

    def prepare(self, data: Placed, size: int) -> None:
        if self.is_compiled:
            with weights.keeping_statistics(self.net):
                self.forward_backward(*data.batch(slice(size)), 0)  # seeds dropout, as each step does
            self.update.drop_gradients()

    def set_rate(self, learning_rate: float) -> None:
        """Take the next steps at this learning rate."""
        rate = self.update.options["lr"]
        if isinstance(rate, torch.Tensor):
            rate.fill_(learning_rate)
        else:
            self.update.options["lr"] = learning_rate
            self._recorded = ()  # a recorded step has the rate in it

    def _step_on(self, data: Placed | None, size: tuple[int, int],
                 draws: Draws | None) -> Callable[..., tuple[torch.Tensor, ...]]:
        """Return the step on this data as a function of tensors: rows and draws to loss and number correct. Without
        data the images and their labels replace the rows.

        It does not refer to the trainer: with a reference cycle a finished training would stay in memory.
        """
        call, update, precision = self.call, self.update, self.precision

        def compute(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            if data:
                inputs, labels = data.batch(tensors[0], draws, tensors[1:])
            else:
                inputs, labels = pixels(tensors[0], size, draws, tensors[2:]), tensors[1]
            loss, logits = forward_backward(call, update, inputs, labels, precision)
            update.step()
            return loss, (logits.argmax(1) == labels).sum()

        return Graphed(compute, self.graphs) if self.graphs else compute

    def forward_backward(self, pixels: torch.Tensor, labels: torch.Tensor,
                         number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute gradients in place; return the loss and the logits."""
        self._begin(number)
        return forward_backward(self.call, self.update, pixels, labels, self.precision)

    def _begin(self, number: int) -> None:
        """Switch dropout on, with the masks of this step."""
        if not self.net.training:  # `train` walks through all modules: 40 us
            self.net.train()
        seed_dropout(self.device, dropout_seed(self.seed, number))

    def read(self) -> StepMetrics:
        return self.readings.take()

    def export_state(self) -> TrainerState:
        velocity = {name: value.cpu().numpy().copy() for name, value in self.update.velocity.items()}
        return TrainerState(weights.export(self.net), velocity, RATE_OUTSIDE)

    def load_state(self, state: TrainerState) -> None:
        weights.load(self.net, state.parameters)
        velocity = self.update.velocity
        for name, parameter in self.update.parameters.items():
            if name in state.velocity:
                # In the parameter's own memory layout: the fused update reads both by position. An existing velocity
                # stays in place: a graph reads it there.
                velocity.setdefault(name, torch.empty_like(parameter)).copy_(torch.from_numpy(state.velocity[name]))
            elif name in velocity:
                velocity[name].zero_()


def forward_backward(call: Callable[[torch.Tensor], torch.Tensor], update: Update, pixels: torch.Tensor,
                     labels: torch.Tensor, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute gradients in place; return the loss and the logits."""
    update.drop_gradients()  # before the forward pass, whose activations can then have the gradients' memory
    with autocast(pixels.device.type, precision):
        logits = call(pixels)
    loss = mean_loss(logits, labels)
    loss.backward()
    return loss.detach(), logits.detach()


def mean_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean loss in float32: under autocast a GPU rounds each image's to bfloat16 (seen in torch 2.11)."""
    return functional.cross_entropy(logits.float(), labels)
