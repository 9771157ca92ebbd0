"""Checkpoints and SavedModels of TensorFlow: refused, with the line of Python that writes their weights to a file."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import NoReturn

from alexnet_mf.errors import ParametersError

PART_OF_CHECKPOINT = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
"""End of the name of one of a checkpoint's files."""
VARIABLES = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance", "weights", "biases")
"""Last parts of the names of weights in checkpoints."""


def refuse(path: Path) -> None:
    """Refuse a SavedModel folder, which is a program, or a checkpoint of TensorFlow, which only TensorFlow reads.

    Raises:
        ParametersError: if it is one; has the line of Python that writes its variables to a file.
    """
    is_saved_model, prefix = False, None
    with contextlib.suppress(OSError, ValueError):  # of a path without a name, or with one that is too long
        is_saved_model, prefix = (path / "saved_model.pb").exists(), _checkpoint(path)
    if is_saved_model:
        raise ParametersError(
            f"{path}: is a SavedModel, a program; write its variables with: import numpy as np, tensorflow as tf; "
            f"m = tf.saved_model.load({str(path)!r}); v = m.signatures['serving_default'].variables; "
            "np.savez('weights.npz', **{f\"{sum('/kernel:' in x.name for x in v[:i + 1])}/{x.name[:-2]}\": x.numpy() "
            "for i, x in enumerate(v)})")
    if prefix is not None:
        _refuse_checkpoint(path, prefix)


def _checkpoint(path: Path) -> Path | None:
    """Return the folder of checkpoints, or the path of a checkpoint without the endings of its files."""
    folder = path.parent if path.name == "checkpoint" and path.is_file() else path
    if folder.is_dir():
        return folder if any(folder.glob("*.data-?????-of-?????")) and any(folder.glob("*.index")) else None
    stem = PART_OF_CHECKPOINT.sub("", path.name)
    parts = {entry.name for entry in path.parent.iterdir() if entry.name.startswith(stem)} if stem else set()
    is_whole = f"{stem}.index" in parts and any(part.startswith(f"{stem}.data-") for part in parts)
    return path.with_name(stem) if is_whole and stem not in parts else None


def _refuse_checkpoint(path: Path, prefix: Path) -> NoReturn:
    newest = f"tf.train.latest_checkpoint({str(prefix)!r})" if prefix.is_dir() else repr(str(prefix))
    raise ParametersError(
        f"{path}: is a checkpoint of TensorFlow; if you have its Keras model, write: import tensorflow as tf; "
        f"tf.train.Checkpoint(model=model).restore({newest}).expect_partial(); model.save('model.keras'); else, if "
        "it has names of layers, write: import re, numpy as np, tensorflow as tf; r = tf.train.load_checkpoint("
        f"{str(prefix)!r}); np.savez('weights.npz', **{{n.partition('/.')[0].replace('/_', '/'): r.get_tensor(n) "
        "for n in sorted(r.get_variable_to_shape_map(), key=lambda n: [int(t) for t in re.findall('[0-9]+', n)]) "
        f"if re.search('({'|'.join(VARIABLES)})(/.ATTRIBUTES/VARIABLE_VALUE)?$', n)}})")
