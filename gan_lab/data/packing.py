"""A zip that grows member by member and survives being killed at any moment."""

import errno
import json
import os
import zipfile
from pathlib import Path

from gan_lab.errors import InputError
from gan_lab.run import publish, write

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class RestartableZip:
    """Writes `out` by way of `out.part`, with `out.journal` to go on from.

    A zip's table of contents stands at its end, so one that was cut short cannot be read. Now and then the table is
    written, and the journal keeps a copy of it with the place where it belongs; a restart puts it back there and drops
    what was written later. The finished file is the same to the byte, interrupted or not.

    Args:
        out: the zip to be.
        plan: names what is being packed; a journal of another plan is not continued.

    Attributes:
        done: items of the plan that are in the file or were given up.
        failed: (member, name, reason) of those that were given up.
    """

    def __init__(self, *, out: Path, plan: str) -> None:
        self._out = out
        self._plan = plan
        self._part = out.with_name(f"{out.name}.part")
        self._journal = out.with_name(f"{out.name}.journal")
        self.done = 0
        self.failed: list[tuple[str, str, str]] = []
        if not self._resume():
            self._journal.unlink(missing_ok=True)
            self._part.write_bytes(b"")
        self._file = self._part.open("r+b")
        self._archive = zipfile.ZipFile(self._file, "a")

    def add(self, name: str, data: bytes) -> None:
        """Write the next item as an uncompressed member."""
        self._write(name, data)
        self.done += 1

    def give_up(self, member: str, name: str, reason: str) -> None:
        """Pass over the next item, which was to be `member`, and remember what it was and why."""
        self.failed.append((member, name, reason))
        self.done += 1

    def checkpoint(self) -> None:
        """Make all that is written so far survive a kill."""
        end = self._file.tell()
        self._close_archive()
        self._file.seek(end)
        table = self._file.read()
        state = {"plan": self._plan, "end": end, "done": self.done, "failed": self.failed}
        write(self._journal, json.dumps(state).encode() + b"\n" + table)
        self._archive = zipfile.ZipFile(self._file, "a")

    def finish(self, name: str, data: bytes) -> None:
        """Write a last member and give the file its name."""
        self._write(name, data)
        self._close_archive()
        self._file.close()
        publish(self._part, self._out)
        self._journal.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Let go of the files as they are; the journal tells how to go on."""
        self._archive.fp = None  # or its destructor would write to a disk that may be full
        self._file.close()

    def _write(self, name: str, data: bytes) -> None:
        member = zipfile.ZipInfo(
            name
        )  # with the date 1980-01-01, so that equal content makes equal files
        member.create_system = 3
        member.external_attr = 0o644 << 16
        self._archive.writestr(member, data)

    def _close_archive(self) -> None:
        self._archive.close()
        self._file.flush()
        os.fsync(self._file.fileno())

    def _resume(self) -> bool:
        """Bring `out.part` back to the last checkpoint; False when there is none of this plan."""
        try:
            head, _, table = self._journal.read_bytes().partition(b"\n")
            state = json.loads(head)
            size = self._part.stat().st_size
        except (FileNotFoundError, ValueError):
            return False
        if state["plan"] != self._plan or size < state["end"]:
            return False
        with self._part.open("r+b") as file:
            file.truncate(state["end"])
            file.seek(state["end"])
            file.write(table)
        self.done = state["done"]
        self.failed = [(member, name, reason) for member, name, reason in state["failed"]]
        return True


def disk_full(error: OSError, out: Path) -> InputError | None:
    """What to tell the user when `error` means that the disk is full, else None."""
    if error.errno not in _DISK_FULL:
        return None
    return InputError(
        f"the disk with {out.parent} is full; make room and give the same command again: "
        f"it goes on from the last checkpoint in {out.name}.part"
    )
