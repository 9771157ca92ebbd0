"""Pictures. matplotlib is imported only when one is drawn."""

from __future__ import annotations

import importlib
from pathlib import Path

from alexnet_mf import files
from alexnet_mf.checks import check_path
from alexnet_mf.errors import AlexnetMfError


class Picture:
    """A PNG file to draw. Create it before the work, so that its errors come first."""

    def __init__(self, plot: Path | str, module: str):
        """Check that the file can be written, and import the module that draws it.

        Args:
            plot: the file.
            module: the module's name; it imports matplotlib.

        Raises:
            AlexnetMfError: if the name does not end in .png, the file cannot be written, or matplotlib is missing.
        """
        self.path = check_path("plot", plot, ".png")
        files.check_writable(self.path)
        try:
            self.module = importlib.import_module(module)
        except Exception as error:  # whatever a broken installation raises
            raise AlexnetMfError(f"`plot` needs matplotlib, which cannot be imported ({error}); pip install "
                                 "matplotlib, or install alexnet_mf[plot]") from error

    def save(self, content: bytes) -> None:
        """Write the file, whole or not at all.

        Raises:
            AlexnetMfError: if it cannot be written.
        """
        files.write_result(self.path, content)
