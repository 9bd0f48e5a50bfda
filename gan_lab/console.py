"""What the user reads: one console, spoken to by rank zero only."""

from rich.console import Console, RenderableType
from rich.text import Text

console = Console(highlight=False)


def is_first() -> bool:
    """Whether this is the process that speaks for all."""
    # torch and Lightning take seconds, which a slip of the keys need not wait for
    from gan_lab.layers.ranks import is_first

    return is_first()


def say(message: RenderableType) -> None:
    """Print a line, a table or any other rich renderable."""
    if is_first():
        # markup off: a path may hold [brackets]
        console.print(message, soft_wrap=isinstance(message, str), markup=False)


def warn(message: str) -> None:
    """Print something that does not stop the run and that the user should act on."""
    if is_first():
        console.print(Text.assemble(("warning: ", "yellow"), message), soft_wrap=True)
