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

# what a terminal obeys, what turns the direction of a text, and halves of characters that no encoding has
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text in which every control character is spelled out: a name may hold any."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def in_a_line(name: str) -> str:
    """Return a name of somebody's data, or a message with such, for a line: as `printable`, with tabs and line ends."""
    return printable(name).replace("\n", "\\n").replace("\t", "\\t")


class PlainConsole(Console):
    """A console on which only its own styles and movements are control characters, never a text's."""

    def render(self, *args: Any, **kwargs: Any) -> Iterable[Segment]:
        """Render anything, with its texts as `printable`."""
        for segment in super().render(*args, **kwargs):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)


console = PlainConsole(highlight=False)

# what a terminal that closes sends
HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)

_TERMINALS = [number for number in (1, 2) if os.isatty(number)]


def minds_hangup() -> bool:
    """Whether a closing terminal is to end this process: nohup says that it is not."""
    return HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN


def leave_terminal() -> None:
    """Print nowhere what would go to the terminal, which has closed: to write there is an error."""
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
    """Print something that does not stop the run and that the user should act on."""
    if is_first():
        console.print(Text.assemble(("warning: ", "yellow"), in_a_line(message)), soft_wrap=True)


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all, as whoever started it says in the environment."""
    for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):  # torchrun, our own processes, srun
        if key in os.environ:
            return int(os.environ[key]) == 0
    return True


class ShowProgress(Protocol):
    """Moves a progress bar: how much is done, and a note behind the bar."""

    def __call__(self, done: float, note: str = "") -> None: ...


@contextmanager
def progress_bar(
    description: str, total: float | None, *, completed: int = 0, transient: bool = True
) -> Iterator[ShowProgress]:
    """Show a progress bar on a terminal, and nothing elsewhere; yields the function that moves it.

    Args:
        description: of the work, in front of the bar.
        total: amount of work; None where it is not known.
        completed: how much was done before, which the estimate of the time left leaves out.
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
