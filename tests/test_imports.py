"""The source: allowed imports, late imports of frameworks, no flags in messages, first words of docstrings."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import alexnet_mf
from alexnet_mf import backends

SOURCE = Path(alexnet_mf.__file__).parent
FRAMEWORKS = {entry.framework for entry in backends.BACKENDS.values()} - {"numpy"}
FRAMEWORK_FAMILY = FRAMEWORKS | {"keras", "torchvision", "jax"}


def modules_after(statement: str) -> set[str]:
    """Return the top-level modules of a fresh process after a statement."""
    script = f"import json, sys\n{statement}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


WITHOUT = ["import alexnet_mf", "import alexnet_mf.spec.zoo", "from alexnet_mf import backends\n"
           "for name in backends.BACKENDS: backends.is_installed(name), backends.framework_version(name)",
           "from alexnet_mf.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass"]
"""Statements that need no framework. The last two list the backends and print the help."""


@pytest.mark.parametrize("statement", WITHOUT, ids=["package", "spec", "what is installed", "help"])
def test_importing_the_package_imports_no_framework(statement):
    assert not modules_after(statement) & FRAMEWORK_FAMILY


@pytest.mark.parametrize("module", ["alexnet_mf", "alexnet_mf.spec.zoo", "alexnet_mf.errors"])
def test_package_and_spec_do_not_import_numpy(module):
    """A spec can be read without any installed package."""
    assert "numpy" not in modules_after(f"import {module}")


def test_a_backend_imports_its_own_framework_alone(backend_name):
    imported = modules_after(f"from alexnet_mf import backends\nbackends.load({backend_name!r})")
    own = backends.BACKENDS[backend_name].framework
    assert own in imported
    assert not imported & (FRAMEWORKS - {own})


def test_an_eager_training_in_pytorch_does_not_import_its_compiler(requires):
    """The compiler takes seconds and 150 MB to import. Nothing else imports `sympy`."""
    requires("torch")
    assert "sympy" not in modules_after("""
import numpy as np
from alexnet_mf import backends
from alexnet_mf.backends.contract import Sgd
from alexnet_mf.spec import zoo
from alexnet_mf.weights import parameters
model = backends.load("torch").build(zoo.LENET5, parameters.initialize(zoo.LENET5, 0))
data = model.place(np.zeros((2, 28, 28), np.uint8), np.array([0, 1]))
model.trainer(Sgd(0.1, 0.9), 0).step(data, np.arange(2), 0)
model.logits(data, 2)""")


# The source code


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.Module) -> dict[str, bool]:
    """Return the modules that a file imports, with True for those that only the type checker imports.

    `from package import name` counts as package and as package.name, which may be a module.
    """
    typing_only = {id(node) for block in ast.walk(tree)
                   if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
                   for line in block.body for node in ast.walk(line)}
    modules: dict[str, bool] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            modules[name] = modules.get(name, True) and id(node) in typing_only
    return modules


FILES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
IMPORTS = {name: imports(tree) for name, tree in TREES.items()}


def package_imports(name: str) -> set[str]:
    """Return the modules of this package that a module imports at run time."""
    return {imported for imported, typing_only in IMPORTS[name].items() if imported in FILES and not typing_only}


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def test_the_checks_read_the_source():
    assert len(FILES) > 100
    assert "alexnet_mf.spec" in package_imports("alexnet_mf.spec.arithmetic")
    assert "alexnet_mf.backends.torch.weights" in package_imports("alexnet_mf.backends.torch.backend")
    assert IMPORTS["alexnet_mf.backends.registry"]["alexnet_mf.backends.contract"] is True


# Modules, and the modules of this package that each may import: layers <- spec <- arithmetic <- parameters <-
# contract <- backends.
DIRECTIONS = {
    "alexnet_mf": set(),
    "alexnet_mf.spec": {"spec.layers", "spec.network", "spec.preprocessing"},
    "alexnet_mf.spec.layers": {"errors"},
    "alexnet_mf.spec.network": {"errors", "spec.layers"},
    "alexnet_mf.spec.preprocessing": {"errors", "spec.layers"},
    "alexnet_mf.spec.zoo": {"errors", "spec", "spec.layers"},
    "alexnet_mf.spec.arithmetic": {"spec", "spec.layers"},
    "alexnet_mf.files": {"errors"},
    "alexnet_mf.weights": set(),
    "alexnet_mf.weights.tensor_file": set(),
    "alexnet_mf.weights.metadata": {"errors", "spec"},
    "alexnet_mf.weights.parameters": {"errors", "files", "spec", "spec.layers", "spec.arithmetic", "weights",
                                      "weights.tensor_file"},
    "alexnet_mf.backends": {"backends.registry"},
    "alexnet_mf.backends.registry": {"errors"},
    "alexnet_mf.data.augmentation": {"errors", "spec", "spec.preprocessing", "data", "data.dataset"},
    "alexnet_mf.data.preprocessing": {"errors", "spec", "spec.preprocessing"},
    "alexnet_mf.backends.randomness": set(),
    "alexnet_mf.backends.execution": {"errors"},
    "alexnet_mf.backends.contract": {"errors", "spec", "spec.layers", "spec.arithmetic", "weights.parameters",
                                     "data.augmentation", "data.preprocessing", "backends.execution"},
    "alexnet_mf.backends.capabilities": {"errors", "spec", "weights.parameters", "backends.contract",
                                         "backends.execution"},
    "alexnet_mf.backends.loading": {"errors", "backends", "backends.contract", "backends.execution"},
    "alexnet_mf.backends.allocator": set(),
}


@pytest.mark.parametrize("name", ["spec", "spec.layers", "spec.network", "spec.preprocessing", "spec.zoo"])
def test_the_spec_imports_the_standard_library_alone(name):
    """Imports within functions count."""
    roots = {module.split(".")[0] for module in IMPORTS[f"alexnet_mf.{name}"]}
    assert roots <= {"alexnet_mf", *sys.stdlib_module_names}


@pytest.mark.parametrize("name", DIRECTIONS)
def test_low_modules_import_only_lower_ones(name):
    allowed = {f"alexnet_mf.{below}" for below in DIRECTIONS[name]} | {"alexnet_mf"}
    assert package_imports(name) <= allowed


ORDER = ["errors", "checks", "files", "spec", "instruments", "plots", "weights", "data", "datasets", "backends",
         "conversion", "pretrained", "models", "evaluation", "shapes", "predict", "training", "parity", "bench",
         "sweep", "analysis", "api", "cli", "__main__"]
"""Packages and modules, lowest first. Each imports only those before it, so that there is no cycle. Imports for the
type checker alone, such as those of the records that `plots` draws, do not count."""


def package_of(name: str) -> str:
    """Return the package or module directly in alexnet_mf that a module belongs to."""
    return name.split(".")[1] if "." in name else "alexnet_mf"


def test_every_package_has_its_place_in_the_order():
    assert {package_of(name) for name in FILES} - {"alexnet_mf"} == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_a_package_imports_only_lower_ones(name):
    imported = {package_of(module) for file in FILES if package_of(file) == name for module in package_imports(file)}
    below = ORDER[:ORDER.index(name)] if name not in ("instruments", "plots") else ["errors", "checks", "files", "spec"]
    assert imported - {name, "alexnet_mf"} <= set(below)


@pytest.mark.parametrize("backend", backends.BACKENDS)
def test_a_backend_imports_only_itself_and_lower_modules(backend):
    """A backend imports no other backend, and no higher module, such as cli, training, parity or bench."""
    package = backends.BACKENDS[backend].module
    own = [name for name in FILES if within(name, package)]
    assert own and package == f"alexnet_mf.backends.{backend}"
    below = {f"alexnet_mf.{name}" for name in (
        "errors", "spec", "spec.layers", "spec.zoo", "spec.arithmetic", "spec.comparison", "weights",
        "weights.parameters", "weights.names", "weights.layouts", "data", "data.augmentation", "data.preprocessing",
        "backends.contract", "backends.capabilities", "backends.randomness", "backends.execution",
        "backends.allocator")}
    for name in own:
        foreign = {imported for imported in package_imports(name) - below - {"alexnet_mf", "alexnet_mf.backends"}
                   if not within(imported, package)}
        assert not foreign, f"{name} imports {foreign}"


@pytest.mark.parametrize("backend", [name for name in backends.BACKENDS if name != "numpy"])
def test_only_a_backend_imports_its_framework(backend):
    """Shared code reaches a framework through the registry alone, even in a function. All modules may import NumPy."""
    entry = backends.BACKENDS[backend]
    users = {name for name, imported in IMPORTS.items()
             if any(module.split(".")[0] == entry.framework for module in imported)}
    assert users
    assert {name for name in users if not within(name, entry.module)} == set()


def test_shared_code_imports_no_backend():
    """Modules outside a backend's folder do not import its modules. Only parity may import the reference."""
    for backend, entry in backends.BACKENDS.items():
        for name in FILES:
            if not within(name, entry.module) and not (backend == "numpy" and within(name, "alexnet_mf.parity")):
                assert not [imported for imported in IMPORTS[name] if within(imported, entry.module)], name


def test_training_and_data_import_no_backend_except_the_contract():
    for name in FILES:
        reached = package_imports(name)
        if within(name, "alexnet_mf.training"):
            assert {module for module in reached if within(module, "alexnet_mf.backends")} <= {
                f"alexnet_mf.backends{part}" for part in ("", ".contract", ".execution")}, name
        if within(name, "alexnet_mf.data"):
            assert {module for module in reached if not within(module, "alexnet_mf.data")} <= {
                "alexnet_mf", "alexnet_mf.errors", "alexnet_mf.files", "alexnet_mf.spec",
                "alexnet_mf.spec.preprocessing"}, name


def test_nothing_imports_tests_or_benchmarks():
    for name, imported in IMPORTS.items():
        assert not [module for module in imported
                    if module.split(".")[0] in ("tests", "benchmarks", "conftest", "pytest", "hypothesis")], name


def test_only_the_command_line_prints_or_exits():
    for name, tree in TREES.items():
        for node in ast.walk(tree) if package_of(name) not in ("cli", "__main__") else ():
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("print", "sys.exit", "exit", "quit", "os._exit"), name


FLAG = re.compile(r"(?<![\w-])--[a-z]")


def test_the_library_names_no_flag():
    """Flags of the programs that it starts, and flags in docstrings, are allowed."""
    for name, tree in TREES.items():
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)
                 and isinstance(node.value, str) and id(node) not in docstrings]
        for text in filter(FLAG.search, texts if package_of(name) != "cli" else ()):
            assert text.startswith(("--query-gpu=", "--format=csv", "--porcelain")), (name, text)


CLAUSE = re.compile(r"(As|How|Of|That|Those|What|Where|Whether|Who)\b")


def test_docstrings_do_not_begin_with_a_clause() -> None:
    """Docstrings begin with an imperative sentence or a noun phrase."""
    clauses = [f"{name}:{node.lineno}" for name, tree in TREES.items() for node in ast.walk(tree)
               if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
               and CLAUSE.match(str(node.value.value))]
    assert not clauses
