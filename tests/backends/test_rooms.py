"""Every backend has the same files, with the same functions in the same order."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import alexnet_mf
from alexnet_mf.backends import BACKENDS
from alexnet_mf.spec.layers import KINDS

FOLDER = Path(alexnet_mf.__file__).parent / "backends"
PUBLIC = {
    "network": ["build", "native", "names", "modules"],
    "layers": [],
    "book": ["alexnet", "initialize", "loader", "train", "train_batch", "evaluate", "calls"],
    "formats": ["encode"],
    "trainer": ["Placed", "place", "pixels", "upsample"],
    "augment": ["augment", "move", "color", "shift", "gray"],
    "weights": ["load", "export"],
    "speed": [],
    "backend": [],
}
"""Public names of each file in their order; a file may define others between and after them."""
ALSO = {"mxnet": {"compat"}, "tensorflow": {"quiet"}, "torch": {"allocations", "graph", "openmp", "pooling"}}
MISSING = {
    ("numpy", "book"): None,  # the chapter has no NumPy tab
    ("numpy", "speed"): None,  # the reference has no speed settings
    ("numpy", "formats"): None,  # .npz needs no backend
    ("numpy", "network"): ["build", "modules"],  # NumPy has no modules to be built
    ("tensorflow", "book"): ["alexnet", "loader", "train", "calls"],  # Keras initializes and loops by itself
}
METHODS = {
    "Model": ["describe", "export", "place", "pixels", "outputs", "logits", "gradients", "trainer", "phases",
              "step_memory", "out_of_memory", "synchronize"],
    "Backend": ["versions", "devices", "settings", "precisions", "build", "encode_weights",
                "ceilings", "book", "synchronize", "peak_memory"],
    "Trainer": ["step", "read", "export_state", "load_state"],
}


def tree(backend: str, file: str) -> ast.Module:
    return ast.parse((FOLDER / backend / f"{file}.py").read_text(encoding="utf-8"))


def public(body: list[ast.stmt]) -> list[str]:
    return [node.name for node in body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")]


@pytest.mark.parametrize("backend", BACKENDS)
def test_backends_have_the_same_files(backend):
    files = {path.stem for path in (FOLDER / backend).glob("*.py")} - {"__init__"}
    missing = {file for (name, file), names in MISSING.items() if name == backend and names is None}
    expected = set(PUBLIC) - missing
    assert files == expected | ALSO.get(backend, set())


@pytest.mark.parametrize("file", PUBLIC)
@pytest.mark.parametrize("backend", BACKENDS)
def test_files_have_the_same_functions_in_the_same_order(backend, file):
    expected = MISSING.get((backend, file), PUBLIC[file])
    if expected is not None:
        assert [name for name in public(tree(backend, file).body) if name in PUBLIC[file]] == expected


@pytest.mark.parametrize("file, suffix", [("backend", "Model"), ("backend", "Backend"), ("trainer", "Trainer")])
@pytest.mark.parametrize("backend", BACKENDS)
def test_classes_have_the_same_methods_in_the_same_order(backend, file, suffix):
    (body,) = [node.body for node in tree(backend, file).body
               if isinstance(node, ast.ClassDef) and node.name.endswith(suffix)]
    expected = [name for name in METHODS[suffix] if backend != "numpy" or not name.endswith("code_weights")]
    methods = [name for name in public(body) if name in expected]
    assert methods == [name for name in expected if name in methods]
    assert len(methods) >= len(expected) - 2, "only methods with a default may be missing"


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "numpy"])
def test_networks_handle_the_same_layers_in_the_same_order(backend):
    (native,) = [node for node in tree(backend, "network").body
                 if isinstance(node, ast.FunctionDef) and node.name == "native"]
    (match,) = [node for node in native.body if isinstance(node, ast.Match)]
    assert [ast.unparse(case.pattern) for case in match.cases] == [f"spec.{kind}()" for kind in KINDS]
