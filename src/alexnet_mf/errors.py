"""Errors that a user can fix. Each message is one line that names the remedy."""

LONGEST = 10_000
"""Largest length of a message in characters; a quoted file could be of any length."""


def one_line(text: str) -> str:
    """Return the text as one line of printable characters."""
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape", "backslashreplace").decode()
                   for letter in short)


class AlexnetMfError(Exception):
    """A request that cannot be carried out as asked; the command line exits with 2."""

    exit_code = 2

    def __init__(self, message: str = ""):
        super().__init__(one_line(message))


class Notice(UserWarning):
    """A line that the user should see but did not ask for.

    Python shows it as a warning, the command line as a line on standard error.
    """

    def __init__(self, message: str = ""):
        super().__init__(one_line(message))


class SpecError(AlexnetMfError, ValueError):
    """A layer or network with impossible numbers; names the layer and the numbers."""

    layer: int | None = None
    """Number of the faulty layer, from 1; None if the fault is in no layer."""


class BackendUnavailable(AlexnetMfError, ImportError):
    """A backend or a device that is missing; names the install command."""


class DataError(AlexnetMfError):
    """A dataset that is missing, incomplete or damaged; names the file."""


class ParametersError(AlexnetMfError, ValueError):
    """Parameters that do not fit the network; names the tensors."""


class TraceError(AlexnetMfError, ValueError):
    """A parity trace that cannot be read or compared; names the file."""


class RunError(AlexnetMfError):
    """A run folder that cannot be written or resumed as asked; names the file and the remedy."""


class TrainingDiverged(AlexnetMfError, ArithmeticError):
    """The loss became NaN or infinite; names the step and the learning rate."""

    exit_code = 1


class OutputsNotFinite(AlexnetMfError, ArithmeticError):
    """A network with finite weights that produces NaN or infinite outputs."""

    exit_code = 1


class OutOfMemory(AlexnetMfError, MemoryError):
    """A batch that does not fit in the device's memory; names a size that would."""


class BenchError(AlexnetMfError):
    """A benchmark that cannot run, or a record of one that cannot be read; names the remedy or the file."""


class SweepError(AlexnetMfError):
    """A sweep that cannot run, or a record of one that cannot be read; names the remedy or the file."""


class MeasurementRefused(BenchError):
    """A measured time that does not include the work: nothing waited for the device."""
