"""`sweep.json`: the runs of a sweep and their results so far, also as a table."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from rich.table import Table
from rich.text import Text

from gan_lab.errors import InputError
from gan_lab.run import write_json

SWEEP_FILE, RECORD_LOCK = "sweep.json", ".sweep.json.lock"

Status = Literal["waiting", "running", "done", "pruned", "stopped", "failed", "killed"]
# what ended as it should; the rest is taken up again by the next call
FINAL: tuple[Status, ...] = ("done", "pruned")
# what somebody has to look at
WRONG: tuple[Status, ...] = ("failed", "killed")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a sweep.

    Attributes:
        run: name of its folder in the sweep's.
        overrides: what tells the run from the configuration's defaults, as on the command line.
        status: waiting, running, done, pruned (hopeless beside the others), stopped (by a signal, and saved), failed
            (`error` says why), or killed (its process ended without a word).
        objective: key of metrics.jsonl that runs are compared by, None where nothing is measured.
        mode: whether the smallest or the largest value of it is the best.
        value: the best of it.
        value_kimg: where that was.
        metrics: all that was measured there.
        kimg: thousands of images shown.
        total_kimg: how many were asked for.
        seconds: of training, over all calls.
        error: what a failed run said.
    """

    run: str
    overrides: Sequence[str]
    status: Status = "waiting"
    objective: str | None = None
    mode: Literal["min", "max"] | None = None
    value: float | None = None
    value_kimg: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    kimg: float | None = None
    total_kimg: float | None = None
    seconds: float | None = None
    error: str | None = None


class Record:
    """The file, which several processes write to: whole or not at all, and one after the other.

    Args:
        folder: of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / SWEEP_FILE
        self._lock = FileLock(folder / RECORD_LOCK)

    def jobs(self) -> dict[str, Job]:
        """Return what is known of each run, by the name of its folder.

        Raises:
            InputError: when the file is none of ours.
        """
        if not self.path.exists():
            return {}
        try:
            found = [Job(**entry) for entry in json.loads(self.path.read_text())["jobs"]]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{self.path} is not the record of a sweep ({error}); delete it, and the runs are looked at anew"
            ) from error
        return {job.run: job for job in found}

    def put(self, jobs: Iterable[Job]) -> None:
        """Add runs, or replace what was known of them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            self._write(self.jobs() | {job.run: job for job in jobs})

    def change(self, run: str, **changes: Any) -> Job:
        """Change what is known of one run, and return it."""
        with self._lock:
            known = self.jobs()
            known[run] = replace(known[run], **changes)
            self._write(known)
            return known[run]

    def _write(self, jobs: dict[str, Job]) -> None:
        chosen = best(jobs.values())
        content = {
            "sweep": self.folder.name,
            "objective": chosen.objective if chosen else None,
            "mode": chosen.mode if chosen else None,
            "best": chosen.run if chosen else None,
            "jobs": [asdict(job) for job in jobs.values()],
        }
        write_json(self.path, content, indent=1)


def best(jobs: Iterable[Job]) -> Job | None:
    """Return the run with the best value; None where none has one, or where they are of different metrics."""
    valued = [job for job in jobs if job.value is not None]
    if len({(job.objective, job.mode) for job in valued}) != 1:
        return None
    sign = -1.0 if valued[0].mode == "max" else 1.0
    return min(valued, key=lambda job: sign * (job.value or 0.0))


def table(jobs: Iterable[Job]) -> Table:
    """Return a table of runs, the best one first and marked, with a column for each key that tells them apart."""
    jobs = list(jobs)
    chosen = best(jobs)
    keys = varying(jobs)
    made = Table(title=None, box=None, pad_edge=False, header_style="bold")
    for name in (*short(keys), "status"):
        made.add_column(name)
    metric = chosen.objective if chosen and chosen.objective else "value"
    metric = metric.removeprefix("metrics/")
    for name in (metric, "at kimg", "kimg", "time"):
        made.add_column(name, justify="right")
    made.add_column("")
    for job in sorted(jobs, key=rank):
        settings = dict(word.partition("=")[::2] for word in job.overrides)
        first = job is chosen
        made.add_row(
            *(settings.get(key, "") for key in keys),
            Text(job.status, style="red" if job.status in WRONG else ""),
            number(job.value, 4),
            number(job.value_kimg),
            number(job.kimg),
            clock(job.seconds),
            "best" if first else "",
            style="green" if first else None,
        )
    return made


def varying(jobs: Iterable[Job]) -> list[str]:
    """Return the keys whose values differ between runs."""
    settings = [dict(word.partition("=")[::2] for word in job.overrides) for job in jobs]
    keys = dict.fromkeys(key for found in settings for key in found)
    return [key for key in keys if len({found.get(key) for found in settings}) > 1] or ["run"]


def short(keys: Sequence[str]) -> list[str]:
    """Return of each key the shortest end that no other has."""
    ends = []
    for key in keys:
        parts = key.split(".")
        tails = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        others = [f".{other}" for other in keys if other != key]
        ends.append(next((t for t in tails if not any(o.endswith(f".{t}") for o in others)), key))
    return ends


def rank(job: Job) -> tuple[bool, float]:
    """Return what sorts runs by their value, those without one at the end."""
    sign = -1.0 if job.mode == "max" else 1.0
    return (job.value is None, sign * (job.value or 0.0))


def number(value: float | None, digits: int = 6) -> str:
    """Return a number as it is written in a table."""
    return "" if value is None else f"{value:.{digits}g}"


def clock(seconds: float | None) -> str:
    """Return a duration as h:mm:ss or m:ss."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
