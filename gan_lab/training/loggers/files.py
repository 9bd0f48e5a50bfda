"""Where figures and grids go. `metrics.jsonl` in the run folder is always written and is the source of truth."""

import csv
import json
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

METRICS_FILE = "metrics.jsonl"
# key of the entry of a run that ended there because it was hopeless beside the others of its sweep
PRUNED = "sweep/pruned"


class FileLogger(Logger):
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
        """Forget what was logged after `kimg`: training goes on from there."""

    def log_grid(self, name: str, image: Tensor, kimg: float) -> None:
        """Nothing to do: samples/ holds the grids."""


class JsonLines(FileLogger):
    """`metrics.jsonl`: one JSON object a line, with `kimg`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with (self.run_dir / METRICS_FILE).open("a") as file:
            file.write(json.dumps(metrics) + "\n")

    @rank_zero_only
    def rewind(self, kimg: float) -> None:
        path = self.run_dir / METRICS_FILE
        if path.exists():
            kept = [
                json.dumps(entry) + "\n" for entry in read_metrics(path) if entry["kimg"] <= kimg
            ]
            replacement = path.with_suffix(".tmp")
            replacement.write_text("".join(kept))
            os.replace(replacement, path)


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
        replacement = self.run_dir / "metrics.csv.tmp"
        with replacement.open("w", newline="") as file:
            table = csv.DictWriter(file, columns)
            table.writeheader()
            table.writerows(entries)
        os.replace(replacement, self.run_dir / "metrics.csv")


class TensorBoard(TensorBoardLogger):
    """TensorBoard files in the run folder; the step is kimg, rounded, and the scalar `kimg` has it exactly.

    Args:
        run_dir: the run folder.
    """

    def __init__(self, *, run_dir: str | Path) -> None:
        super().__init__(save_dir=run_dir, name="", version="tensorboard", default_hp_metric=False)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics(dict(metrics), round(metrics["kimg"]))

    def rewind(self, kimg: float) -> None:
        """Have TensorBoard drop what lies after `kimg`: a new file says from which step on."""
        if kimg > 0:
            self.experiment.close()
            self._experiment = None
            self._kwargs["purge_step"] = round(kimg) + 1

    @rank_zero_only
    def log_grid(self, name: str, image: Tensor, kimg: float) -> None:
        self.experiment.add_image(name, image, round(kimg))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read metrics.jsonl; a last line that a kill cut short is left out."""
    entries = []
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise
    return entries
