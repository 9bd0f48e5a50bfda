"""The run folder: atomic writes, lock, results."""

import errno
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    NotRequired,  # pydantic needs these before Python 3.12
)

from filelock import FileLock, Timeout
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from gan_lab.config import conf_dir, read_json, take
from gan_lab.errors import InputError
from gan_lab.version import __version__

if TYPE_CHECKING:
    import torch

LOCK_FILE, HOLDER_FILE = ".lock", ".lock.json"

# age of another machine's temporary files: whether its processes are alive is unknown
_ABANDONED_S = 24 * 3600

_LONGEST_NAME = 100

# errors of the disk or folder, not of the code
_DISK_ERRORS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO),
    }
)  # fmt: skip

# Atomic writes ---------------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` at the end of the block, or is removed on an error.

    The folder is created if needed. At any moment `path` is the old file or the new one.

    Args:
        path: of the file.
        sync: whether the file survives a power failure, too; False for many files that are quickly made again.

    Raises:
        InputError: when it cannot be written (disk full, read-only, no folder), naming the file and the reason.
    """
    temporary = temporary_path(path)
    try:
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            publish(temporary, path, sync=sync)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an error of the disk into an InputError that names the file and the reason.

    Raises:
        InputError: when the disk is full, read-only, or the like.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = disk_error_of(error)
        if reason is None:
            raise
        raise InputError(
            f"{path} could not be written: {reason}; free disk space or choose another folder"
        ) from error


def write(path: Path, content: str | bytes, *, sync: bool = True) -> None:
    """Write text (UTF-8) or bytes atomically; errors as `replacing`."""
    data = content.encode() if isinstance(content, str) else content
    with replacing(path, sync=sync) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write a value as JSON atomically; errors as `replacing`."""
    write(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, replacing it in one step; a copy where there are no hard links."""
    with replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def append_line(path: Path, line: str) -> None:
    """Append a line to a journal; when the disk is full, the file stays unchanged.

    Links are not followed: in another user's folder they may lead to any file. Pipes are not waited for.

    Raises:
        InputError: when it cannot be written.
    """
    data = line.encode() + b"\n"
    with naming(path), open(path, "ab", buffering=0, opener=_open_without_links) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def _open_without_links(path: str, flags: int) -> int:
    """Open a file without following links or waiting for pipes."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o666)


def check_writable(path: Path) -> None:
    """Check that a file can be written, before its content is computed.

    Raises:
        InputError: naming the file and the reason.
    """
    temporary = temporary_path(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(b"")
        temporary.unlink()


def temporary_path(path: Path) -> Path:
    """Return this process's temporary path for a file; `remove_leftovers` knows these names."""
    return path.with_name(f".{path.name[:_LONGEST_NAME]}.{_host()}.{os.getpid()}.part")


def publish(temporary: Path, path: Path, *, sync: bool = True) -> None:
    """Move a finished file or folder to its name in one step."""
    if sync:
        _sync(temporary)
    os.replace(temporary, path)
    if sync:
        _sync(path.parent)


def remove_leftovers(*folders: Path) -> None:
    """Remove temporary files and folders of killed processes; the caller must hold the lock."""
    for folder in folders:
        for path in folder.glob(".*.part"):
            if not _in_use(path):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def disk_error_of(error: BaseException) -> str | None:
    """Return an error of the disk or folder as text, or None for any other error.

    torch and safetensors wrap the system's error, or only quote it.
    """
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OSError) and chain.errno in _DISK_ERRORS:
            return os.strerror(chain.errno)
        quoted = re.search(r"\(os error (\d+)\)", str(chain))
        if quoted and int(quoted[1]) in _DISK_ERRORS:
            return os.strerror(int(quoted[1]))
        chain = chain.__cause__ or chain.__context__
    return None


def _sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk (fsync)."""
    if path.is_dir() and os.name == "nt":
        return  # not supported there
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _host() -> str:
    """Return this machine's name as part of a file name."""
    return re.sub(r"[^\w-]", "-", socket.gethostname())[:32]


def _in_use(path: Path) -> bool:
    """Whether another process may still be writing a temporary file."""
    found = re.fullmatch(r".+\.([\w-]*)\.(\d+)\.part", path.name)
    if found is None:
        return True  # another user's
    host, pid = found[1], int(found[2])
    if host != _host():
        return time.time() - path.lstat().st_mtime < _ABANDONED_S
    return pid != os.getpid() and _is_alive(pid)


def _is_alive(pid: int) -> bool:
    """Whether a process of this machine is alive."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # an invalid process id
        return False
    except PermissionError:
        pass  # it is alive, and belongs to another user
    return True


def identity(folder: Path) -> tuple[int, int] | None:
    """Return a folder's identity, to notice that it was replaced; None without a folder."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


# The lock --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that trains in a run folder.

    Attributes:
        pid: of the process.
        host: its machine.
        since: its start, in local time with the offset from UTC.
    """

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Lock a run folder; the lock ends with the process that holds it.

    The folder is created if needed, and removed if nothing was written to it.

    Raises:
        InputError: when another process holds it, naming it; when the folder cannot be written.
    """
    note, lock_file = run_dir / HOLDER_FILE, run_dir / LOCK_FILE
    lock = FileLock(lock_file, blocking=False)
    missing = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    try:
        with naming(run_dir):
            run_dir.mkdir(parents=True, exist_ok=True)
            lock.acquire()
    except Timeout as error:
        holder = noted_holder(run_dir)
        who = "" if holder is None else f" ({holder})"
        raise InputError(
            f"another process is training in {run_dir}{who}; wait for it, or choose another name="
        ) from error
    try:
        write_json(note, asdict(own_note()), indent=None)
        yield
    finally:
        note.unlink(missing_ok=True)
        if missing and run_dir.exists() and os.listdir(run_dir) == [LOCK_FILE]:
            lock_file.unlink()
            for folder in missing:
                with suppress(OSError):  # another process may have begun to use it
                    folder.rmdir()
        lock.release()


def own_note() -> Holder:
    """Return this process's note as a folder's holder."""
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return Holder(pid=os.getpid(), host=socket.gethostname(), since=since)


def noted_holder(run_dir: Path) -> Holder | None:
    """Return the holder noted in a run folder; after a kill the note stays, so only the lock counts."""
    path = run_dir / HOLDER_FILE
    try:
        noted = read_json(path)
        return Holder(
            pid=take(noted, "pid", Annotated[int, Field(ge=1, le=2**31 - 1)], origin=path),
            host=take(noted, "host", str, origin=path),
            since=take(noted, "since", str, origin=path),
        )
    except InputError:
        return None


def living_holder(run_dir: Path) -> Holder | None:
    """Return the process that trains in a run folder, as far as this machine knows, without touching the lock."""
    holder = noted_holder(run_dir)
    if holder is None or holder.host != socket.gethostname():
        return None
    return holder if _is_alive(holder.pid) else None


# Results as JSON: metrics, protocol and environment.

PACKAGES = ("torch", "torchvision", "torch-fidelity", "numpy", "pillow", "scikit-learn")

MOST_RESULTS = 2**28  # bytes: results may have curves, and values for a thousand classes


class MeasuredMetric(TypedDict):
    """A metric in a result; further keys are allowed."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    key: str
    value: float | None


class Result(TypedDict):
    """The required keys of a result."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    metrics: list[MeasuredMetric]
    fake: NotRequired[dict[str, Any]]
    protocol: NotRequired[str | None]


# results with equal values of these have the same metrics
IDENTITY = ("protocol", "num_fake", "num_real", "fake", "real", "settings")


def circumstances(device: "torch.device") -> dict[str, Any]:
    """Return time, versions and device."""
    import torch  # slow import, which a sweep that only reads results does not need

    on = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": f"{device.type}: {on}",
        "versions": {
            "gan_lab": __version__,
            "python": platform.python_version(),
            **{name: found for name in PACKAGES if (found := package_version(name))},
        },
        "git_revision": git_revision(),
    }


def package_version(name: str) -> str | None:
    """Return the version of an installed package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_revision() -> str | None:
    """Return the commit of gan_lab's checkout, with "+" where it has changed since; None where there is none."""
    root = conf_dir().parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(
            root, "status", "--porcelain", "--untracked-files=no", "--", "gan_lab", "conf"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+" if changed else commit


def _git(root: Path, *arguments: str) -> str:
    # a run that is killed meanwhile would otherwise leave a lock in the user's repository
    done = subprocess.run(
        ["git", "--no-optional-locks", "-C", str(root), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return done.stdout.strip()


def add_result(result: dict[str, Any], path: Path) -> None:
    """Add a result to a JSON list; it replaces an earlier one of the same images and protocol.

    Raises:
        InputError: when the file has other content.
    """
    results = read_results(path)
    as_read = json.loads(json.dumps(result))
    kept = [other for other in results if not same_question(other, as_read)]
    write_json(path, [*kept, as_read])


def same_question(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two results are of the same images and protocol."""
    return all(one.get(key) == other.get(key) for key in IDENTITY)


def read_results(path: Path) -> list[dict[str, Any]]:
    """Read the results of a JSON file, none where there is no file.

    Raises:
        InputError: when the file has other content.
    """
    if not path.exists():
        return []
    try:
        results = read_json(path, most=MOST_RESULTS)
        content = {"results": results}
        found: list[dict[str, Any]] = take(content, "results", list[Result], origin=path)
    except InputError as error:
        raise InputError(f"{error}; move it away, or set out=") from error
    return found
