"""Diagnosis of a red rung: the first divergent layer, and the usual causes that reproduce the backend's result."""

from __future__ import annotations

from collections.abc import Callable

from alexnet_mf.parity.causes import forward, inputs, training
from alexnet_mf.parity.ladder import Comparison, Rung

IN_TRAINING = "logits and loss", "gradients", "SGD steps"
"""Rungs that a layer can fail by another output in training alone."""


def diagnose(comparison: Comparison, rungs: list[Rung]) -> list[str]:
    """Return sentences on the lowest red rung; none if all rungs hold."""
    red = {rung.name: rung for rung in rungs if not rung.holds}
    sentences = []
    if "layers and weights" in red:
        wrong = comparison.subject.meta["exported_sha256"]
        failures = red["layers and weights"].failures
        sentences = [failure.what for failure in failures if failure.where not in wrong]
        tensors = [failure.where for failure in failures if failure.where in wrong]
        if tensors:
            sentences.append(inputs.diagnose_parameters(comparison, tensors))
            red = {name: red[name] for name in ("pixels", "layer outputs", "output shapes") if name in red}
    finders: dict[str, Callable[[Comparison, Rung], str]] = {
        "pixels": inputs.diagnose_pixels, "layer outputs": forward.diagnose_layers,
        "output shapes": forward.diagnose_layers, "logits and loss": training.diagnose_loss,
        "gradients": training.diagnose_gradients, "SGD steps": training.diagnose_steps,
        "dropout": _words, "predicted classes": _words, "weight exchange": _continued}
    for name, find in finders.items():
        if name in red:
            in_training = forward.diagnose_training(comparison) if name in IN_TRAINING else None
            return [*sentences, in_training or find(comparison, red[name])]
    return sentences


def _words(c: Comparison, rung: Rung) -> str:
    """Return the words of the failed measurements."""
    return "; ".join(dict.fromkeys(failure.what for failure in rung.failures if failure.what))


def _continued(c: Comparison, rung: Rung) -> str:
    """Return the cause of wrong weights after continued training, as text."""
    failures = [failure.where for failure in rung.failures]
    if "export" in failures:
        return _words(c, rung)
    if "loss of continued step 1" in failures:
        return "continued steps: start from other weights, since the first loss already differs"
    return "continued steps: start from the right weights, then differ"
