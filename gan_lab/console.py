"""What the user reads: one console, spoken to by rank zero only."""

import os
import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, RenderableType
from rich.segment import Segment
from rich.text import Text

# what a terminal obeys, what turns the direction of a text, and halves of characters that no encoding has
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Return a text in which every control character is spelled out: a name may hold any."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


class PlainConsole(Console):
    """A console on which only its own styles and movements are control characters, never a text's."""

    def render(self, *args: Any, **kwargs: Any) -> Iterable[Segment]:
        """Render anything, with its texts as `printable`."""
        for segment in super().render(*args, **kwargs):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)


console = PlainConsole(highlight=False)


def say(message: RenderableType) -> None:
    """Print a line, a table or any other rich renderable."""
    if is_first():
        # markup off: a path may hold [brackets]
        console.print(message, soft_wrap=isinstance(message, str), markup=False)


def warn(message: str) -> None:
    """Print something that does not stop the run and that the user should act on."""
    if is_first():
        console.print(Text.assemble(("warning: ", "yellow"), message), soft_wrap=True)


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all, as whoever started it says in the environment."""
    for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):  # torchrun, our own processes, srun
        if key in os.environ:
            return int(os.environ[key]) == 0
    return True
