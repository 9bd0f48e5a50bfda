"""What a run folder tells; what is broken in it is named, and the rest kept."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from gan_lab.config import build, take
from gan_lab.errors import InputError
from gan_lab.metrics.directions import direction
from gan_lab.run import Holder, living_holder, read_results
from gan_lab.training.checkpoint import CONFIG_FILE, read_config
from gan_lab.training.loggers.files import METRICS_FILE, damage, whole_entries
from gan_lab.training.state_dicts import outline
from gan_lab.weights.exported import KINDS

Entry = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best value of a figure and when it was, in kimg."""

    value: float
    kimg: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A figure of evaluation.json.

    Attributes:
        protocol: by which it was measured.
        key: of the figure.
        value: of it; `uncertainty` as far as it is known.
        checkpoint: whose images were measured.
    """

    protocol: str
    key: str
    value: float
    uncertainty: float | None
    checkpoint: str


@dataclass(kw_only=True)
class Run:
    """A run as it is compared.

    Attributes:
        path: of its folder.
        name: among the runs that are compared.
        config: None where it cannot be read.
        entries: of metrics.jsonl, whole ones only.
        seconds: of training up to each entry.
        seconds_estimated: whether they were put together from the speed, as the log does not have them.
        parameters: of each player, None where the networks cannot be built.
        measured: figures of evaluation.json.
        holder: the process of this machine that trains it now.
        problems: what is broken, a sentence each.
    """

    path: Path
    name: str
    config: Mapping[str, Any] | None = None
    entries: list[Entry] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    seconds_estimated: bool = False
    parameters: dict[str, int] | None = None
    measured: list[Measured] = field(default_factory=list)
    holder: Holder | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def kimg(self) -> float:
        """How far it came, in thousands of real images."""
        return max((entry["kimg"] for entry in self.entries), default=0.0)

    @property
    def total_kimg(self) -> float | None:
        """How far it was to go."""
        total = None if self.config is None else self.config.get("total_kimg")
        return float(total) if isinstance(total, int | float) else None

    @property
    def finished(self) -> bool:
        """Whether it came as far as it was to go."""
        return self.total_kimg is not None and self.kimg >= self.total_kimg

    @property
    def total_seconds(self) -> float | None:
        """Seconds of training in all."""
        return self.seconds[-1] if self.seconds and self.seconds[-1] > 0 else None

    @property
    def devices(self) -> int | None:
        """How many devices it ran on, None where the configuration leaves that to the machine."""
        trainer = None if self.config is None else self.config.get("trainer")
        if not isinstance(trainer, Mapping):
            return None
        devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
        if isinstance(devices, list):
            devices = len(devices)
        known = isinstance(devices, int) and devices > 0 and isinstance(nodes, int)
        return devices * nodes if known else None

    def best(self, key: str) -> Best | None:
        """Return the best value of a figure, None where it was never measured, or nothing is the best."""
        found = [
            Best(value=entry[key], kimg=entry["kimg"])
            for entry in self.entries
            if math.isfinite(entry.get(key, math.nan))
        ]
        sense = direction(key)
        if not found or sense is None:
            return None
        choose = min if sense == "min" else max
        return choose(found, key=lambda one: one.value)


def read_run(path: Path, name: str, *, trust: Sequence[str] = ()) -> Run:
    """Read all that a run folder holds but its checkpoints.

    Args:
        path: of the folder.
        name: of the run among others.
        trust: packages besides gan_lab whose networks may be built to count parameters.
    """
    run = Run(path=path, name=name, holder=living_holder(path))
    try:
        run.config = read_config(path)
    except InputError as error:
        run.problems.append(one_line(error))
    metrics = path / METRICS_FILE
    if metrics.exists():
        entries, damaged = whole_entries(metrics)
        run.entries = [{k: v for k, v in entry.items() if is_number(v)} for entry in entries]
        run.problems += [damage(metrics, damaged)] if damaged else []
    else:
        run.problems.append(f"{metrics} does not exist, so there are no curves")
    run.seconds, run.seconds_estimated = seconds_of(run.entries)
    if run.config is not None:
        try:
            run.parameters = count_parameters(run.config, path, trust=trust)
        except (
            Exception
        ) as error:  # whatever a configuration of another version or by hand leads to
            run.problems.append(f"the networks of {path} cannot be built: {one_line(error)}")
    try:
        run.measured = list(measured_figures(read_results(path / "evaluation.json")))
    except (InputError, KeyError, TypeError, AttributeError) as error:
        run.problems.append(f"{path / 'evaluation.json'} cannot be used: {one_line(error)}")
    return run


def is_number(value: object) -> bool:
    """Whether a JSON value can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def seconds_of(entries: Sequence[Entry]) -> tuple[list[float], bool]:
    """Return the seconds of training up to each entry, and whether that is an estimate.

    Logs have them as `time/total_s`. Those of earlier versions have the speed of the steps since the entry before, and
    the length of evaluations; what saving and grids took is not known of them.
    """
    if all("time/total_s" in entry for entry in entries):
        return [entry["time/total_s"] for entry in entries], False
    seconds, kimg = 0.0, 0.0
    found = []
    for entry in entries:
        speed = entry.get("speed/img_per_s", 0.0)
        if speed > 0:
            seconds += (entry["kimg"] - kimg) * 1000 / speed
            kimg = entry["kimg"]
        seconds += entry.get("time/evaluation_s", 0.0)
        found.append(seconds)
    return found, True


def count_parameters(
    config: Mapping[str, Any], path: Path, *, trust: Sequence[str]
) -> dict[str, int]:
    """Build both networks without memory for their weights, and count these."""
    file, counts = path / CONFIG_FILE, {}
    for name, base in KINDS.items():
        node = take(config, f"model.{name}", dict[str, Any], origin=file)
        network = outline(partial(build, node, base, origin=file, trust=trust))
        counts[name] = sum(p.numel() for p in network.parameters())
    return counts


def measured_figures(results: Sequence[Mapping[str, Any]]) -> Iterator[Measured]:
    """Yield the figures of the results of `gan-lab evaluate`, this version's and the first one's."""
    for result in results:
        figures, fake = result["figures"], result.get("fake", result)
        if isinstance(figures, Mapping):
            figures = [{"key": key, "value": value} for key, value in figures.items()]
        protocol = result.get("protocol")
        for figure in figures:
            yield Measured(
                protocol=protocol if isinstance(protocol, str) else "",
                key=str(figure["key"]),
                value=float(figure["value"]),
                uncertainty=figure.get("uncertainty"),
                checkpoint=describe_images(fake),
            )


def describe_images(fake: Mapping[str, Any]) -> str:
    """Say whose images were measured, as far as the result tells."""
    name = Path(str(fake.get("checkpoint") or "")).stem
    kimg = f"{fake['kimg']:g} kimg" if is_number(fake.get("kimg")) else ""
    return " at ".join(part for part in (name, kimg) if part)


def one_line(error: BaseException) -> str:
    """Return an error's message in one line, with its type where the message alone does not tell."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else f"{text[:300]}..."
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
