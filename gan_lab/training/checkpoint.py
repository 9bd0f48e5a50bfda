"""Checkpoints: written whole or not at all, read without running code, and loaded into a generator to draw from."""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError  # type: ignore[import-untyped]

from gan_lab.config import build, check_targets
from gan_lab.console import is_first, warn
from gan_lab.errors import InputError
from gan_lab.sampling.gan import Gan
from gan_lab.training.state_dicts import check_fit

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"

CONFIG_FILE = "config.yaml"


class NotWholeError(InputError):
    """A checkpoint was cut short, or is something else."""


def link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, replacing it in one step; a copy where links are not to be had."""
    temporary = target.with_suffix(".link")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file and renames it, so that the old checkpoint stays whole until the new one is."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            InputError: when the disk is full; what was there before is untouched.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            # torch's writer reports a failed write as a RuntimeError
            temporary.unlink(missing_ok=True)
            full = isinstance(error, OSError) and error.errno == errno.ENOSPC
            raise InputError(
                f"{path} could not be written ({'the disk is full' if full else error}); the checkpoint before it is "
                "whole. Free some space and run the same command to go on from there."
            ) from error
        os.replace(temporary, path)

    def load_checkpoint(
        self,
        path: Any,
        map_location: Callable | None = lambda storage, loc: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint; tensors and plain containers only, whatever was asked for."""
        return read(Path(path))


def read(path: Path) -> dict[str, Any]:
    """Read one checkpoint onto the CPU without running anything that it may hold.

    Raises:
        InputError: when the file is missing, cut short or not a checkpoint.
    """
    if not path.exists():
        raise InputError(f"there is no checkpoint {path}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise InputError(f"{path} may not be read: {error}; change its permissions") from error
    except MemoryError:
        raise
    except Exception as error:  # torch.load raises many types for one cause: the file is not whole
        raise NotWholeError(
            f"{path} cannot be read, it was cut short or is no checkpoint ({str(error).partition('. ')[0]})"
        ) from error
    if not isinstance(state, dict) or "state_dict" not in state or "clock" not in state:
        raise InputError(f"{path} is not a gan_lab checkpoint; give one that gan-lab train wrote")
    return state


def find_resumable(folder: Path) -> Path | None:
    """Return `last.ckpt` of a checkpoints folder, None when there are no checkpoints at all.

    Where the last one is not whole, the one before it takes its place, or else the best one: left there, the broken
    file would itself become the one before at the next save.

    Raises:
        InputError: when there are checkpoints and none can be read.
    """
    last = folder / LAST
    present = [folder / name for name in (LAST, PREVIOUS, BEST) if (folder / name).exists()]
    for path in present:
        try:
            read(path)
        except NotWholeError as error:
            warn(f"{error}; trying the one before it")
        else:
            if path != last and is_first():
                link(path, last)
                warn(f"{path} takes its place")
            return last if is_first() else path
    if present:
        raise InputError(
            f"no checkpoint in {folder} can be read; delete the folder to start anew, or choose another name="
        )
    return None


def load_run(
    source: str | Path,
    *,
    checkpoint: str | None = None,
    weights: str = "ema",
    device: str | torch.device = "cpu",
    trust: Sequence[str] = (),
) -> Gan:
    """Load the generator of a run folder to draw samples from.

    Args:
        source: a run folder, or one of its checkpoints.
        checkpoint: "best", "last" or "previous"; by default the best where there is one, else the last.
        weights: "ema" for the moving average, "raw" for the generator as trained.
        device: where to compute.
        trust: packages besides gan_lab whose classes the folder's config.yaml may name. Loading imports and calls
            them, so name only what you would run.

    Returns:
        A `Gan`: `.sample(16, labels=3, seed=0)` gives images [16, C, H, W] in [-1, 1].

    Raises:
        InputError: when the folder, its configuration or its checkpoint is missing, broken or names other code.
    """
    if weights not in ("ema", "raw"):
        raise InputError(f"weights={weights!r} must be 'ema' or 'raw'")
    path = checkpoint_path(Path(source), checkpoint)
    state = read(path)
    config = read_config(path.parent.parent)
    node = config.model.generator
    check_targets(node, trust=trust, origin=path.parent.parent / CONFIG_FILE)
    generator = build(node)
    prefix = "generator_ema." if weights == "ema" else "generator."
    own = {
        name.removeprefix(prefix): value
        for name, value in state["state_dict"].items()
        if name.startswith(prefix)
    }
    try:
        check_fit(generator.state_dict(), own)
    except InputError as error:
        raise InputError(
            f"{path} is not of the run that {path.parent.parent / CONFIG_FILE} describes: {error}"
        ) from error
    generator.load_state_dict(own)
    return Gan(
        generator.eval().requires_grad_(False).to(device),
        class_counts=config.images.class_counts,
        class_names=config.images.class_names,
        kimg=state["clock"]["images_seen"] / 1000,
    )


def checkpoint_path(source: Path, checkpoint: str | None = None) -> Path:
    """Return the checkpoint that `source`, a run folder or a file, and `checkpoint` mean.

    Raises:
        InputError: when there is no such file.
    """
    if source.is_file():
        return source
    folder = source / "checkpoints"
    if not folder.is_dir():
        raise InputError(f"{source} is not a run folder: it has no checkpoints/; give runs/<name>")
    names = [f"{checkpoint.removesuffix('.ckpt')}.ckpt"] if checkpoint else [BEST, LAST]
    for name in names:
        if (folder / name).exists():
            return folder / name
    there = ", ".join(sorted(p.stem for p in folder.glob("*.ckpt"))) or "none"
    raise InputError(f"{folder} has no {' or '.join(names)}; checkpoints there: {there}")


def read_config(run_dir: Path) -> DictConfig:
    """Read the configuration that a run was trained with.

    Raises:
        InputError: when the folder has none.
    """
    path = run_dir / CONFIG_FILE
    if not path.exists():
        raise InputError(
            f"{run_dir} is not a run folder: it has no {CONFIG_FILE}; give runs/<name>"
        )
    try:
        config = OmegaConf.load(path)
    except (YAMLError, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, DictConfig):
        raise InputError(f"{path} holds no configuration of a run")
    return config
