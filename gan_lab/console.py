"""What the user reads: one console, spoken to by rank zero only."""

from rich.console import Console, RenderableType
from rich.text import Text

from gan_lab.framework import rank_zero_only

console = Console(highlight=False)


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
    """Whether this is the process that writes and speaks for all, also before they have met."""
    return getattr(rank_zero_only, "rank", 0) == 0
