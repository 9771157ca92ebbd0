"""The weights files in a run folder: the last weights, and those of the best test accuracy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from alexnet_mf import files
from alexnet_mf.conversion import RUN_WEIGHTS
from alexnet_mf.errors import ParametersError
from alexnet_mf.spec import Network
from alexnet_mf.training.loop import Epoch, Snapshot
from alexnet_mf.training.record import Run
from alexnet_mf.weights import metadata, parameters
from alexnet_mf.weights.parameters import Parameters

WEIGHTS, BEST = RUN_WEIGHTS["last"], RUN_WEIGHTS["best"]


class WeightFiles:
    """Writer of both weights files of a run."""

    def __init__(self, folder: Path, run: Run):
        """
        Args:
            run: source of the network and the seed in the files.
        """
        self.folder = folder
        self.run = run
        self._best: float | None = None
        """Test accuracy of the best weights."""
        self._better: float | None = None
        """Test accuracy of the last weights, if they will replace the best."""

    def save(self, weights: Parameters, step: int, done: Epoch | None = None) -> None:
        """Write the last weights. After the best epoch so far, `keep_best` makes them the best weights.

        Args:
            step: steps taken.
            done: the epoch that has finished.

        Raises:
            OSError: if they cannot be written; the old files stay.
        """
        files.write(self.folder / WEIGHTS, *self._content(weights, step, done))
        is_better = done is not None and (self._best is None or done.test_accuracy > self._best)
        self._better = done.test_accuracy if done and is_better else None
        if self._best is None:  # no earlier best weights to keep
            self.keep_best()

    def keep_best(self) -> None:
        """Replace the best weights with the last if these are better. The epoch must have its checkpoint: a run
        that resumes from an earlier checkpoint needs the earlier best weights.

        Raises:
            OSError: if they cannot be written; the earlier best weights stay.
        """
        if self._better is not None:
            files.link(self.folder / WEIGHTS, self.folder / BEST)
            self._best, self._better = self._better, None

    def repair(self, snapshot: Snapshot) -> list[str]:
        """Rewrite damaged weights from a snapshot: the last, and the best if the snapshot holds them. Otherwise damaged
        best weights, and those from a later step than the snapshot, no longer count.

        Returns:
            A line for each fault.

        Raises:
            OSError: if they cannot be written.
        """
        position, network, faults = snapshot.position, self.run.net, []
        done = position.closed_epoch

        def rewritten() -> list[bytes | memoryview]:
            return self._content(snapshot.weights(), position.number, done)

        try:
            if position.epochs or (self.folder / WEIGHTS).exists():
                parameters.load(self.folder / WEIGHTS, network)
        except ParametersError as fault:
            faults.append(f"{_first_clause(fault)}; rewritten from the checkpoint")
            files.write(self.folder / WEIGHTS, *rewritten())
        if not position.epochs:
            return faults
        here = done is not None and all(done.test_accuracy > epoch.test_accuracy for epoch in position.epochs[:-1])
        try:
            self._best = self._accuracy_of_best(network, position.number)
        except ParametersError as fault:
            faults.append(f"{_first_clause(fault)}; " + ("rewritten from the checkpoint" if here else
                                                       "the best of the next epochs will replace it"))
        if done and here and self._best != done.test_accuracy:
            files.write(self.folder / BEST, *rewritten())
            self._best = done.test_accuracy
        return faults

    def _content(self, weights: Parameters, step: int, done: Epoch | None) -> list[bytes | memoryview]:
        header = {"network": self.run.network, "seed": self.run.seed, "step": step,
                  **metadata.entries(self.run.net, self.run.prepared, self.run.classes)}
        return parameters.to_buffers(weights, header | (dataclasses.asdict(done) if done else {}))

    def _accuracy_of_best(self, network: Network, step: int) -> float | None:
        """Return the best weights' test accuracy, or None if they are from a later step, which has no checkpoint."""
        _, header = parameters.load_with_metadata(self.folder / BEST, network)
        accuracy, of_step = header.get("test_accuracy"), header.get("step")
        if not isinstance(accuracy, float) or not isinstance(of_step, int):
            raise ParametersError(f"{self.folder / BEST}: is damaged: its header has no accuracy and step")
        return accuracy if of_step <= step else None


def _first_clause(fault: Exception) -> str:
    return str(fault).partition(";")[0]
