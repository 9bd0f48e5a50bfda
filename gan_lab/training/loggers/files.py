"""Loggers to files: `metrics.jsonl` (always written), CSV and TensorBoard."""

import csv
import io
import json
import math
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from gan_lab.config import flatten
from gan_lab.console import warn
from gan_lab.data.decoding import regular_file
from gan_lab.data.media import Sheet
from gan_lab.errors import InputError
from gan_lab.run import append_line, link, write
from gan_lab.training.loggers import METRICS_FILE, BestValues, RunLogger

# key of the entry of a run that ended there because Optuna pruned it
PRUNED = "sweep/pruned"

# the original, if damaged lines were removed
DAMAGED_FILE = "metrics.damaged.jsonl"

# in the entry of a stop by a signal: its number
STOPPED = "stopped/signal"


class FileLogger(RunLogger):
    """A logger that keeps one file in the run folder and knows no hyperparameters: config.yaml holds them.

    Args:
        run_dir: the run folder.
    """

    def __init__(self, *, run_dir: str | Path) -> None:
        super().__init__()
        self.run_dir = Path(run_dir)

    @property
    def name(self) -> str:
        return self.run_dir.name

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing to do: config.yaml holds them."""

    def rewind(self, kimg: float) -> None:
        """Remove what was logged after `kimg`: training resumes from there."""

    def log_sheet(self, name: str, sheet: Sheet, kimg: float) -> None:
        """Nothing to do: samples/ holds the grids."""

    def log_advice(self, advice: Sequence[str], kimg: float) -> None:
        """Nothing to do: advice follows from the entries."""


class JsonLogger(FileLogger):
    """`metrics.jsonl`: one JSON object a line, with `kimg`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        append_line(self.run_dir / METRICS_FILE, json.dumps(metrics))

    @rank_zero_only
    def rewind(self, kimg: float) -> None:
        path = self.run_dir / METRICS_FILE
        if path.exists():
            entries, damaged = intact_entries(path)
            if damaged:
                link(path, self.run_dir / DAMAGED_FILE)
                warn(f"{damage(path, damaged)}, and the original is kept as {DAMAGED_FILE}")
            # the entry of a stop has means of part of an interval; the next entry has those of all of it
            kept = [
                json.dumps(entry) + "\n"
                for entry in entries
                if entry["kimg"] <= kimg and STOPPED not in entry
            ]
            write(path, "".join(kept))


class Csv(FileLogger):
    """`metrics.csv`: metrics.jsonl as a table, rewritten at each evaluation and at the end."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if any(name.startswith("metrics/") for name in metrics):
            self.save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()

    @rank_zero_only
    def save(self) -> None:
        source = self.run_dir / METRICS_FILE
        entries = read_metrics(source) if source.exists() else []
        columns = list(dict.fromkeys(["kimg", *(name for entry in entries for name in entry)]))
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, columns)
        table.writeheader()
        table.writerows(entries)
        write(self.run_dir / "metrics.csv", text.getvalue())


class TensorBoard(TensorBoardLogger, RunLogger):
    """TensorBoard files in the run folder; the step is kimg, rounded, and the scalar `kimg` has it exactly.

    The configuration is a text; at the end it is also in the table of HPARAMS, with the best value of each metric.

    Args:
        run_dir: the run folder.
    """

    def __init__(self, *, run_dir: str | Path) -> None:
        super().__init__(save_dir=run_dir, name="", version="tensorboard", default_hp_metric=False)
        self._config: dict[str, Any] = {}
        self._best = BestValues()

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Keep the configuration for the table at the end, and log it as text."""
        self._config = dict(params if isinstance(params, dict) else vars(params))
        self.log_text("config", yaml.safe_dump(self._config, sort_keys=False), 0)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({**metrics, **self._best.update(metrics)}, round(metrics["kimg"]))

    @rank_zero_only
    def rewind(self, kimg: float) -> None:
        """Have TensorBoard drop what was logged after `kimg`: a new file names the step."""
        path = Path(self.log_dir).parent / METRICS_FILE
        self._best.restart(read_metrics(path) if path.exists() else [], kimg)
        if kimg > 0:
            self.experiment.close()
            self._experiment = None
            self._kwargs["purge_step"] = round(kimg) + 1

    @rank_zero_only
    def log_advice(self, advice: Sequence[str], kimg: float) -> None:
        self.log_text("advice", advice[-1], round(kimg))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the configuration with the best values as TensorBoard's hyperparameters."""
        if self._config and self._best.values:
            # as Lightning's log_hyperparams would, which logs the values once more at another step
            from torch.utils.tensorboard.summary import hparams

            settings = {
                key: value if isinstance(value, bool | int | float) else str(value)
                for key, value in flatten(self._config).items()
            }
            writer = self.experiment._get_file_writer()
            for summary in hparams(settings, self._best.values):
                writer.add_summary(summary)
        super().finalize(status)

    def log_text(self, name: str, text: str, step: int) -> None:
        """Log a text as a block of code, as it is."""
        self.experiment.add_text(name, indent(text, "    "), step)

    @rank_zero_only
    def log_sheet(self, name: str, sheet: Sheet, kimg: float) -> None:
        step, what = round(kimg), sheet.media_type.partition("/")[0]
        if what == "text":
            self.log_text(
                name, "\n".join(one.decode(errors="replace") for one in sheet.media), step
            )
            return
        self.experiment.add_image(name, sheet.image, step)
        if what == "audio":
            from tensorboard.compat.proto.summary_pb2 import Summary

            writer = self.experiment._get_file_writer()
            for number, clip in enumerate(sheet.media):
                # add_audio would encode it once more
                audio = Summary.Audio(encoded_audio_string=clip, content_type=sheet.media_type)
                value = Summary.Value(tag=f"{name}/{number}", audio=audio)
                writer.add_summary(Summary(value=[value]), step)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl; damaged lines are skipped with a warning."""
    entries, damaged = intact_entries(path)
    if damaged:
        warn(damage(path, damaged))
    return entries


def intact_entries(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Read metrics.jsonl; return its entries and the numbers of damaged lines.

    A line is damaged when it is not UTF-8, not JSON, or not an object with a finite `kimg`. A last line without a line
    end was cut short by a kill; it is skipped, but not damaged.

    Raises:
        InputError: when it cannot be read.
    """
    try:
        with regular_file(path) as file:
            lines = file.read().split(b"\n")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}; move it away"
        ) from error
    entries, damaged = [], []
    for number, line in enumerate(lines, start=1):
        entry = parse_entry(line)
        if entry is not None:
            entries.append(entry)
        elif number < len(lines):
            damaged.append(number)
    return entries, damaged


def parse_entry(line: bytes) -> dict[str, Any] | None:
    """Return the numbers of an entry of metrics.jsonl, by printable names, or None for a line that is not an entry."""
    try:
        entry = json.loads(line.decode("utf-8-sig"))  # some editors begin a file so
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    numbers = {name: v for name, v in entry.items() if name.isprintable() and _is_number(v)}
    return numbers if math.isfinite(numbers.get("kimg", math.nan)) else None


def _is_number(value: object) -> bool:
    """Whether a value of a JSON is a number that a float can hold, NaN and infinity among them."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return isinstance(value, float) or abs(value) <= sys.float_info.max


def damage(path: Path, lines: Sequence[int]) -> str:
    """Describe which lines of a file are damaged."""
    shown = ", ".join(map(str, lines[:5])) + (", ..." if len(lines) > 5 else "")
    return f"{path} is damaged in line {shown}: left out"
