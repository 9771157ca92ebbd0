"""The canonical weights in a run folder: the last, and those of the best test accuracy."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_mf import files, spec
from alexnet_mf.errors import ParametersError
from alexnet_mf.training.folder import BEST, WEIGHTS
from alexnet_mf.training.loop import Epoch, Snapshot
from alexnet_mf.weights import parameters
from alexnet_mf.weights.parameters import Parameters


class WeightFiles:
    """Both files of a run."""

    def __init__(self, folder: Path, network: dict[str, Any], seed: int):
        """
        Args:
            network: as `spec.as_dict` gives it; it goes into the files, with the seed.
        """
        self.folder = folder
        self.network = network
        self.seed = seed
        self._best: float | None = None
        """The test accuracy of the best ones."""

    def save(self, weights: Parameters, step: int, done: Epoch | None = None) -> None:
        """Write the last weights; after the best epoch so far they are the best too.

        Args:
            step: steps taken.
            done: the epoch that is over.

        Raises:
            OSError: where they cannot be written; what was there stays.
        """
        files.write(self.folder / WEIGHTS, self._content(weights, step, done))
        if done and (self._best is None or done.test_accuracy > self._best):
            files.link(self.folder / WEIGHTS, self.folder / BEST)
            self._best = done.test_accuracy

    def mend(self, snapshot: Snapshot) -> list[str]:
        """Write the last weights anew where they are damaged; and the best too, where the snapshot's are. Others that
        are damaged, or of a later step than the run goes on from, are the best no more.

        Returns:
            what was wrong, a line each.

        Raises:
            OSError: where they cannot be written.
        """
        position, network, told = snapshot.position, spec.from_dict(self.network), []
        done = position.epochs[-1] if position.epochs and not position.images else None

        def anew() -> bytes:
            weights = {name: value.astype(np.float32) for name, value in snapshot.state.parameters.items()}
            return self._content(weights, position.number, done)

        try:
            if position.epochs or (self.folder / WEIGHTS).exists():
                parameters.load(self.folder / WEIGHTS, network)
        except ParametersError as fault:
            told.append(f"{_first_clause(fault)}; written anew from the checkpoint")
            files.write(self.folder / WEIGHTS, anew())
        if not position.epochs:
            return told
        here = done is not None and all(done.test_accuracy > epoch.test_accuracy for epoch in position.epochs[:-1])
        try:
            self._best = self._accuracy_of_best(network, position.number)
        except ParametersError as fault:
            told.append(f"{_first_clause(fault)}; " + ("written anew from the checkpoint" if here else
                                                       "the best of the epochs to come will take its place"))
        if done and here and self._best is None:
            files.write(self.folder / BEST, anew())
            self._best = done.test_accuracy
        return told

    def _content(self, weights: Parameters, step: int, done: Epoch | None) -> bytes:
        header = {"network": self.network, "seed": self.seed, "step": step}
        return parameters.to_bytes(weights, header | (dataclasses.asdict(done) if done else {}))

    def _accuracy_of_best(self, network: spec.Network, step: int) -> float | None:
        """None where they are of a later step: the run ended before it had a checkpoint of that one.

        Raises:
            ParametersError: where they are missing or damaged.
        """
        _, header = parameters.load_with_metadata(self.folder / BEST, network)
        accuracy, of_step = header.get("test_accuracy"), header.get("step")
        if not isinstance(accuracy, float) or not isinstance(of_step, int):
            raise ParametersError(f"{self.folder / BEST}: is damaged: it does not say whose weights it holds")
        return accuracy if of_step <= step else None


def _first_clause(fault: Exception) -> str:
    return str(fault).partition(";")[0]
