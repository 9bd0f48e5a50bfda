"""Data sets that end a run in several ways."""

import os
import signal
from typing import Any

from gan_lab.data.builtin import Digits


class Killed(Digits):
    """The process is killed, as by the kernel that is out of memory."""

    def __init__(self, **settings: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Defect(Digits):
    """A defect of the program."""

    def __init__(self, **settings: Any) -> None:
        raise RuntimeError("this is nobody's input")
