"""Errors that a user can fix."""


class InputError(ValueError):
    """Something that was asked for cannot be done.

    The message says what was given, what is allowed and what to do. The command line prints it without a
    traceback; anything else that is raised is a defect of gan_lab and keeps its traceback.
    """
