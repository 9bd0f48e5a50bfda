"""Runs to compare: find and name them, read their files (reporting broken ones), and draw their sample grids."""

import base64
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from os.path import commonpath
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from gan_lab.config import Count, build, take
from gan_lab.data.decoding import DECODE_ERRORS, open_image, regular_file
from gan_lab.data.media import fragment, sheet
from gan_lab.data.sample import to_pil
from gan_lab.errors import InputError
from gan_lab.metrics.base import direction
from gan_lab.run import Holder, living_holder, read_results
from gan_lab.training.advice import advice
from gan_lab.training.checkpoint import CONFIG_FILE, checkpoint_path, read_config
from gan_lab.training.loggers import METRICS_FILE
from gan_lab.training.loggers.files import damage, intact_entries
from gan_lab.training.schedules import is_number
from gan_lab.training.state_dicts import outline
from gan_lab.weights.exported import NETWORKS
from gan_lab.weights.loading import load

Entry = dict[str, float]
_MAX_DEPTH = 4  # runs_dir/sweep/run, and one more level
# config groups before a key in a run's name
_GROUPS = re.compile(
    r"(?:(?<=_)|^)(?:model|data|loss|regularizer|augment|conditioning|callbacks|metrics|trainer|logger)"
    r"\.(?:\w+\.)*(?=\w+-)"
)


class Best(NamedTuple):
    """The best value of a metric, and its kimg."""

    value: float
    kimg: float


class Measured(NamedTuple):
    """A metric of evaluation.json: its protocol, key, value, uncertainty if known, and the checkpoint measured."""

    protocol: str
    key: str
    value: float
    uncertainty: float | None
    checkpoint: str


@dataclass(kw_only=True)
class Run:
    """A run to compare.

    Attributes:
        path: run folder.
        name: short name, unique among the runs compared.
        config: None if it cannot be read.
        entries: lines of metrics.jsonl, intact ones only.
        parameters: number of parameters of each player; None if the networks cannot be built.
        measured: metrics of evaluation.json.
        holder: the process on this machine that is training it.
        problems: a sentence for each file that could not be read.
    """

    path: Path
    name: str
    config: Mapping[str, Any] | None = None
    entries: list[Entry] = field(default_factory=list)
    parameters: dict[str, int] | None = None
    measured: list[Measured] = field(default_factory=list)
    holder: Holder | None = None
    problems: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)

    @property
    def kimg(self) -> float:
        """Thousands of real images shown so far."""
        return max((entry["kimg"] for entry in self.entries), default=0.0)

    @property
    def total_kimg(self) -> float | None:
        """Length of the training as configured."""
        total = None if self.config is None else self.config.get("total_kimg")
        return float(total) if isinstance(total, int | float) else None

    @property
    def finished(self) -> bool:
        """Whether training reached `total_kimg`."""
        return self.total_kimg is not None and self.kimg >= self.total_kimg

    @property
    def seconds(self) -> float | None:
        """Seconds of training so far."""
        return max((entry.get("time/total_s", 0.0) for entry in self.entries), default=0.0) or None

    @property
    def devices(self) -> int | None:
        """Number of devices; None if the config says auto."""
        trainer = None if self.config is None else self.config.get("trainer")
        if not isinstance(trainer, Mapping):
            return None
        devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
        if isinstance(devices, list):
            devices = len(devices)
        known = isinstance(devices, int) and devices > 0 and isinstance(nodes, int)
        return devices * nodes if known else None

    def best(self, key: str) -> Best | None:
        """Return the best value of a metric; None if it was not measured, or has no better direction."""
        found = [
            Best(value=entry[key], kimg=entry["kimg"])
            for entry in self.entries
            if math.isfinite(entry.get(key, math.nan))
        ]
        better = direction(key)
        if not found or better is None:
            return None
        return (min if better == "min" else max)(found, key=lambda one: one.value)


def find_runs(given: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """Find run folders among and below the given paths, with a sentence for each wrong path.

    Args:
        given: run folders, folders of runs (up to four levels), checkpoints; other files, which `runs/*` may match,
            are skipped.

    Raises:
        InputError: when there is no run at all.
    """
    if not given:
        raise InputError("name runs or folders of runs: gan-lab compare runs/*")
    found: dict[Path, Path] = {}
    wrong = []
    for path in map(Path, given):
        here = list(runs_in(path))
        for run in here:
            found.setdefault(run.resolve(), run)
        if not path.exists():
            wrong.append(f"{path} does not exist")
        elif path.is_dir() and not here:
            wrong.append(f"{path} is not a run and holds none (a run has a {CONFIG_FILE})")
    if not found:
        paths = ", ".join(map(str, given)) if len(given) < 5 else f"{len(given)} paths"
        raise InputError(
            f"no runs among {paths}; " + ("; ".join(wrong[:3]) or "give runs/<name>, or runs/*")
        )
    return list(found.values()), wrong


def runs_in(path: Path, depth: int = _MAX_DEPTH) -> Iterator[Path]:
    """Yield a run folder itself, or the run folders below a folder by name."""
    if (path / CONFIG_FILE).is_file() or (path / METRICS_FILE).is_file():
        yield path
    elif path.suffix == ".ckpt" and path.is_file():
        yield path.parent.parent
    elif path.is_dir() and depth:
        for below in sorted(path.iterdir()):
            if below.is_dir() and not below.name.startswith("."):
                yield from runs_in(below, depth - 1)


def short_names(runs: Sequence[Path]) -> list[str]:
    """Give each run the shortest unique name.

    It is the folder's name, without config groups ("lr-0.001" for "model.generator_optimizer.lr-0.001") if names stay
    unique; or the path below the common folder, if folders have the same name.
    """
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        top = commonpath([run.resolve().parent for run in runs])
        return [run.resolve().relative_to(top).as_posix() for run in runs]
    bare = [_GROUPS.sub("", name) for name in names]
    keys = [re.findall(r"(?:^|_)([a-z]\w*?)-", name) for name in bare]
    # the same key twice in a name would be ambiguous
    ambiguous = any(len(set(own)) < len(own) for own in keys) or len(set(bare)) < len(bare)
    return names if ambiguous else bare


def read_run(path: Path, name: str, *, trust: Sequence[str] = ()) -> Run:
    """Read everything in a run folder except its checkpoints.

    Args:
        path: run folder.
        name: name among the runs compared.
        trust: packages besides gan_lab whose networks may be built to count parameters.
    """
    run = Run(path=path, name=name, holder=living_holder(path))
    try:
        run.config = read_config(path)
    except InputError as error:
        run.problems.append(one_line(error))
    metrics = path / METRICS_FILE
    if metrics.exists():
        try:
            entries, damaged = intact_entries(metrics)
        except InputError as error:
            entries, damaged = [], []
            run.problems.append(one_line(error))
        run.entries = entries
        run.problems += [damage(metrics, damaged)] if damaged else []
        run.advice = [str(one) for one in advice(run.entries)]
    else:
        run.problems.append(f"{metrics} does not exist, so there are no curves")
    if run.config is not None:
        try:
            run.parameters = count_parameters(run.config, path, trust=trust)
        except Exception as error:  # building whatever a broken config names may raise anything
            run.problems.append(f"the networks of {path} cannot be built: {one_line(error)}")
    try:
        run.measured = list(measured_metrics(read_results(path / "evaluation.json")))
    except (InputError, KeyError, TypeError, AttributeError) as error:
        run.problems.append(f"{path / 'evaluation.json'} cannot be used: {one_line(error)}")
    return run


def count_parameters(
    config: Mapping[str, Any], path: Path, *, trust: Sequence[str]
) -> dict[str, int]:
    """Build both networks without memory for their weights, and count their parameters."""
    file, counts = path / CONFIG_FILE, {}
    for name, base in NETWORKS.items():
        node = take(config, f"model.{name}", dict[str, Any], origin=file)
        network = outline(partial(build, node, base, origin=file, trust=trust))
        counts[name] = sum(p.numel() for p in network.parameters())
    return counts


def measured_metrics(results: Sequence[Mapping[str, Any]]) -> Iterator[Measured]:
    """Yield the metrics in the results of `gan-lab evaluate`."""
    for result in results:
        for one in result["metrics"]:
            value, uncertainty = float(one["value"]), one.get("uncertainty")
            checkpoint = describe_checkpoint(result["fake"])
            yield Measured(result["protocol"], str(one["key"]), value, uncertainty, checkpoint)


def describe_checkpoint(fake: Mapping[str, Any]) -> str:
    """Describe the checkpoint of a result, such as "best at 40 kimg"."""
    name = Path(str(fake.get("checkpoint") or "")).stem
    kimg = f"{fake['kimg']:g} kimg" if is_number(fake.get("kimg")) else ""
    return " at ".join(part for part in (name, kimg) if part)


def one_line(error: BaseException) -> str:
    """Return an error's message in one line, with its type if the message is not enough."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else f"{text[:300]}..."
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


# Sample grids: samples of each run from the same latents.


_MAX_SIDE = 640  # largest side of a grid, pixels
_MIN_SIDE = 360  # smaller grids are enlarged by an integer factor, which keeps pixels sharp
_MAX_PNG = 60_000  # larger files become WebP, bytes
_WEBP_QUALITY = 88
# pixels of an image -> columns; a CPU draws a few large images a second at most
_COLUMNS = ((64, 10), (256, 6), (1 << 30, 4))


@dataclass(frozen=True, kw_only=True)
class SampleGrid:
    """The sample grid of a run.

    Attributes:
        image: None if there is none.
        clips: HTML that plays or shows samples that are not images.
        origin: the checkpoint it is from, or why there is none.
        same: whether it is from the shared latents of this comparison.
        z_dim: of the generator; latents of a seed are the same only for the same z_dim.
    """

    image: Image.Image | None = None
    clips: tuple[str, ...] = ()
    origin: str
    same: bool = False
    z_dim: int | None = None


def columns_for(runs: Sequence[Run]) -> int:
    """Return the number of columns of all grids, by the largest image among them."""
    largest = max((max(preview_size(run)) for run in runs), default=0)
    return next(columns for limit, columns in _COLUMNS if largest <= limit)


def preview_size(run: Run) -> tuple[int, int]:
    """Return the size of a run's images; (0, 0) if its config lacks it."""
    try:
        shape = take(run.config, "sample.shape", list[Count], origin=run.path)
    except InputError:
        return 0, 0
    return (shape[1], shape[2]) if len(shape) == 3 else (0, 0)


def draw(
    run: Run,
    *,
    columns: int,
    seed: int,
    checkpoint: str | None,
    weights: str,
    device: torch.device,
    trust: Sequence[str],
) -> SampleGrid:
    """Draw a square grid from a run's checkpoint, with a row per class.

    If that fails, the last grid of training is used, and `origin` has the reason.
    """
    if run.config is None:
        return last_of_training(run, why="it has no configuration that can be read")
    if not any((run.path / "checkpoints").glob("*.ckpt")):
        return last_of_training(run, why="it has no checkpoint")
    try:
        gan = load(run.path, checkpoint=checkpoint, weights=weights, device=device, trust=trust)
        rows, labels = columns, None
        if gan.num_classes and not gan.spec.attributes:
            rows = min(columns, gan.num_classes)
            labels = torch.arange(rows).repeat_interleave(columns)
        stored = gan.spec.decode(gan.sample(rows * columns, labels=labels, seed=seed))
        drawn = sheet(gan.spec.kind, stored.cpu(), columns)
        clips = tuple(
            fragment(one, drawn.media_type, name=f"{run.name}, {number}")
            for number, one in enumerate(drawn.media)
        )
        is_text = drawn.media_type.startswith("text/")
    except Exception as error:  # an error in one run does not stop the comparison
        return last_of_training(run, why=one_line(error))
    return SampleGrid(
        image=None if is_text else shrunk(to_pil(drawn.image)),
        clips=clips,
        origin=f"{checkpoint_path(run.path, checkpoint).stem} checkpoint, {gan.kimg:g} kimg",
        same=True,
        z_dim=gan.generator.z_dim,
    )


def last_of_training(run: Run, *, why: str) -> SampleGrid:
    """Return the last grid that training saved."""
    grids = sorted((run.path / "samples").glob("kimg*.png"))
    if not grids:
        return SampleGrid(origin=why)
    try:
        with regular_file(grids[-1]) as file, open_image(file) as opened:
            image = shrunk(opened.convert("RGB"))
    except DECODE_ERRORS as error:
        return SampleGrid(origin=f"{why}, and of its last grid: {one_line(error)}")
    kimg = float(Path(grids[-1]).stem.removeprefix("kimg"))
    origin = f"last grid of training, {kimg:g} kimg, at other latents: {why}"
    return SampleGrid(image=image, origin=origin)


def shrunk(image: Image.Image) -> Image.Image:
    """Shrink an image to at most `_MAX_SIDE` in width and height."""
    image.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
    return image


def enlarged(image: Image.Image) -> Image.Image:
    """Enlarge an image by repeating pixels to at least `_MIN_SIDE` in width or height."""
    factor = -(-_MIN_SIDE // max(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def data_uri(image: Image.Image) -> str:
    """Encode an image as a data URI: PNG if that is small, else WebP."""
    data, kind = encoded(image, "PNG"), "png"
    if len(data) > _MAX_PNG:
        data, kind = encoded(image, "WEBP"), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def encoded(image: Image.Image, kind: str) -> bytes:
    """Encode an image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, quality=_WEBP_QUALITY, optimize=True)
    return file.getvalue()
