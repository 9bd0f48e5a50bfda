"""One process to a run folder: a lock that goes with the process, and a note of who holds it."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from gan_lab.errors import InputError

LOCK_FILE, HOLDER_FILE = ".lock", ".lock.json"


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who trains in a run folder.

    Attributes:
        pid: of the process.
        host: its machine.
        since: when it began, in local time with its offset from UTC.
    """

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Keep a second process out of a run folder; the lock goes with the process that holds it, however that ends.

    Raises:
        InputError: when another process holds it, naming it.
    """
    lock = FileLock(run_dir / LOCK_FILE, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        holder = noted_holder(run_dir)
        who = "" if holder is None else f" ({holder})"
        raise InputError(
            f"another process is training in {run_dir}{who}; wait for it, or choose another name="
        ) from error
    note = run_dir / HOLDER_FILE
    try:
        write_holder(note)
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def write_holder(path: Path) -> None:
    """Note that this process holds the folder, whole or not at all."""
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    holder = Holder(pid=os.getpid(), host=socket.gethostname(), since=since)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(holder)) + "\n")
    os.replace(temporary, path)


def noted_holder(run_dir: Path) -> Holder | None:
    """Return who last noted to hold a run folder; a kill leaves the note, so only the lock says that it is held."""
    try:
        return Holder(**json.loads((run_dir / HOLDER_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def living_holder(run_dir: Path) -> Holder | None:
    """Return who trains in a run folder now, as far as this machine can tell, without touching the lock."""
    holder = noted_holder(run_dir)
    if holder is None or holder.host != socket.gethostname():
        return None
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # it lives, and belongs to somebody else
    return holder
