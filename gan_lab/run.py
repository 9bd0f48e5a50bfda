"""One process to a run folder: a lock that goes with the process, and a note of who holds it."""

import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import torch
from filelock import FileLock, Timeout
from pydantic import Field

from gan_lab.config import conf_dir, read_json, take
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


# Results as JSON: what was measured, how, and in which circumstances.

PACKAGES = ("torch", "torchvision", "torch-fidelity", "numpy", "pillow", "scikit-learn")

# what makes two results answers to the same question
IDENTITY = ("protocol", "num_fake", "num_real", "fake", "real", "settings")


def circumstances(device: torch.device) -> dict[str, Any]:
    """Return the time, the versions of all that computes, and the device."""
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": f"{device.type}: {on}",
        "versions": {
            "gan_lab": version("gan_lab"),
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


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()


def add_result(result: dict[str, Any], path: Path) -> None:
    """Add a result to a JSON list, in place of an earlier one of the same images by the same protocol.

    Raises:
        InputError: when the file holds something else.
    """
    results = read_results(path)
    plain = json.loads(json.dumps(result))
    kept = [other for other in results if not same_question(other, plain)]
    write([*kept, plain], path)


def same_question(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two results measure the same images in the same way."""
    return all(one.get(key) == other.get(key) for key in IDENTITY)


def read_results(path: Path) -> list[dict[str, Any]]:
    """Read the results of a JSON file, none where there is no file.

    Raises:
        InputError: when the file holds something else.
    """
    if not path.exists():
        return []
    try:
        results = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no JSON ({error}); move it away, or set out=") from error
    if isinstance(results, dict) and "figures" in results:  # of an earlier version: a single one
        return [results]
    if not isinstance(results, list):
        raise InputError(f"{path} holds no results; move it away, or set out=")
    return results


def write(result: Any, path: Path) -> None:
    """Write JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=2) + "\n")
    os.replace(temporary, path)
