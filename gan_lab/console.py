"""What the user reads: one console, spoken to by rank zero only."""

import os

from rich.console import Console, RenderableType
from rich.text import Text

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
    """Whether this is the process that writes and speaks for all, as whoever started it says in the environment."""
    for key in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):  # torchrun, our own processes, srun
        if key in os.environ:
            return int(os.environ[key]) == 0
    return True
