"""Messages of the library name arguments in backticks (`batch_size`). The command line shows its own flags instead."""

from __future__ import annotations

import argparse
import re

ALIASES = {"pythons": "python", "batch_sizes": "batch_size", "precisions": "precision", "nets": "net",
           "learning_rates": "lr", "choosing_epochs": "lr_epochs", "names": "backends"}
"""Arguments whose flag has another name."""


def with_flags(message: str, options: argparse.Namespace) -> str:
    """Return the message with the flag in place of each argument that the verb has one for."""
    def flag(match: re.Match[str]) -> str:
        name = ALIASES.get(match[1], match[1])
        return f"--{name.replace('_', '-')}" if name in options else match[0]
    return re.sub(r"`(\w+)`", flag, message)
