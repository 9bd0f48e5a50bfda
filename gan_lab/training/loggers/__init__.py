"""Loggers of a run, one file each: their base classes, and what those to a service share."""

import math
from abc import abstractmethod
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from lightning import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from gan_lab.console import warn
from gan_lab.data.media import Sheet
from gan_lab.errors import first_line
from gan_lab.metrics.base import direction

METRICS_FILE = "metrics.jsonl"

Session = TypeVar("Session")


class RunLogger(Logger):
    """A logger of a run: besides metrics and the configuration it gets samples and advice.

    Entries of `log_metrics` have `kimg`, which is the clock of everything.
    """

    @abstractmethod
    def rewind(self, kimg: float) -> None:
        """Remove what was logged after `kimg`, where possible: training resumes from there."""

    @abstractmethod
    def log_sheet(self, name: str, sheet: Sheet, kimg: float) -> None:
        """Log a grid of samples, and single ones that are sounds or texts."""

    @abstractmethod
    def log_advice(self, advice: Sequence[str], kimg: float) -> None:
        """Log all advice so far; the last one is new."""


def run_loggers(trainer: Trainer) -> list[RunLogger]:
    """Return the `RunLogger`s of a trainer."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger)]


class Service(RunLogger, Generic[Session]):
    """A logger to a service that may fail: then there is one warning, and training goes on without it.

    Attributes:
        title: name of the service in messages.

    Args:
        run_dir: the run folder.
    """

    title: str

    def __init__(self, *, run_dir: str | Path) -> None:
        super().__init__()
        self.run_dir = Path(run_dir)
        self.config: dict[str, Any] = {}
        self.session: Session | None = None
        self._over = False

    @property
    def name(self) -> str:
        return self.run_dir.name

    @property
    def save_dir(self) -> str:
        return str(self.run_dir)

    @abstractmethod
    def begin(self) -> Session:
        """Start or resume the run at the service."""

    @abstractmethod
    def started(self, session: Session) -> None:
        """Log the configuration."""

    def send_later(self) -> str:
        """Return how to send the missing entries later, as the end of a sentence; empty where that is not possible."""
        return ""

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Begin the run with the configuration."""
        self.config = dict(params if isinstance(params, dict) else vars(params))
        self.attempt(self.started)

    def attempt(self, act: Callable[[Session], None]) -> None:
        """Call the service, unless it has failed before."""
        if self._over:
            return
        try:
            if self.session is None:
                self.session = self.begin()
            act(self.session)
        except Exception as error:  # any kind: a failing service must not end training
            self.fail(error, "failed, and training goes on without it")

    def fail(self, error: Exception, what: str) -> None:
        """Warn about a failure, once, and stop logging."""
        if not self._over:
            warn(
                f"{self.title} {what} ({type(error).__name__}: {first_line(error)}). "
                f"{self.run_dir / METRICS_FILE} has everything{self.send_later()}"
            )
        self._over = True

    def end(self, finish: Callable[[Session], None]) -> None:
        """End the run, so that a next one in this process is not written into it."""
        if self.session is None:
            return
        # a failure before left the run open, and ending it sends what can still be sent
        try:
            finish(self.session)
        except Exception as error:
            self.fail(error, "did not get all of this session")
        self.session, self._over = None, True


class BestValues:
    """The best value so far of each metric of `metrics/`, as `best/<metric>` and `best/<metric>_kimg`.

    Attributes:
        values: by these names.
    """

    def __init__(self) -> None:
        self.values: dict[str, float] = {}

    def update(self, entry: Mapping[str, float]) -> dict[str, float]:
        """Return the best values that an entry of metrics.jsonl changes."""
        changed: dict[str, float] = {}
        for key, value in entry.items():
            sense = direction(key) if key.startswith("metrics/") else None
            if sense is None or not math.isfinite(value):
                continue
            name = f"best/{key.removeprefix('metrics/')}"
            sign = 1 if sense == "min" else -1
            if name not in self.values or sign * value < sign * self.values[name]:
                changed |= {name: value, f"{name}_kimg": entry["kimg"]}
        self.values |= changed
        return changed

    def restart(self, entries: Sequence[Mapping[str, float]], kimg: float) -> None:
        """Start again from the entries up to `kimg`, from which a run resumes."""
        self.values = {}
        for entry in entries:
            if entry["kimg"] <= kimg:
                self.update(entry)


def node_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of a run's model (its module), data and loss (their classes)."""
    names = {}
    for group in ("model", "data", "loss"):
        node = config.get(group)
        target = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
        module, _, name = target.rpartition(".")
        if name:
            names[group] = module.rpartition(".")[2] if group == "model" else name.lower()
    return names
