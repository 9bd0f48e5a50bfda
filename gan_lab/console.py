"""What the user reads: one console, spoken to by rank zero only."""

from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console, RenderableType
from rich.text import Text

console = Console(highlight=False)


@rank_zero_only
def say(message: RenderableType) -> None:
    """Print a line, a table or any other rich renderable."""
    # markup off: a path may hold [brackets]
    console.print(message, soft_wrap=isinstance(message, str), markup=False)


@rank_zero_only
def warn(message: str) -> None:
    """Print something that does not stop the run and that the user should act on."""
    console.print(Text.assemble(("warning: ", "yellow"), message), soft_wrap=True)
