"""Where pictures go, and what a folder of pictures says of how they were made."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from gan_lab.errors import InputError
from gan_lab.run import write_json
from gan_lab.sampling.gan import Gan
from gan_lab.training.checkpoint import checkpoint_path

SETTINGS = "generate.json"


def source_of(config: DictConfig) -> tuple[str, str]:
    """Return the names of a run and its checkpoint, or of an exported model and "exported"."""
    source = Path(str(config.run)).expanduser()
    if is_run(source):
        checkpoint = checkpoint_path(source, config.checkpoint)
        return checkpoint.resolve().parent.parent.name, checkpoint.stem
    return source.name, "exported"


def is_run(source: Path) -> bool:
    """Whether a path is a run folder or a checkpoint."""
    return source.is_file() or (source / "checkpoints").is_dir()


def weights_of(config: DictConfig) -> str | None:
    """Return which weights of a run are meant; None for an exported model that nobody said which it should have."""
    if config.get("ema") is not None:
        return f"ema{config.ema:g}"
    is_from_run = is_run(Path(str(config.run)).expanduser())
    weights: str | None = config.weights or ("ema" if is_from_run else None)
    return weights


def output_folder(config: DictConfig, gan: Gan, parts: Sequence[str]) -> Path:
    """Return the folder that `out` names, else one in the run folder; of an exported model, one here.

    Args:
        config: with `run`, `checkpoint`, `weights` and `out`.
        gan: that was loaded.
        parts: of its name: all that changes what is in it.

    Raises:
        InputError: for a file.
    """
    if config.out is not None:
        folder = Path(config.out).expanduser()
        if folder.exists() and not folder.is_dir():
            raise InputError(f"out={folder} is a file; give a folder")
        return folder
    source = Path(str(config.run)).expanduser()
    name, checkpoint = source_of(config)
    if not is_run(source):
        return Path("generated") / "_".join([name.replace("@", "-"), *parts])
    run = checkpoint_path(source, config.checkpoint).parent.parent
    # the last checkpoint is another one after more training
    stem = f"{checkpoint}_{gan.kimg:g}kimg"
    return run / "generated" / "_".join([stem, str(weights_of(config)), *parts])


def check_folder(folder: Path, settings: Mapping[str, Any], patterns: Sequence[str]) -> None:
    """Refuse a folder with pictures of other settings: nobody could tell them apart.

    Args:
        folder: need not be there.
        settings: that decide what a picture of a seed and class looks like.
        patterns: of names of files that are to be written.

    Raises:
        InputError: naming what differs.
    """
    path = folder / SETTINGS
    if not path.exists():
        there = next((f for pattern in patterns for f in sorted(folder.glob(pattern))), None)
        if there is not None:
            raise InputError(
                f"{there} is there already, and no {SETTINGS} beside it says how it was made; choose another out=, or "
                "delete it"
            )
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); choose another out=") from error
    differing = [
        f"{key}: {before.get(key)} there, {value} now"
        for key, value in settings.items()
        if before.get(key) != value
    ]
    if differing:
        raise InputError(
            f"{folder} holds images of other settings ({'; '.join(differing)}); choose another out="
        )


def keep_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings beside the pictures; the folder is made when it is not there."""
    write_json(folder / SETTINGS, settings)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        InputError: when it is not there.
    """
    try:
        with path.expanduser().open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
