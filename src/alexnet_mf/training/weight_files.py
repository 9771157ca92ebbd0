"""The canonical weights in a run folder: the last, and those of the best test accuracy."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_mf import files, parameters, spec
from alexnet_mf.errors import ParametersError
from alexnet_mf.parameters import Parameters
from alexnet_mf.training.folder import BEST, WEIGHTS
from alexnet_mf.training.loop import Epoch, Snapshot


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
        header = {"network": self.network, "seed": self.seed, "step": step}
        if done:
            header |= dataclasses.asdict(done)
        files.write(self.folder / WEIGHTS, parameters.to_bytes(weights, header))
        if done and (self._best is None or done.test_accuracy > self._best):
            files.link(self.folder / WEIGHTS, self.folder / BEST)
            self._best = done.test_accuracy

    def mend(self, snapshot: Snapshot) -> list[str]:
        """Write the last weights anew where they are damaged; the best that are damaged are the best no more.

        Returns:
            what was wrong, a line each.

        Raises:
            OSError: where they cannot be written.
        """
        position, network, told = snapshot.position, spec.from_dict(self.network), []
        try:
            if position.epochs or (self.folder / WEIGHTS).exists():
                parameters.load(self.folder / WEIGHTS, network)
        except ParametersError as fault:
            told.append(f"{_first_clause(fault)}; written anew from the checkpoint")
            self.save({name: value.astype(np.float32) for name, value in snapshot.state.parameters.items()},
                      position.number)
        if not position.epochs:
            return told
        try:
            _, header = parameters.load_with_metadata(self.folder / BEST, network)
            accuracy = header.get("test_accuracy")
            if not isinstance(accuracy, float):
                raise ParametersError(f"{self.folder / BEST}: is damaged: it does not say whose weights it holds")
            self._best = accuracy
        except ParametersError as fault:
            told.append(f"{_first_clause(fault)}; the best of the epochs to come will take its place")
        return told


def _first_clause(fault: Exception) -> str:
    return str(fault).partition(";")[0]
