"""Checkpoint files: written atomically, read without running code, and loaded into generators.

A run is resumed from the first intact one of last, previous and best.ckpt; samples come from best, then last,
then previous. When they are written is decided in `gan_lab.training.callbacks.checkpointing`.
"""

import os
import time
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from omegaconf import OmegaConf

from gan_lab.config import read_yaml, shorten
from gan_lab.console import is_first, warn
from gan_lab.errors import InputError
from gan_lab.run import link, replacing, write

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"

CONFIG_FILE = "config.yaml"

# format version of run folders and checkpoints; others are rejected
FORMAT = 2

_SETTLED_NS = 2_000_000_000  # a younger file's time of change may hide a later change

_FOLDER = 0x10  # bit of a zip member's attributes; torch would return uninitialized memory for it

_MOST_IMAGES = 2**50  # images seen, far beyond the longest run


class DamagedCheckpointError(InputError):
    """A checkpoint is truncated or changed, or the file is something else."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            InputError: when the disk is full; the old file is kept.
        """
        path = Path(path)
        try:
            with replacing(path) as temporary, temporary.open("wb") as file:
                torch.save({**checkpoint, "format": FORMAT}, file)
        except InputError as error:
            raise InputError(f"{error}. {what_is_saved(path.parent)}") from error

    def load_checkpoint(
        self,
        path: Any,
        map_location: Callable | None = lambda storage, loc: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint; tensors and plain containers only."""
        return read(Path(path))


def what_is_saved(folder: Path) -> str:
    """Describe the checkpoint from which the same command continues."""
    saved = next((folder / n for n in (LAST, PREVIOUS, BEST) if (folder / n).exists()), None)
    if saved is None:
        return "Nothing was saved before; the same command begins again"
    return f"The same command goes on from {saved}"


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU without running code in it; verifies its checksums.

    Raises:
        InputError: when the file is missing or not readable; `DamagedCheckpointError` when it is truncated or
            changed, or is not a checkpoint of gan_lab.
    """
    return _read(path, mmap=False)


def peek(path: Path) -> dict[str, Any]:
    """Read a checkpoint as `read`, with memory-mapped tensors."""
    return _read(path, mmap=True)


def _read(path: Path, *, mmap: bool) -> dict[str, Any]:
    state = read_archive(path, mmap=mmap)
    if not _is_ours(state):
        raise DamagedCheckpointError(
            f"{path} is not a gan_lab checkpoint; give one that gan-lab train wrote"
        )
    check_format(state.pop("format", None), path)
    return state


def read_archive(path: Path, *, mmap: bool = False) -> Any:
    """Read a file of `torch.save` with tensors and plain containers, and verify its checksums.

    Raises:
        InputError: as `read`.
    """
    if path.is_symlink() and not path.exists():
        raise DamagedCheckpointError(f"{path} is a link to {os.readlink(path)}, which is not there")
    if not path.exists():
        raise InputError(f"there is no checkpoint {path}")
    if not path.is_file():
        raise DamagedCheckpointError(f"{path} is not a file")
    try:
        with path.open("rb") as file:
            verify(file)
            # memory mapping needs a path
            source: IO[bytes] | Path = path if mmap else file
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
    except PermissionError as error:
        raise InputError(f"{path} may not be read: {error}; change its permissions") from error
    except MemoryError:
        raise
    except Exception as error:  # torch.load may raise anything for incomplete files
        raise DamagedCheckpointError(
            f"{path} cannot be read, it was cut short, changed, or is not a checkpoint "
            f"({str(error).partition('. ')[0]})"
        ) from error


def _is_ours(state: Any) -> bool:
    """Whether the content is a checkpoint, as far as sampling needs it."""
    if not isinstance(state, dict):
        return False
    weights, clock, callbacks = (state.get(key) for key in ("state_dict", "clock", "callbacks"))
    if not isinstance(weights, dict) or not isinstance(clock, dict):
        return False
    seen = clock.get("images_seen")
    return (
        all(isinstance(key, str) for key in weights)
        and all(
            (isinstance(value, torch.Tensor) and value.layout == torch.strided)
            or key.endswith("_extra_state")
            for key, value in weights.items()
        )
        and type(seen) is int
        and 0 <= seen <= _MOST_IMAGES
        and (callbacks is None or isinstance(callbacks, dict))
        and all(isinstance(one, dict) for one in (callbacks or {}).values())
    )


def check_format(number: object, path: Path) -> None:
    """Check the format number of a file of a run.

    Raises:
        InputError: for another version.
    """
    if type(number) is not int or number != FORMAT:
        raise InputError(
            f"{path} has format {shorten(number)}, and this gan_lab reads format {FORMAT}: install the version that "
            "wrote it, or train again under another name="
        )


def verify(file: IO[bytes]) -> None:
    """Check the checksums (CRC-32) of a torch.save archive, once per state of the file.

    torch.load ignores them. It takes half a second per gigabyte, as long as reading it.

    Raises:
        zipfile.BadZipFile: when one differs, and many types when the file is not an archive.
    """
    found = os.fstat(file.fileno())
    signature = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    if signature in _verified():
        return
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        claimed = sum(member.file_size for member in members)
        if claimed > found.st_size:  # torch does not compress, so this is a zip bomb
            raise zipfile.BadZipFile(f"it claims {claimed:,} bytes in a file of {found.st_size:,}")
        for member in members:  # no checksum covers the sizes, and torch would read past the end
            if member.file_size != member.compress_size:
                raise zipfile.BadZipFile(f"the sizes of {member.filename} differ")
            if member.external_attr & _FOLDER:
                raise zipfile.BadZipFile(f"{member.filename} is marked as a folder")
        wrong = archive.testzip()
    if wrong is not None:
        raise zipfile.BadZipFile(f"the checksum of {wrong} differs")
    # a file system's clock is too coarse to notice changes of a file just written
    if time.time_ns() - found.st_mtime_ns > _SETTLED_NS:
        _verified().add(signature)
    file.seek(0)


@cache
def _verified() -> set[tuple[int, ...]]:
    """The files verified by this process."""
    return set()


def first_intact(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first intact checkpoint of a folder, warning about damaged ones before it.

    Raises:
        InputError: when there are checkpoints and none is intact.
    """
    wrong: list[str] = []
    # a dangling link counts: its disk may be unmounted, and starting again would lose the log
    for path in [folder / name for name in names if os.path.lexists(folder / name)]:
        try:
            peek(path)
        except DamagedCheckpointError as error:
            wrong.append(str(error))
        else:
            if wrong:
                _warn_once(f"{'; '.join(wrong)}; {path} takes its place")
            return path
    if wrong:
        raise InputError(
            f"no checkpoint in {folder} can be read ({'; '.join(wrong)}); delete the folder to start again, or choose "
            "another name="
        )
    return None


@cache
def _warn_once(text: str) -> None:
    warn(text)


def find_resumable(folder: Path) -> Path | None:
    """Return the checkpoint to resume from, None without checkpoints. Requires the lock of the run folder.

    It tries last.ckpt, previous.ckpt and best.ckpt. If the last one is damaged, the next intact one replaces it;
    otherwise the next save would make the damaged file previous.ckpt. It also links best.ckpt to last.ckpt if a kill
    prevented that.

    Raises:
        InputError: when there are checkpoints and none can be read.
    """
    found = first_intact(folder, (LAST, PREVIOUS, BEST))
    if found is not None and is_first():
        if found.name != LAST:
            link(found, folder / LAST)
        if last_is_best(folder):
            link(folder / LAST, folder / BEST)
        return folder / LAST
    return found


def last_is_best(folder: Path) -> bool:
    """Whether `last.ckpt` is the best so far and a kill prevented linking it as `best.ckpt`."""
    last, best = folder / LAST, folder / BEST
    if not last.exists() or (best.exists() and last.samefile(best)):
        return False
    try:
        state = peek(last)
    except DamagedCheckpointError:
        return False
    checkpointing = state.get("callbacks", {}).get("Checkpointing", {})
    return bool(checkpointing.get("best_kimg") == state["clock"]["images_seen"] / 1000)


def checkpoint_path(source: Path, checkpoint: str | None = None) -> Path:
    """Return the path of a checkpoint by `source` (run folder or file) and `checkpoint`.

    Without a name, the first intact one of best, last and previous. `last.ckpt` counts as the best if a kill prevented
    linking it.

    Raises:
        InputError: when there is no such file, or none is intact.
    """
    if source.is_file():
        return source
    folder = source / "checkpoints"
    if not folder.is_dir():
        raise InputError(f"{source} is not a run folder: it has no checkpoints/; give runs/<name>")
    names = [f"{checkpoint.removesuffix('.ckpt')}.ckpt"] if checkpoint else [BEST, LAST, PREVIOUS]
    if names[0] == BEST and last_is_best(folder):
        names[0] = LAST
    if checkpoint and (folder / names[0]).exists():
        return folder / names[0]
    found = None if checkpoint else first_intact(folder, names)
    if found is not None:
        return found
    there = ", ".join(sorted(p.stem for p in folder.glob("*.ckpt"))) or "none"
    raise InputError(f"{folder} has no {' or '.join(names[:2])}; checkpoints there: {there}")


def read_config(run_dir: Path) -> dict[str, Any]:
    """Read a run's config as plain values; the run is not trusted.

    Raises:
        InputError: when the folder has none, or it is none.
    """
    path = run_dir / CONFIG_FILE
    if not path.exists():
        raise InputError(
            f"{run_dir} is not a run folder: it has no {CONFIG_FILE}; give runs/<name>"
        )
    config = read_yaml(path)
    if not isinstance(config, dict):
        raise InputError(f"{path} holds no configuration of a run")
    check_format(config.pop("format", None), path)
    return config


def write_config(run_dir: Path, config: Any) -> None:
    """Save a fully resolved config, which is all that evaluate and generate need."""
    write(run_dir / CONFIG_FILE, f"format: {FORMAT}\n{OmegaConf.to_yaml(config)}")
