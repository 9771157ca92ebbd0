"""A trace: one backend's results for a case, as a file for other environments and machines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from alexnet_mf import files, spec
from alexnet_mf.backends.contract import Backend, Model, Sgd
from alexnet_mf.errors import TraceError
from alexnet_mf.parity.case import Case
from alexnet_mf.spec import layers
from alexnet_mf.weights import parameters
from alexnet_mf.weights.parameters import Parameters

FORMAT = 1
KEY = "alexnet_mf_trace"
HEADER: dict[str, Any] = {
    "backend": str, "versions": dict, "settings": dict, "device": str, "layers": list[dict[str, Any]],
    "parameters_sha256": str, "exported_sha256": dict, "loss": float, "step_losses": list[float],
    "continued_losses": list[float], "continued_from_sha256": str, "evaluates_the_same_twice": bool,
    "dropout_step_loss": float | None}
"""Fields of the header that the ladder reads, beside the case, and their types."""
ROW: dict[str, Any] = {"name": str, "shape": list, "parameters": int}
"""Fields of each layer in the header, and their types."""
DROPOUT_STEPS = {"first": 0, "second": 1, "again": 0}
"""Steps at which dropout is recorded, one of them twice."""


@dataclass
class Trace:
    """A backend's results. Tensors are named by group and layer or parameter: `outputs/conv1`, `gradients/fc6.bias`.

    Groups: `inputs` and `labels` of the case; `pixels`, the network's input; `outputs` of each layer, and in
    `training` mode without dropout; `gradients` of each trained parameter; `stepped`, each parameter and running
    statistic after the SGD steps; `stepwise`, the outputs in training mode before each of these; `logits` of every
    input; `dropped`, the inputs and outputs of the dropout layers in training, and the resulting logits.
    """

    meta: dict[str, Any]
    tensors: dict[str, NDArray[Any]]

    @property
    def backend(self) -> str:
        return str(self.meta["backend"])

    def group(self, name: str) -> dict[str, NDArray[Any]]:
        """Return a group's tensors by the name of the layer or parameter."""
        return {key[len(name) + 1:]: value for key, value in self.tensors.items() if key.startswith(name + "/")}

    def case(self) -> Case:
        """Return the case that the backend computed."""
        plan = dict(self.meta["plan"])
        return Case(spec.from_dict(self.meta["network"]), self.meta["seed"], self.tensors["inputs"],
                    self.tensors["labels"], self.meta["data"], **{**plan, "sgd": Sgd(**plan["sgd"])})


def trace(backend: Backend, case: Case, device: str = "cpu", continue_from: Parameters | None = None,
          build: Callable[..., Model[Any]] | None = None) -> Trace:
    """Run a case in a backend, and return everything that the ladder compares.

    Args:
        continue_from: parameters of another backend after the case's SGD steps; the further steps start from them, by
            default from the backend's own.
        build: replaces the backend's own `build`, for a model that is wrong on purpose or has another precision.
    """
    build = build or backend.build
    start = case.parameters()
    model = build(case.network, start, device)
    exported = model.export()
    batch = model.place(case.inputs[:case.batch], case.labels[:case.batch])
    outputs = model.outputs(batch)
    plain = build(spec.with_dropout(case.network, 0), start, device)
    # A framework may compute differently in training than in evaluation (MXNet's convolutions do), and so decide near
    # ties differently. So the trace also has the outputs that belong to the gradients.
    training_outputs = plain.outputs(batch, dropout=(case.seed, 0))
    loss, gradients = plain.gradients(batch)
    last = case.network.layers[-1].name
    same_twice = bool(np.array_equal(model.outputs(batch)[last], outputs[last]))
    everything = model.place(case.inputs, case.labels)
    logits = model.logits(everything, 2 * case.batch + 1)  # whole batches of another size, and a shorter last one
    dropped = dropout_activity(model, case, batch)
    begun = build(spec.with_dropout(case.network, 0), start, device)
    trained, losses, stepwise = run_steps(begun, case, 0, case.steps)
    further = build(spec.with_dropout(case.network, 0), continue_from or trained, device)
    _, continued, _ = run_steps(further, case, case.steps, case.continued)
    meta = {
        "format": FORMAT, "backend": backend.name, "versions": backend.versions(), "settings": backend.settings(),
        "device": model.device, "network": spec.as_dict(case.network), "seed": case.seed, "data": case.origin,
        "plan": {"batch": case.batch, "steps": case.steps, "continued": case.continued,
                 "sgd": dataclasses.asdict(case.sgd)},
        "case_sha256": case.digest(), "layers": [dataclasses.asdict(row) for row in model.describe()],
        "parameters_sha256": parameters.digest(exported), "exported_sha256": digests(exported),
        "loss": loss, "step_losses": losses, "continued_losses": continued,
        "continued_from_sha256": parameters.digest(continue_from or trained),
        "evaluates_the_same_twice": same_twice, "dropout_step_loss": dropout_step_loss(model, case, batch),
    }
    tensors: dict[str, NDArray[Any]] = {"inputs": case.inputs, "labels": case.labels, "pixels": model.pixels(batch),
                                        "logits": logits}
    groups = {"outputs": outputs, "training": training_outputs, "gradients": gradients, "stepped": trained,
              "stepwise": stepwise, "dropped": dropped}
    for group, values in groups.items():
        tensors |= {f"{group}/{name}": value for name, value in values.items()}
    return Trace(meta, tensors)


def run_steps(model: Model[Any], case: Case, first: int,
              count: int) -> tuple[Parameters, list[float], dict[str, NDArray[Any]]]:
    """Return the parameters after some SGD steps, the loss of each, and every layer's outputs before each."""
    everything = model.place(case.inputs, case.labels)
    trainer = model.trainer(case.sgd, case.seed)
    stepwise = {}
    for step in range(first, first + count):
        rows = case.rows(step)
        batch = model.place(case.inputs[rows], case.labels[rows])
        for name, value in model.outputs(batch, dropout=(case.seed, step)).items():
            stepwise[f"{step}/{name}"] = value
        trainer.step(everything, rows, step)
    losses = trainer.read().losses.tolist()
    return model.export(), losses, stepwise


def dropout_activity(model: Model[Any], case: Case, batch: Any) -> dict[str, NDArray[Any]]:
    """Return each dropout layer's inputs and outputs in training, at two steps and at the first one again, and the
    logits of the first one."""
    result: dict[str, NDArray[Any]] = {}
    for label, step in DROPOUT_STEPS.items():
        outputs = model.outputs(batch, dropout=(case.seed, step))
        before = dict(zip(outputs, [model.pixels(batch), *outputs.values()]))
        for layer in case.network.layers:
            if isinstance(layer, layers.Dropout):
                result[f"{layer.name}/{label}/out"] = outputs[layer.name]
                result[f"{layer.name}/{label}/in"] = before[layer.name]
                result.setdefault("logits", outputs[case.network.layers[-1].name])
    return result


def dropout_step_loss(model: Model[Any], case: Case, batch: Any) -> float | None:
    """Return the loss of one SGD step with dropout on the first batch, or None if the network has no dropout."""
    if not any(isinstance(layer, layers.Dropout) for layer in case.network.layers):
        return None
    trainer = model.trainer(case.sgd, case.seed)
    trainer.step(batch, np.arange(case.batch), 0)
    return float(trainer.read().losses[0])


def digests(values: Parameters) -> dict[str, str]:
    """Return the SHA-256 of each parameter."""
    return {name: parameters.digest({name: value}) for name, value in values.items()}


def save(path: Path, answer: Trace) -> None:
    """Write a trace as one safetensors file; other values go into its header as JSON. All tensors are float32
    except the reference's layer outputs: only float64 resolves their near ties.

    Raises:
        TraceError: if the file cannot be written.
    """
    tensors = {}
    for name, value in answer.tensors.items():
        exact = answer.backend == "numpy" and name.startswith(("outputs/", "training/", "logits"))
        keep = exact or value.dtype.kind in "iu"
        tensors[name] = np.ascontiguousarray(value if keep else value.astype(np.float32, copy=False))
    try:
        with files.replacing(path) as partial:
            save_file(tensors, partial, {KEY: json.dumps(answer.meta)})
    except (OSError, SafetensorError) as error:
        raise TraceError(f"{path}: cannot be written ({error}); name another file") from error


def load(path: Path) -> Trace:
    """Read a trace, and check that it is complete.

    Raises:
        TraceError: if the file is missing, truncated, not a trace, of another format, or contains NaN or infinity.
    """
    if path.is_dir():
        raise TraceError(f"{path}: is a folder, not a trace; name the files that `parity_trace` wrote")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError, TypeError) as error:  # TypeError: a dtype that NumPy lacks, such as bfloat16
        raise TraceError(f"{path}: cannot be read as a trace ({error}); `parity_trace` writes traces") from error
    if KEY not in metadata:
        content = "a weights file" if parameters.KEY in metadata else "a safetensors file of other content"
        raise TraceError(f"{path}: is {content}, not a trace; `parity_trace` writes traces")
    try:
        answer = Trace(files.parse_json(metadata[KEY], nan=True), tensors)  # a wrong model's loss may be NaN
        if answer.meta["format"] != FORMAT:
            raise TraceError(f"{path}: a trace of format {answer.meta['format']}, but this version reads {FORMAT}; "
                             f"write it again with `parity_trace`")
        case = answer.case()
        check_whole(path, answer, case)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, TraceError):
            raise
        raise TraceError(f"{path}: not a trace: its header is damaged ({type(error).__name__} {error}); `parity_trace` "
                         "writes traces") from error
    return answer


def check_whole(path: Path, answer: Trace, case: Case) -> None:
    """Check that a trace is complete: it has every tensor of its network, finite and of the right shape.

    Raises:
        TraceError: names the tensors.
    """
    if case.digest() != answer.meta["case_sha256"]:
        raise TraceError(f"{path}: its inputs do not match its header; write it again with `parity_trace`")
    expected = {f"{group}/{name}": shape for group in ("gradients", "stepped")
                for name, shape in parameters.shapes(case.network).items()
                if group == "stepped" or parameters.is_trained(name)}
    faults = header_faults(answer.meta)
    for name, count in (("step_losses", case.steps), ("continued_losses", case.continued)):
        if isinstance(answer.meta.get(name), list) and len(answer.meta[name]) != count:
            faults.append(f"{len(answer.meta[name])} {name}, not {count}")
    steps = [f"stepwise/{step}" for step in range(case.steps)]
    outputs = [f"{group}/{layer.name}" for group in ("outputs", "training", *steps) for layer in case.network.layers]
    dropped = [f"dropped/{layer.name}/{call}/{side}" for layer in case.network.layers
               if isinstance(layer, layers.Dropout) for call in DROPOUT_STEPS for side in ("in", "out")]
    needed = (*expected, *outputs, "pixels", "logits", *dropped, *(["dropped/logits"] if dropped else []))
    faults += [f"missing {name}" for name in needed if name not in answer.tensors]
    for name, value in answer.tensors.items():
        if name.startswith(("gradients/", "stepped/")) and name not in expected:
            faults.append(f"surplus {name}")
        elif name in expected and value.shape != expected[name]:
            faults.append(f"{name} is {value.shape}, not {expected[name]}")
        elif value.dtype.kind == "f" and not np.isfinite(value).all():
            faults.append(f"{name} contains NaN or infinity")
        elif name not in ("inputs", "labels") and value.dtype not in (np.float32, np.float64):
            faults.append(f"{name} is {value.dtype}, not float32")
    if faults:
        raise TraceError(f"{path}: {'; '.join(faults)}")


def header_faults(meta: dict[str, Any]) -> list[str]:
    """Return the faults of a header: missing fields, and fields of a type that the ladder cannot read."""
    faults = [f"missing {name} in its header" for name in HEADER if name not in meta]
    wrong = [name for name, type_ in HEADER.items() if name in meta and not is_a(meta[name], type_)]
    if "layers" in meta and "layers" not in wrong:
        wrong += [f"layers.{key}" for key, type_ in ROW.items()
                  if not all(is_a(row.get(key), type_) for row in meta["layers"])]
    if not is_a(meta.get("float32_cost", {}), dict[str, float]):  # the reference's alone
        wrong.append("float32_cost")
    return [*faults, *(f"{name} in its header has the wrong type" for name in wrong)]


def is_a(value: Any, type_: Any) -> bool:
    """Return True if a JSON value is of a type."""
    try:
        msgspec.convert(value, type_)
    except (msgspec.ValidationError, OverflowError):
        return False
    return True
