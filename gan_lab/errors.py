"""Errors that a user can mend, and whether he has pressed Ctrl-C."""

from threading import Event

# what a library makes of a Ctrl-C in its middle may be any error, which then says nothing
interrupted = Event()


class InputError(ValueError):
    """Something that was asked for cannot be done.

    The message says what was given, what is allowed and what to do. The command line prints it without a
    traceback; anything else that is raised is a defect of gan_lab and keeps its traceback.
    """
