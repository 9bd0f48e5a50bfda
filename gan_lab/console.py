"""Console output, from rank zero only: messages, warnings, progress bars."""

import os
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

# control characters, text direction marks, and lone surrogates
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Escape control characters: names may hold any."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def in_a_line(name: str) -> str:
    """Escape a name, or a message with names, for one line or cell: as `printable`, also tabs and line ends."""
    return printable(name).replace("\n", "\\n").replace("\t", "\\t")


class PlainConsole(Console):
    """A console that escapes control characters in texts."""

    def render(self, *args: Any, **kwargs: Any) -> Iterable[Segment]:
        """Render anything, with its texts as `printable`."""
        for segment in super().render(*args, **kwargs):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)


console = PlainConsole(highlight=False)

# sent when a terminal closes
HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)

_TERMINALS = [number for number in (1, 2) if os.isatty(number)]


def minds_hangup() -> bool:
    """Whether a closing terminal ends this process (False under nohup)."""
    return HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN


def leave_terminal() -> None:
    """Discard output for a terminal that has closed; writing to it would raise."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in _TERMINALS:
        os.dup2(nowhere, number)
    os.close(nowhere)


def say(message: RenderableType) -> None:
    """Print a line, a table or any other rich renderable."""
    if is_first():
        # markup off: a path may hold [brackets]
        line = in_a_line(message) if isinstance(message, str) else message
        console.print(line, soft_wrap=isinstance(message, str), markup=False)


def warn(message: str) -> None:
    """Print a warning: something that the user should act on."""
    if is_first():
        console.print(Text.assemble(("warning: ", "yellow"), in_a_line(message)), soft_wrap=True)


def is_first() -> bool:
    """Whether this is rank zero, by the environment of the launcher."""
    for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):  # torchrun, our own processes, srun
        if key in os.environ:
            return int(os.environ[key]) == 0
    return True


class ShowProgress(Protocol):
    """Updates a progress bar: the amount done, and a note after the bar."""

    def __call__(self, done: float, note: str = "") -> None: ...


@contextmanager
def progress_bar(
    description: str, total: float | None, *, completed: int = 0, transient: bool = True
) -> Iterator[ShowProgress]:
    """Show a progress bar if the output is a terminal; yields the function that updates it.

    Args:
        description: of the work, in front of the bar.
        total: amount of work; None where it is not known.
        completed: amount done before, excluded from the estimated time left.
        transient: whether the bar disappears at the end.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeRemainingColumn(),
    )
    shown = console.is_terminal and total != 0 and is_first()
    with Progress(*columns, console=console, transient=transient, disable=not shown) as progress:
        task = progress.add_task(description, total=total, completed=completed, note="")

        def show(done: float, note: str = "") -> None:
            progress.update(task, completed=done, note=note)

        yield show
