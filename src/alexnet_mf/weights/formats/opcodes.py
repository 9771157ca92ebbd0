"""Interpreter of pickles that runs no code: containers, numbers and strings; everything else is a placeholder.

The opcodes are described in Python's pickletools.py.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

MOST_STEPS = 1_000_000
"""Largest number of opcodes. PyTorch needs forty for a tensor."""
LONGEST_NAME = 200
"""Largest length of a key or a global's name, in characters."""

LONGEST_NUMBER = 40
"""Largest length of a decimal number, whose reading takes the square of its length."""

TEXT = {"LONG", "FLOAT", "STRING", "UNICODE", "GET", "PUT", "PERSID"}
"""Opcodes of protocols 0 and 1. Python 2 has INT in protocol 2, too, for integers of 64 bits."""
OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes if opcode.name not in TEXT}
MARKED = {opcode.name for opcode in pickletools.opcodes if pickletools.markobject in opcode.stack_before}
"""Opcodes that use all items above the last mark."""
COUNTS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2}
"""Opcodes that use this number of items."""
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class Placeholder:
    """Stand-in for a global, or for an object of a class that is not built. It is never called."""

    __slots__ = ("name", "state")

    def __init__(self, name: str):
        self.name = name
        """Module and name of the global or class, with a space between them."""
        self.state: Any = None
        """State for the object's `__setstate__`."""


class Interpreter:
    """Interpreter of a file's pickles, which together have a limited number of steps.

    It makes no object larger than the opcodes that describe it, hashes only short keys, and does not recurse.
    """

    def __init__(self, call: Callable[[str, Any], Any], load: Callable[[Any], Any]):
        """Args:
            call: returns the result of a call, by the function's module and name and its arguments.
            load: returns the object of a persistent identifier.
        """
        self._call, self._load = call, load
        self._steps = MOST_STEPS

    def run(self, stream: BinaryIO) -> Any:
        """Return the next object of a stream.

        Raises:
            Exception: if the pickle is damaged or takes too many steps.
        """
        stack: list[Any] = []
        below: list[list[Any]] = []  # the stacks below the marks
        memo: dict[int, Any] = {}
        items: list[Any] = []
        for name, argument in self._opcodes(stream):
            if name == "POP" and not stack:
                name = "POP_MARK"
            if name in MARKED:
                items, stack = stack, below.pop()
            elif count := COUNTS.get(name):
                items = [stack.pop() for _ in range(count)][::-1]
            match name:
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "MARK":
                    below.append(stack)
                    stack = []
                case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                    stack.append(tuple(items))
                case "LIST" | "EMPTY_LIST":
                    stack.append(items if name == "LIST" else [])
                case "EMPTY_DICT":
                    stack.append({})
                case "DICT":
                    stack.append({})
                    _set(stack[-1], items)
                case "SETITEM" | "SETITEMS":
                    _set(stack[-1], items)
                case "APPEND" | "APPENDS" | "ADDITEMS":
                    _extend(stack[-1], items)
                case "EMPTY_SET" | "FROZENSET" | "EXT1" | "EXT2" | "EXT4":
                    stack.append(Placeholder(name))
                case "GLOBAL" | "INST":
                    stack.append(_global(*argument.split(" ", 1)))
                case "STACK_GLOBAL":
                    stack[-2:] = [_global(*stack[-2:])]
                case "REDUCE" | "NEWOBJ":
                    function, arguments = stack[-2:]
                    stack[-2:] = [self._called(function.name, arguments)]
                case "NEWOBJ_EX":
                    stack[-3:] = [Placeholder(stack[-3].name)]
                case "OBJ":
                    stack.append(Placeholder(items[0].name))
                case "BUILD":
                    state = stack.pop()
                    if isinstance(stack[-1], Placeholder):
                        stack[-1].state = state
                    elif not isinstance(stack[-1], dict):  # an OrderedDict may have attributes
                        raise ValueError("its pickle changes an object after it is built")
                case "BINPERSID":
                    stack[-1] = self._load(stack[-1])
                case "DUP":
                    stack.append(stack[-1])
                case "POP":
                    stack.pop()
                case "STOP":
                    return stack.pop()
                case "PROTO" | "FRAME" | "POP_MARK":
                    pass
                case "NEXT_BUFFER" | "READONLY_BUFFER":
                    raise ValueError("its pickle has buffers outside of the file")
                case _:
                    stack.append(CONSTANTS.get(name, argument))

    def _opcodes(self, stream: BinaryIO) -> Iterator[tuple[str, Any]]:
        """Yield the opcodes' names and arguments. No argument is larger than the rest of the stream."""
        while True:
            self._spend(1)
            opcode = OPCODES.get(code := stream.read(1))
            if opcode is None:
                raise ValueError(f"its pickle has the opcode {code!r}" if code else "its pickle has no end")
            if opcode.name == "INT":
                line = stream.readline(LONGEST_NUMBER)
                yield "INT", int(line if line.endswith(b"\n") else b"")
            else:
                yield opcode.name, opcode.arg.reader(stream) if opcode.arg else None

    def _spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise ValueError(f"its pickles take more than {MOST_STEPS:,} steps")

    def _called(self, function: str, arguments: Any) -> Any:
        if function == "collections defaultdict":
            return {}
        if function == "collections OrderedDict":  # in Python 2, with the items as its argument
            pairs = arguments[0] if arguments else ()
            self._spend(len(pairs))
            return {_key(key): value for key, value in pairs}
        return self._call(function, arguments)


def _global(module: str, name: str) -> Placeholder:
    if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > LONGEST_NAME:
        raise ValueError("its pickle has a global without a usable name")
    return Placeholder(f"{module} {name}")


def _key(key: Any) -> Any:
    """Return a short string or integer, and a placeholder for any other key: its hash may take any time."""
    is_short = len(key) <= LONGEST_NAME if isinstance(key, str) else isinstance(key, int) and -2**63 <= key < 2**63
    return key if is_short else Placeholder("key")


def _set(target: Any, items: list[Any]) -> None:
    if isinstance(target, dict):
        target.update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))
    elif not isinstance(target, Placeholder):
        raise ValueError("its pickle sets an item of an object that is no dict")


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Placeholder):
        raise ValueError("its pickle extends an object that is no list")
