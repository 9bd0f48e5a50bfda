"""Packing samples and their metadata into one zip, resumable after a kill at any moment."""

import errno
import json
import os
import signal
import threading
import time
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict  # pydantic asks for these before Python 3.12

from gan_lab.data.base import digest
from gan_lab.data.listing import PACKED_ENDING
from gan_lab.data.metadata import MetadataTable, as_unicode
from gan_lab.data.tables import METADATA
from gan_lab.errors import InputError
from gan_lab.run import publish, write

CHECKPOINT_SAMPLES = 5_000
CHECKPOINT_SECONDS = 20.0
_MOST_CHECKPOINTING = 20  # times the duration of a checkpoint until the next
_VERSION = 2
_AHEAD = 8  # samples a thread may be ahead of the writer; for a process times _TOGETHER
_TOGETHER = 8
_PER_FOLDER = 1000
PACKED_BY = f"by{PACKED_ENDING}"  # a member: `pack_name` of what is packed beside the samples
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Journal(TypedDict):
    """The state of packing at a checkpoint: its plan, end in bytes, and the items given up."""

    plan: str
    end: Annotated[int, Field(ge=0)]
    done: Annotated[int, Field(ge=0)]
    failed: list[tuple[str, str, str]]


_STATE = TypeAdapter(_Journal)


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """A sample that cannot be packed.

    Attributes:
        reason: why, in one line.
    """

    reason: str


@dataclass(frozen=True, kw_only=True)
class PackedSample:
    """The file of a sample, and the files beside it.

    Attributes:
        sample: its content.
        beside: contents of the others, by their ending: PACKED_ENDING, SOURCE_ENDING.
    """

    sample: bytes
    beside: Mapping[str, bytes]


Encoded = bytes | PackedSample | Damaged


class Packer:
    """Writes samples in the order of their table, and `dataset.json` with the rows of those that were packed.

    It resumes after a kill; the finished file is byte-identical, interrupted or not.

    Args:
        out: the zip.
        table: a row for each sample; `files` name them in messages.
        plan: identifies the samples; only a file of the same plan and table is resumed.
        suffix: of the members.

    Attributes:
        done: samples packed or given up.
        packed: the table of the packed samples, by member, at the end.
        damaged: (name, reason) of samples given up.
    """

    def __init__(self, *, out: Path, table: MetadataTable, plan: str, suffix: str = ".png") -> None:
        self._table = table
        self._members = _members(table, suffix)
        content = digest(_VERSION, plan, self._members, table.content())
        self._archive = RestartableZip(out=out, plan=content)

    @property
    def done(self) -> int:
        return self._archive.done

    @property
    def damaged(self) -> list[tuple[str, str]]:
        return [(name, reason) for _, name, reason in self._archive.failed]

    @property
    def packed(self) -> MetadataTable:
        failed = {member for member, _, _ in self._archive.failed}
        kept = [i for i, member in enumerate(self._members) if member not in failed]
        return replace(self._table, files=self._members).rows(kept)

    def pack(
        self, encode: Callable[[int], Encoded], *, num_threads: int, processes: int = 1
    ) -> Iterator[int]:
        """Encode and write the remaining samples, and yield `done` after each.

        Args:
            encode: returns the file of a row's sample, or also the files beside it; called from several threads.
            num_threads: encoding threads of this process.
            processes: encoding processes, instead of threads if more than 1.
        """
        saved, saved_at, cost = self.done, time.monotonic(), 0.0
        left = range(self.done, len(self._table))
        encoded = _in_order(encode, left, num_threads=num_threads, processes=processes)
        for row, data in zip(left, encoded, strict=True):
            if isinstance(data, Damaged):
                self._archive.give_up(self._members[row], self._table.files[row], data.reason)
            else:
                self._archive.add(self._members[row], data)
            # a checkpoint writes the whole directory: at a million samples every 5,000 of them would take ten times
            # as long as the samples themselves
            begin = time.monotonic()
            due = begin - saved_at > max(CHECKPOINT_SECONDS, _MOST_CHECKPOINTING * cost)
            if due or self.done - saved >= max(CHECKPOINT_SAMPLES, self.done // 10):
                self.checkpoint()
                saved, saved_at = self.done, time.monotonic()
                cost = saved_at - begin
            yield self.done

    def checkpoint(self) -> None:
        """Save everything packed so far."""
        self._archive.checkpoint()

    def finish(self, packed_by: str = "", **more: object) -> None:
        """Write the table, with `more` in its JSON, and `packed_by`; rename the zip."""
        if packed_by:
            self._archive.add_note(PACKED_BY, packed_by.encode())
        self._archive.finish(METADATA, json.dumps({**self.packed.to_json(), **more}).encode())

    def abandon(self) -> None:
        """Close the files; the next packer of the same plan resumes."""
        self._archive.abandon()


def _members(table: MetadataTable, suffix: str) -> list[str]:
    """Names of the members, 1,000 a folder, below folders of the splits where there are several."""
    splits = table.splits or ["train"] * len(table)
    several = len(set(splits)) > 1
    counts: Counter[str] = Counter()
    members = []
    for split in splits:
        index = counts[split]
        counts[split] += 1
        folder = f"{split}/" if several else ""
        members.append(f"{folder}{index // _PER_FOLDER:05d}/img{index:08d}{suffix}")
    return members


def name_beside(member: str, ending: str) -> str:
    """Return the name of a member beside a sample's."""
    return f"{member.rpartition('.')[0]}{ending}"


def _in_order(
    encode: Callable[[int], Encoded], rows: range, *, num_threads: int, processes: int
) -> Iterator[Encoded]:
    """Yield the results of `encode` for the rows, in order, computed slightly ahead by threads or processes."""
    queue: deque[Future[list[Encoded]]] = deque()
    pool: Executor
    if processes > 1:
        # forked: the data sets are there already
        forked = get_context("fork")
        pool = ProcessPoolExecutor(processes, forked, _start_encoding, (encode, os.getpid()))
        call, ahead, together = _encode_here, _AHEAD * processes, _TOGETHER
    else:
        pool = ThreadPoolExecutor(num_threads)
        call, ahead, together = partial(_encode_all, encode), _AHEAD * num_threads, 1
    starts = iter(range(rows.start, rows.stop, together))
    try:
        submitted = (
            pool.submit(call, range(start, min(start + together, rows.stop))) for start in starts
        )
        queue.extend(islice(submitted, ahead))
        while queue:
            data = queue.popleft().result()
            queue.extend(islice(submitted, 1))
            yield from data
    except BrokenProcessPool as error:
        raise InputError(
            "a process that encodes samples was killed (SIGKILL is what a system sends that is out of memory); give "
            "the same command with fewer processes=: it goes on from the last checkpoint"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _encode_all(encode: Callable[[int], Encoded], rows: range) -> list[Encoded]:
    return [encode(row) for row in rows]


_ENCODE: list[Callable[[int], Encoded]] = []  # of a process of the pool


def _start_encoding(encode: Callable[[int], Encoded], parent: int) -> None:
    """Begin a process of the pool: it ends with its parent, and leaves Ctrl-C to that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _ENCODE.append(encode)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _encode_here(rows: range) -> list[Encoded]:
    return _encode_all(_ENCODE[-1], rows)


class RestartableZip:
    """Writes `out` via `out.part`, with `out.journal` to resume from.

    A zip's directory is at its end, so a truncated zip cannot be read. At each checkpoint the directory is written, and
    the journal keeps a copy of it and its offset; resuming restores it there and drops later members. The finished
    file is byte-identical, interrupted or not.

    Args:
        out: the zip.
        plan: identifies the content; only a journal of the same plan is resumed.

    Attributes:
        done: items written or given up.
        failed: (member, name, reason) of items given up.
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

    def add(self, name: str, data: bytes | PackedSample) -> None:
        """Write the next item as an uncompressed member, and the files beside it."""
        if isinstance(data, PackedSample):
            self._write(name, data.sample)
            for ending, content in data.beside.items():
                self._write(name_beside(name, ending), content)
        else:
            self._write(name, data)
        self.done += 1

    def add_note(self, name: str, data: bytes) -> None:
        """Write a member that is not an item, after all items."""
        self._write(name, data)

    def give_up(self, member: str, name: str, reason: str) -> None:
        """Skip the next item, `member`, and record its name and the reason."""
        self.failed.append((member, as_unicode(name), reason))
        self.done += 1

    def checkpoint(self) -> None:
        """Save everything written so far."""
        end = self._file.tell()
        self._close_archive()
        self._file.seek(end)
        table = self._file.read()
        state = {"plan": self._plan, "end": end, "done": self.done, "failed": self.failed}
        write(self._journal, json.dumps(state).encode() + b"\n" + table)
        self._archive = zipfile.ZipFile(self._file, "a")

    def finish(self, name: str, data: bytes) -> None:
        """Write a last member and rename the file."""
        self._write(name, data)
        self._close_archive()
        self._file.close()
        publish(self._part, self._out)
        self._journal.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Close the files; the journal allows to resume."""
        self._archive.fp = None  # otherwise its destructor writes, maybe to a full disk
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
        """Restore `out.part` to the last checkpoint; False if there is none of this plan."""
        try:
            head, _, table = self._journal.read_bytes().partition(b"\n")
            state = _STATE.validate_json(head, strict=True)
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
        self.failed = state["failed"]
        return True


def disk_full(error: OSError, out: Path) -> InputError | None:
    """Return the error to show when the disk is full, else None."""
    if error.errno not in _DISK_FULL:
        return None
    return InputError(
        f"the disk with {out.parent} is full; make room and give the same command again: "
        f"it goes on from the last checkpoint in {out.name}.part"
    )
