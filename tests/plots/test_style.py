"""What all pictures share, and what they may import."""

from __future__ import annotations

import subprocess
import sys

import pytest

from alexnet_mf.plots import style


def test_lines_differ_by_shade_and_marker_and_the_first_is_black():
    looks = [style.line_style(number, 4) for number in range(4)]
    assert looks[0]["color"] == "0.0" and looks[-1]["color"] == str(style.LIGHTEST)
    assert len({(look["color"], look["marker"]) for look in looks}) == 4
    assert style.line_style(0, 1)["color"] == "0.0"


def test_a_picture_is_a_png():
    figure = style.new_figure(2, 1)
    style.add_grid(figure.subplots())
    assert style.png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("package", ["plots", "instruments"])
def test_instruments_and_plots_import_only_what_lies_below(package):
    """errors, checks, files and spec, and plots instruments."""
    program = (f"import importlib, pkgutil, sys\nimport alexnet_mf.{package} as package\n"
               "for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
               "    importlib.import_module(module.name)\n"
               "print(sorted({name.split('.')[1] for name in sys.modules if name.startswith('alexnet_mf.')}))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(eval(done.stdout)) <= {"errors", "checks", "files", "spec", "instruments", package}
