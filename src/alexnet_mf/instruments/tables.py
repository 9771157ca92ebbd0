"""Tables of text, which the command line prints and reports write as Markdown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Text in columns; those in `right` are right-aligned."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    right: list[int]

    def markdown(self) -> str:
        """Return the title and the table as Markdown."""
        rule = ["---:" if i in self.right else "---" for i in range(len(self.columns))]
        cells = [[cell.replace("|", "\\|") for cell in row] for row in [self.columns, rule, *self.rows]]
        return f"{self.title[0].upper()}{self.title[1:]}:\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in cells)
