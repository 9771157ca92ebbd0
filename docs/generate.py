"""Generate the parts of the documentation that come from the code: `python docs/generate.py`.

In a page such a part stands between `<!-- generated: NAME -->` and `<!-- end -->`. `tests/test_docs.py` fails if a part
is not current.
"""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import alexnet_mf
from alexnet_mf import backends, cli
from alexnet_mf.backends.execution import SPEED_SETTINGS
from alexnet_mf.parity.tolerances import TIERS
from alexnet_mf.spec import arithmetic, toml, zoo

DOCS = Path(__file__).parent
PART = re.compile(r"(?<=<!-- generated: )([\w-]+)( -->\n).*?(?=<!-- end -->)", re.S)
"""A generated part of a page: name, end of the mark, text."""
TITLES = {"torch": "PyTorch", "tensorflow": "TensorFlow", "mxnet": "MXNet"}

# Commands


def commands() -> str:
    """Return a table of all verbs, and a section on each, from the parser itself."""
    verbs = list(sections(cli.parser(), ""))
    rows = [f"| [`{name}`](#{name.replace(' ', '-')}) | {sentence(parser)} |" for name, parser in verbs]
    return "\n".join(["| verb | what it does |", "|---|---|", *rows, "",
                      *(line for name, parser in verbs for line in section(name, parser))]).strip()


def settings() -> str:
    """Return the table of the flags of speed settings."""
    switches = {action.dest: action for _, parser in sections(cli.parser(), "") for action in parser._actions
                if is_switch(action)}
    rows = [f"| `{'`, `'.join(action.option_strings)}` | {meaning(action)} |" for action in switches.values()]
    return "\n".join(["| flag | meaning |", "|---|---|", *rows])


def sections(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each verb with its parser, verbs of a verb included."""
    if name:
        yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb, below in action.choices.items():
                yield from sections(below, f"{name} {verb}".strip())


def is_switch(action: argparse.Action) -> bool:
    """Return True for the flag of a speed setting."""
    return action.dest in SPEED_SETTINGS


def section(name: str, parser: argparse.ArgumentParser) -> list[str]:
    """Return the lines on one verb: a description, and a table of its arguments."""
    left_out = argparse._HelpAction, argparse._SubParsersAction
    arguments = [action for action in parser._actions if not isinstance(action, left_out) and not is_switch(action)]
    rows = [f"| `{usage(action)}` | {meaning(action)} |" for action in arguments]
    if any(map(is_switch, parser._actions)):
        rows.append("| [speed settings](#speed-settings) | switch a speed setting on or off |")
    return [f"## {name}", "", sentence(parser), "",
            *(["| argument | meaning |", "|---|---|", *rows, ""] if rows else [])]


def sentence(parser: argparse.ArgumentParser) -> str:
    """Return a parser's description as a sentence."""
    text = parser.description or ""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def usage(action: argparse.Action) -> str:
    """Return `--flag VALUE`."""
    value = action.metavar if isinstance(action.metavar, str) else (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper())
    value = value.replace("|", r"\|")
    if not action.option_strings:
        return f"{value} ..." if action.nargs in ("+", "*") else value
    return action.option_strings[-1] if action.nargs == 0 else f"{action.option_strings[-1]} {value}"


def meaning(action: argparse.Action) -> str:
    """Return the help text of an argument as a cell of a table."""
    text = (action.help or "") % {**vars(action), "prog": "alexnet-mf"}
    return text.replace("|", r"\|")


# Networks


def networks() -> str:
    """Return the table of the built-in networks."""
    lines = ["| network | input (channels x height x width) | parameters | multiply-accumulates per image | source |",
             "|---|---|---:|---:|---|"]
    for name, net in zoo.NETWORKS.items():
        parameters, macs = sum(arithmetic.parameter_counts(net).values()), sum(arithmetic.macs(net).values())
        lines.append(f"| [`{name}`](#{name}) | {'x'.join(map(str, net.input))} | {parameters:,} | {macs:,} | "
                     f"{net.source} |")
    return "\n".join(lines)


def network_files() -> str:
    """Return each built-in network as the TOML file that the program reads."""
    return "\n\n".join(f"## {name}\n\n```toml\n{toml.dump(net).strip()}\n```" for name, net in zoo.NETWORKS.items())


# Parity

FLOORS = {"output": "layer output or logits, L2", "largest": "layer output, largest difference over largest value",
          "loss": "loss", "gradient": "gradient, L2", "update": "weight change after the steps, L2",
          "step_loss": "loss of an SGD step"}


def floors() -> str:
    """Return the table of the smallest tolerances."""
    rows = [f"| {error} | {' | '.join(f'{getattr(tier, name):.3g}' for tier in TIERS.values())} |"
            for name, error in FLOORS.items()]
    return "\n".join([f"| relative error | {' | '.join(TIERS)} |", f"|---|{'---:|' * len(TIERS)}", *rows])


# Side by side


def printed(backend: str) -> str:
    """Return the network as its framework prints it."""
    backends.load(backend)
    net = importlib.import_module(f"alexnet_mf.backends.{backend}.network").build(zoo.ALEXNET)
    if backend != "tensorflow":
        return str(net)
    lines: list[str] = []
    net.summary(line_length=70, print_fn=lines.append)
    return "\n".join(lines)


def tab(backend: str) -> str:
    """Return a content tab with the network as its framework prints it."""
    return f'=== "{TITLES[backend]}"\n\n' + textwrap.indent(f"```text\n{printed(backend).strip()}\n```", "    ")


# Imports

SOURCE = Path(alexnet_mf.__file__).parent
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 104, 34, 96, 46, 16
"""Size of a box and of the space around it, in pixels."""


def room(module: str) -> str:
    """Return the package or module directly in alexnet_mf that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def imported_rooms() -> dict[str, set[str]]:
    """Return, for each package or module directly in alexnet_mf, those that it imports at run time."""
    rooms: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if not name.startswith("__"):
            rooms.setdefault(name, set()).update(imported_names(path))
    return {name: {other for other in imported if other in rooms and other != name} for name, imported in rooms.items()}


def imported_names(path: Path) -> Iterator[str]:
    """Yield the packages of alexnet_mf that a file imports, apart from imports for the type checker."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for block in [node for node in ast.walk(tree) if isinstance(node, ast.If)]:
        if "TYPE_CHECKING" in ast.unparse(block.test):
            block.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "alexnet_mf":
            yield from [room(f"{node.module}.{alias.name}") for alias in node.names]


def levels(rooms: dict[str, set[str]]) -> list[list[str]]:
    """Return the packages in rows: each imports only from the rows before it."""
    depth: dict[str, int] = {}

    def level(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max((level(other) for other in rooms[name]), default=-1)
        return depth[name]
    rows: list[list[str]] = [[] for _ in range(1 + max(map(level, rooms)))]
    for name in sorted(rooms):
        rows[depth[name]].append(name)
    return rows


def reaches(rooms: dict[str, set[str]], start: str) -> set[str]:
    """Return everything that a package imports, directly or not."""
    return rooms[start].union(*(reaches(rooms, name) for name in rooms[start]))


def imports() -> str:
    """Return the drawing of the packages and their imports as SVG. Arrows that follow from others are left out."""
    rooms = imported_rooms()
    rows = levels(rooms)[::-1]
    width = (max(map(len, rows)) + 0.5) * (WIDTH + GAP_X) - GAP_X + 2 * MARGIN
    height = len(rows) * (HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN
    place: dict[str, tuple[float, float]] = {}
    for row, names in enumerate(rows):
        shift = (WIDTH + GAP_X) / 4 * (row % 2 * 2 - 1)  # leaves room for arrows over several rows
        left = (width - len(names) * (WIDTH + GAP_X) + GAP_X) / 2 + shift
        for column, name in enumerate(names):
            place[name] = left + column * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y)
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" width="{width:g}" '
             f'height="{height}" font-family="sans-serif" font-size="14" role="img">',
             "<title>Packages of alexnet_mf; an arrow points from the importer to the imported package</title>",
             '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
             'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#777"/></marker></defs>',
             f'<rect width="{width:g}" height="{height}" fill="white"/>']
    for name in sorted(rooms):
        for other in sorted(rooms[name]):
            if any(other in reaches(rooms, between) for between in rooms[name] - {other}):
                continue
            (x, y), (to_x, to_y) = place[name], place[other]
            lines.append(f'<path d="M{x + WIDTH / 2:g},{y + HEIGHT} C{x + WIDTH / 2:g},{y + HEIGHT + 24} '
                         f'{to_x + WIDTH / 2:g},{to_y - 24} {to_x + WIDTH / 2:g},{to_y:g}" fill="none" stroke="#aab" '
                         'marker-end="url(#tip)"/>')
    for name, (x, y) in place.items():
        lines += [f'<rect x="{x:g}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5" fill="#eef3fb" stroke="#5b7db1"/>',
                  f'<text x="{x + WIDTH / 2:g}" y="{y + 22}" text-anchor="middle" fill="#123">{name}</text>']
    return "\n".join([*lines, "</svg>", ""])


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands, "settings": settings, "networks": networks, "network-files": network_files,
    "floors": floors,
    **{name: functools.partial(tab, name) for name in backends.FRAMEWORKS}}
DRAWING = DOCS / "images" / "imports.svg"


def generated(page: str, parts: dict[str, Callable[[], str]]) -> str:
    """Return a page with these parts of it generated again."""
    return PART.sub(lambda part: f"{part[1]}{part[2]}\n{parts[part[1]]()}\n\n" if part[1] in parts else part[0], page)


if __name__ == "__main__":
    for path in DOCS.rglob("*.md"):
        path.write_text(generated(path.read_text(encoding="utf-8"), PARTS), encoding="utf-8")
    DRAWING.write_text(imports(), encoding="utf-8")
