"""Options and output folders shared by commands with a generator."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig

from gan_lab.config import read_json, take
from gan_lab.console import say
from gan_lab.errors import InputError
from gan_lab.run import check_writable, write_json
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.interpolation import Layers
from gan_lab.sampling.latents import Attributes, Labels, set_attributes
from gan_lab.sampling.sampler import image_transform
from gan_lab.sampling.writers import _LONGEST_TEXT, named_classes, slug
from gan_lab.seeding import check_seed
from gan_lab.training.checkpoint import checkpoint_path
from gan_lab.weights.loading import load


def open_gan(config: DictConfig) -> Gan:
    """Load a generator on its device, with the requested standing statistics.

    Args:
        config: with `run`, `checkpoint`, `weights`, `device`, `trust`, `seed` and `truncation`, and where a command
            has it, `standing_statistics`.

    Raises:
        InputError: for an unknown run, checkpoint or device, and for an invalid seed, count or truncation.
    """
    gan = load_gan(config)
    if config.get("standing_statistics") is not None:
        measure_statistics(gan, config)
    return gan


def load_gan(config: DictConfig) -> Gan:
    """Load a generator on its device.

    Args:
        config: that of `open_gan`, of which `seed`, `standing_statistics`, `truncation` and `ema` may be missing.

    Raises:
        InputError: as `open_gan`.
    """
    gan = load(
        config.run,
        checkpoint=config.checkpoint,
        weights=config.weights,
        ema=config.get("ema"),
        device=pick_device(config.device),
        trust=config.trust,
    )
    gan.check_truncation(config.get("truncation"))
    return gan


def check_sampling_options(config: DictConfig, gan: Gan) -> None:
    """Validate truncation, center, noise, translate and rotate for a generator, where a command has them.

    Raises:
        InputError: with the reason.
    """
    translate = config.get("translate")
    gan.check(
        truncation=config.get("truncation"),
        truncation_center=config.get("truncation_center", "mean"),
        noise=config.get("noise", "const"),
        translate=(0.0, 0.0) if translate is None else as_tuple(translate),
        rotate=config.get("rotate") or 0.0,
    )


def transform_of(config: DictConfig) -> torch.Tensor | None:
    """Return the transform of the image plane for `translate` and `rotate`."""
    return image_transform(as_tuple(config.translate or (0.0, 0.0)), config.rotate or 0.0)


def as_tuple(value: Any) -> Any:
    """Return a list of a configuration as a tuple, other values unchanged."""
    return tuple(value) if isinstance(value, ListConfig) else value


def measure_statistics(gan: Gan, config: DictConfig) -> None:
    """Measure standing statistics if configured.

    Raises:
        InputError: when the generator has no batch norm, or for an invalid number.
    """
    count = config.standing_statistics
    if count is None:
        return
    gan.measure_statistics(count, seed=config.seed, truncation=config.truncation)


def chosen_formats(formats: str | Sequence[str]) -> list[str]:
    """Return `format=`, a name or a list of them, as a list without repetitions."""
    return list(dict.fromkeys([formats] if isinstance(formats, str) else formats))


def pick_device(name: str) -> torch.device:
    """Return the device of a command by name; "auto" is the accelerator if there is one, else the CPU.

    All commands but `train` and `bench`, whose devices are Lightning's (`trainer=`), choose theirs here.

    Raises:
        InputError: for a missing device.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise InputError(
            f"device={name} cannot be used here ({reason}); use auto or cpu"
        ) from error


# Seeds and classes of the command line.


def parse_seeds(given: object, key: str = "seeds") -> list[int]:
    """Return seeds of a number, a range with its end such as 0-63, or a list of these.

    Args:
        given: 5, "0-63", "0,5,7-9" or [0, 5, "7-9"].
        key: its name, for messages.

    Raises:
        InputError: for anything else.
    """
    parts = list(given) if isinstance(given, list | tuple | ListConfig) else str(given).split(",")
    seeds: list[int] = []
    for part in parts:
        text = str(part).strip()
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
        if isinstance(part, bool) or found is None:
            raise InputError(
                f"{key}={given}: {text!r} is not a seed; give numbers and ranges, such as 5, 0-63 or [0,5,7-9]"
            )
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise InputError(f"{key}={given}: the range {text} ends before it begins")
        check_seed(last)
        seeds += range(first, last + 1)
    if not seeds:
        raise InputError(f"{key}={given}: give at least one seed")
    return seeds


def seeds_text(seeds: Sequence[int]) -> str:
    """Return seeds as part of a name, runs of them as ranges: 0-3+7."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    text = "+".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
    return text if len(text) <= _LONGEST_TEXT else f"{seeds[0]}to{seeds[-1]}of{len(seeds)}"


def parse_classes(given: object, gan: Gan, key: str = "classes") -> list[int] | None:
    """Return classes of a name, a number, a list of these, or "all"; None for None.

    If a text is the name of one class and the number of another, the name wins, with a message.

    Args:
        given: 3, "cat", [3, "cat"], "all" or None.
        gan: the generator, with the names of its classes.
        key: its name, for messages.

    Raises:
        InputError: for a model without classes, and for classes that do not exist.
    """
    if given is None:
        return None
    if gan.spec.attributes:
        raise InputError(f"{key}={given}: the model has attributes, no classes; leave {key}= out")
    if not gan.num_classes:
        raise InputError(f"{key}={given}: the model has no classes; leave {key}= out")
    if given == "all":
        return list(range(gan.num_classes))
    parts = list(given) if isinstance(given, list | tuple | ListConfig) else [given]
    if not parts:
        raise InputError(f"{key}={given}: give at least one class; {named_classes(gan)}")
    return [_class_of(part, gan, key) for part in parts]


def parse_labels(given: object, gan: Gan, key: str = "labels") -> list[Attributes] | None:
    """Return attributes by name of a mapping, a list of numbers, or a list of several of these; None for None.

    Args:
        given: {smile: 1} (others stay as in the drawn row of the data), [1, 0.3] (a number for each), a list of
            several such labels, or None.
        gan: the generator, with the names of its attributes.
        key: its name, for messages.

    Raises:
        InputError: for a model without attributes, unknown attributes, and values that are not numbers.
    """
    if given is None:
        return None
    names = gan.attributes
    if not names:
        what = "classes; set classes=" if gan.num_classes else "no labels; leave it out"
        raise InputError(f"{key}={given}: the model has {what}")
    several = isinstance(given, ListConfig) and any(
        isinstance(one, DictConfig | ListConfig) for one in given
    )
    found: list[Attributes] = []
    for one in given if several else [given]:  # type: ignore[attr-defined]
        if isinstance(one, DictConfig):
            found.append({str(name): value for name, value in one.items()})
            continue
        values = list(one) if isinstance(one, ListConfig) else [one]
        if len(values) != len(names):
            raise InputError(
                f"{key}={given}: {one} must be {len(names)} numbers, of {', '.join(names)}; or name some of them, such "
                f"as {{{names[0]}: 1}}"
            )
        found.append(dict(zip(names, values, strict=True)))
    set_attributes(torch.zeros(len(found), len(names)), found, names)
    return found


def labels_of(config: DictConfig, gan: Gan, prefix: str = "") -> Labels | None:
    """Return the labels that `classes=` or `labels=` give: one for all, or several; None where there are none.

    Args:
        config: of the command.
        gan: the generator.
        prefix: of both keys.

    Raises:
        InputError: for unknown classes and attributes.
    """
    classes = parse_classes(config[f"{prefix}classes"], gan, f"{prefix}classes")
    found: Sequence[Any] | None = classes
    if found is None:
        found = parse_labels(config[f"{prefix}labels"], gan, f"{prefix}labels")
    return found[0] if found is not None and len(found) == 1 else found


def labels_text(config: DictConfig) -> list[str]:
    """Return the part of the folder's name for `classes=` and `labels=`."""
    found = []
    classes, labels = config.classes, config.labels
    if classes is not None:
        names = [classes] if isinstance(classes, int | str) else list(classes)
        found.append("classes" + "-".join(map(str, names)))
    if labels is not None:
        found.append("labels" + slug(str(labels).replace("'", "").replace(": ", "")))
    return found


def parse_layers(given: object) -> Layers:
    """Return layers of a configuration as `pick_layers` takes them."""
    if isinstance(given, ListConfig):
        return [part if isinstance(part, int) else str(part) for part in given]
    return given if isinstance(given, int) else str(given)


def layers_text(layers: Layers) -> str:
    """Return layers as part of a name."""
    if isinstance(layers, str | int):
        return str(layers).replace(",", "+").replace(" ", "")
    return "+".join(map(str, layers)) or "none"


def check_image(gan: Gan, command: str) -> Gan:
    """Return a generator of images.

    Raises:
        InputError: for a generator of something else.
    """
    if not gan.spec.is_image:
        raise InputError(
            f"gan-lab {command} works with 8-bit images, and {gan.kind} makes {gan.spec.kind.name}; use gan-lab "
            "generate"
        )
    return gan


def _class_of(part: object, gan: Gan, key: str) -> int:
    found = [i for i, name in enumerate(gan.class_names) if name == str(part)]
    if isinstance(part, int) and not isinstance(part, bool) and not found:
        if not 0 <= part < gan.num_classes:
            raise InputError(f"{key}: class {part} is out of range; {named_classes(gan)}")
        return part
    if len(found) != 1:
        what = "is the name of several classes" if found else "is not a class"
        raise InputError(f"{key}: {str(part)!r} {what}; {named_classes(gan)}")
    if isinstance(part, int) and part != found[0] and 0 <= part < gan.num_classes:
        say(
            f"{key}={part}: the class named {part}, which is number {found[0]}, and not number {part}, which is named "
            f"{gan.class_names[part]}"
        )
    return found[0]


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
    """Return which weights of a run to use; None for an exported model without `weights=`."""
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
        parts: of its name: everything that changes its content.

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
    # "last" changes with more training
    stem = f"{checkpoint}_{gan.kimg:g}kimg"
    return run / "generated" / "_".join([stem, str(weights_of(config)), *parts])


def check_output(config: DictConfig, gan: Gan) -> None:
    """Check that results can be written, before they are computed; creates nothing.

    Raises:
        InputError: for a file, and for a folder that cannot be written, with the reason.
    """
    folder = output_folder(config, gan, []).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"out={folder}: {there} is a file; give a folder")
    check_writable(there / "results")


def check_folder(folder: Path, settings: Mapping[str, Any], patterns: Sequence[str]) -> None:
    """Check that the folder holds no images made with other options.

    Args:
        folder: need not be there.
        settings: that determine the image of a seed and class.
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
        before = take({"settings": read_json(path)}, "settings", dict[str, Any], origin=path)
    except InputError as error:
        raise InputError(f"{error}; choose another out=") from error
    differing = [
        f"{key}: {before.get(key)} there, {value} now"
        for key, value in settings.items()
        if before.get(key) != value
    ]
    if differing:
        raise InputError(
            f"{folder} holds images made with other options ({'; '.join(differing)}); choose another out="
        )


def keep_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings beside the images."""
    write_json(folder / SETTINGS, settings)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        InputError: when it does not exist.
    """
    try:
        with path.expanduser().open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
