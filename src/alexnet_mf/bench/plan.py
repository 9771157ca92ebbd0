"""The plan of a benchmark: what to measure."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from alexnet_mf.backends import BACKENDS
from alexnet_mf.backends.execution import SPEED_SETTINGS
from alexnet_mf.checks import check_choice, check_integer, check_list, check_number, check_type
from alexnet_mf.data import DataSource
from alexnet_mf.errors import BenchError
from alexnet_mf.instruments.records import Amount, AtLeastOne, Count, Part
from alexnet_mf.spec import Network, arithmetic, zoo

Phase = Literal["forward", "step", "input", "forward_backward", "optimizer", "epoch", "beside", "matrix product",
                "copy"]
"""A phase of training or inference, or a ceiling of the device."""
Style = Literal["alexnet_mf", "book"]
PHASES: dict[Phase, str] = {
    "forward": "inference on prepared pixels",
    "step": "a whole training step, with its input",
    "input": "gather, upsample and scale a batch",
    "forward_backward": "forward, loss and backward on prepared pixels",
    "optimizer": "one update from prepared gradients",
    "epoch": "the real training loop, end to end",
}
"""Phases in the order in which a worker prepares them. So its peak memory after `step` covers only inference and
training, as in the book's style."""
BESIDE: Phase = "beside"
"""A whole training step beside busy processes; the plan has their number."""
BOOK_PHASES: tuple[Phase, ...] = ("forward", "step")
CEILINGS: tuple[Phase, ...] = ("matrix product", "copy")
PRECISIONS = ("float32", "tf32", "bfloat16", "float16", "float64")
ITEM_BYTES = {"float32": 4, "tf32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
"""Size of one pixel at the network's input, in bytes."""
BOOKS = (zoo.ALEXNET.name, zoo.TAB, *(tab.name for tab in zoo.TABS.values()))
"""Networks that the book's own code builds."""
OURS: Style = "alexnet_mf"
BOOK: Style = "book"


class Plan(Struct, frozen=True, forbid_unknown_fields=True, repr_omit_defaults=True):
    """One run of the benchmark: every backend in every precision, batch size by batch size."""

    backends: tuple[str, ...] = ()
    """Without any, all frameworks that are installed here or have an interpreter of their own."""
    net: str = "alexnet"
    device: str = "auto"
    batch_sizes: Annotated[tuple[AtLeastOne, ...], Meta(min_length=1)] = (32,)
    precisions: tuple[str, ...] = ()
    """Without any, each backend's default: float32, in numpy float64."""
    phases: Annotated[tuple[Phase, ...], Meta(min_length=1)] = tuple(PHASES)
    rounds: AtLeastOne = 7
    """Samples of each phase. All backends give one sample in each round."""
    book: bool = True
    """Measure the book's style beside ours. Networks that are not in the book have none."""
    speed: dict[str, bool] = {}
    """Speed settings to switch on or off in every backend, as in `Execution`."""
    ablate: tuple[str, ...] = ()
    """Settings to leave out one by one, each in a further process of each backend, to see what it gains."""
    tried: tuple[str, ...] = ()
    """Settings to switch on one by one, each in a further process of each backend; several as `compile+fused`."""
    sample_seconds: Annotated[float, Meta(gt=0)] = 0.2
    """Shortest sample."""
    epoch_batches: AtLeastOne = 5
    """Batches of one epoch. The first is trained but not timed."""
    beside: Count = 0
    """Number of busy processes beside which a step is also measured. They do not run during other samples."""
    seed: Count = 0
    """Seed of weights, images, dropout and the order of the measurements."""
    data: DataSource | UnsetType = UNSET
    """Images of one's own, whose classes and channels the network gets; without them drawn ones."""

    def __post_init__(self) -> None:
        for argument, values, choices in (("backends", self.backends or tuple(BACKENDS), BACKENDS),
                                          ("precisions", self.precisions or PRECISIONS, PRECISIONS),
                                          ("phases", self.phases, PHASES)):
            for value in check_list(argument, values):
                check_choice(argument, value, choices)
        for size in check_list("batch_sizes", self.batch_sizes, int):
            check_integer("batch_sizes", size)
        for argument in ("backends", "batch_sizes", "precisions", "phases"):
            values = getattr(self, argument)
            if len(set(values)) != len(values):
                raise BenchError(f"`{argument}` names a value twice: {', '.join(map(str, values))}")
        for argument, kind in (("net", str), ("device", str), ("book", bool), ("speed", dict)):
            check_type(argument, getattr(self, argument), kind)
        for name, on in self.speed.items():
            check_type(f"speed[{name!r}]", on, bool)
        for argument, least in (("rounds", 1), ("epoch_batches", 2), ("seed", 0), ("beside", 0)):
            check_integer(argument, getattr(self, argument), least)
        check_number("sample_seconds", self.sample_seconds, above=True)

    def check_settings(self) -> None:
        """Check the names of the speed settings. A record may have others, of the version that measured it.

        Raises:
            AlexnetMfError: if one is unknown; lists the known ones.
        """
        for argument, values in (("speed", self.speed), ("ablate", self.ablate), ("tried", self.tried)):
            for value in check_list(argument, values) if values else ():
                for name in value.split("+") if argument == "tried" else [value]:
                    check_choice(argument, name, SPEED_SETTINGS)

    def measured_phases(self) -> tuple[Phase, ...]:
        """Return the phases and ceilings to measure, in the order in which a worker prepares them."""
        return (*(phase for phase in PHASES if phase in self.phases), *((BESIDE,) if self.beside else ()), *CEILINGS)

    def contestants(self, batch_size: int) -> list[Contestant]:
        """Return the contestants. Each gets a process of its own."""
        variants = [{}, *({name: False} for name in self.ablate),
                    *(dict.fromkeys(names.split("+"), True) for names in self.tried)]
        contestants: list[Contestant] = []
        for backend in self.backends:
            ours = [Contestant(backend=backend, style=OURS, precision=precision, speed={**self.speed, **variant},
                               batch_size=batch_size)
                    for precision in self.precisions or (BACKENDS[backend].precision,) for variant in variants]
            contestants += [entry for i, entry in enumerate(ours) if entry not in ours[:i]]
            if self.book and not self.data and self.net in BOOKS and set(self.phases) & set(BOOK_PHASES):
                contestants.append(Contestant(backend=backend, style=BOOK, precision="as shipped",
                                              speed={"all": False}, batch_size=batch_size))
        return contestants


class Contestant(Part):
    """A backend in one style, measured in a process of its own."""

    backend: str
    style: Style
    """`alexnet_mf`, or `book`: the chapter's own code, with the framework as it is shipped."""
    precision: str
    """`as shipped` in the book's style, which sets no precision."""
    speed: Annotated[dict[str, bool], Meta(description="settings switched on or off; in the book's style all are off")]
    batch_size: AtLeastOne

    @property
    def label(self) -> str:
        """Return the name in tables and messages."""
        if self.style == BOOK:
            return f"{self.backend} book"
        return " ".join([self.backend, self.precision, *(f"{'+' if on else '-'}{name}" for name, on in sorted(
            self.speed.items(), key=lambda setting: (setting[1], setting[0])))])


class Work(Part):
    """Work of one call of a phase, by the arithmetic of the network. The framework may do more."""

    images: Amount
    flops: Amount
    """Two for each multiply-accumulate."""
    bytes: Amount
    """Fewest bytes that a phase without real arithmetic reads and writes; 0 in other phases."""


def work(phase: str, network: Network, precision: str, image_bytes: int, images: int) -> Work:
    """Return the work of one call.

    Args:
        image_bytes: size of an image on the device; gray levels take a byte each.
        images: number of images in a call.
    """
    item = ITEM_BYTES.get(precision, 4)
    flops: float = 0
    moved: float = 0
    if phase == "input":  # reads gray levels, writes pixels
        moved = images * (image_bytes + item * arithmetic.input_values(network))
    elif phase == "optimizer":  # reads weights and gradients, writes weights: float32 in mixed precision too
        moved = 3 * max(item, 4) * sum(arithmetic.parameter_counts(network).values())
    elif phase == "forward":
        flops = 2 * images * sum(arithmetic.macs(network).values())
    else:
        flops = 2 * images * sum(arithmetic.training_macs(network).values())
    return Work(images=images, flops=flops, bytes=moved)
