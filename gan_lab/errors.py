"""Errors that a user can fix."""

from threading import Event

# a library interrupted by Ctrl-C may raise anything
interrupted = Event()

# set when torch and the like are loaded: an exception during their import may crash the process
imported = Event()


class InputError(ValueError):
    """An error that the user can fix.

    The message says what was given, what is allowed and what to do. The command line prints it without a
    traceback; anything else that is raised is a defect of gan_lab and keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; its type if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def counted(number: int, noun: str) -> str:
    """Format a count with its noun: "1 image", "2,001 images"."""
    plural = f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
