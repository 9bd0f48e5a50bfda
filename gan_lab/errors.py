"""Errors that a user can fix."""

from importlib import import_module
from threading import Event
from typing import Any

# a library interrupted by Ctrl-C may raise anything
interrupted = Event()

# set when torch and the like are loaded: an exception during their import may crash the process
imported = Event()


class InputError(ValueError):
    """An error that the user can fix.

    The message says what was given, what is allowed and what to do. The command line prints it without a
    traceback; anything else that is raised is a defect of gan_lab and keeps its traceback.
    """


def import_extra(package: str, *, extra: str, what: str) -> Any:
    """Import an optional package.

    Args:
        package: its name.
        extra: of gan-laboratory, which installs it.
        what: needs it, for the message.

    Raises:
        InputError: when it cannot be imported.
    """
    try:
        return import_module(package)
    except (ImportError, OSError) as error:
        raise InputError(
            f"{what} needs {package} ({error}): pip install 'gan-laboratory[{extra}]'"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; its type if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def counted(number: int, noun: str) -> str:
    """Format a count with its noun: "1 image", "2,001 images"."""
    plural = f"{noun}es" if noun.endswith(("s", "x")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
