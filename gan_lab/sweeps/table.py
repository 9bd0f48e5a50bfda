"""What came out of a sweep, as a table."""

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from gan_lab.sweeps.record import WRONG, Job, best


def table(jobs: Iterable[Job]) -> Table:
    """Return a table of runs, the best one first and marked, with a column for each key that tells them apart."""
    jobs = list(jobs)
    chosen = best(jobs)
    keys = varying(jobs)
    made = Table(title=None, box=None, pad_edge=False, header_style="bold")
    for name in (*short(keys), "status"):
        made.add_column(name)
    figure = chosen.objective if chosen and chosen.objective else "value"
    figure = figure.removeprefix("metrics/")
    for name in (figure, "at kimg", "kimg", "time"):
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
