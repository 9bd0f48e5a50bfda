"""gan-lab compare: runs side by side on one self-contained HTML page."""

from pathlib import Path

from omegaconf import DictConfig

from gan_lab.commands.options import pick_device
from gan_lab.compare.page import page
from gan_lab.compare.runs import Run, columns_for, draw, find_runs, read_run, short_names
from gan_lab.console import progress_bar, say, warn
from gan_lab.errors import InputError
from gan_lab.run import check_writable, write

_MOST_LINES = 8


def run(config: DictConfig) -> None:
    """Read the runs, draw from each, and write the page.

    Raises:
        InputError: when there is no run, or for invalid options; broken runs are reported and skipped.
    """
    device = pick_device(config.device)
    out = page_path(config.out)
    check_writable(out)
    given = [config.runs] if isinstance(config.runs, str) else list(config.runs or [])
    paths, wrong = find_runs(given)
    runs = [
        read_run(path, name, trust=config.trust)
        for path, name in zip(paths, short_names(paths), strict=True)
    ]
    wrong += [f"{run.path}: nothing can be read of it" for run in runs if is_empty(run)]
    runs = [run for run in runs if not is_empty(run)]
    warn_of_problems([*wrong, *(text for run in runs for text in run.problems)])
    for run in runs:
        for one in run.advice:
            say(f"{run.name} {one}")
    if not runs:
        raise InputError("none of the named runs can be read")
    columns = config.columns or columns_for(runs)
    grids = []
    with progress_bar("drawing", len(runs)) as advance:
        for run in runs:
            grid = draw(
                run,
                columns=columns,
                seed=config.seed,
                checkpoint=config.checkpoint,
                weights=config.weights,
                device=device,
                trust=config.trust,
            )
            grids.append(grid)
            advance(len(grids))
    pairs = zip(runs, grids, strict=True)
    warn_of_problems([f"{one.name}: {grid.origin}" for one, grid in pairs if not grid.same])
    write(out, page(runs, grids, wrong, seed=config.seed))
    say(
        f"wrote {out} ({len(runs)} {'run' if len(runs) == 1 else 'runs'}, {out.stat().st_size / 1e6:.1f} MB)"
    )


def warn_of_problems(texts: list[str]) -> None:
    """Warn about the first problems; the page lists all."""
    for text in texts[:_MOST_LINES]:
        warn(text)
    if len(texts) > _MOST_LINES:
        warn(f"and {len(texts) - _MOST_LINES} more, listed on the page")


def is_empty(run: Run) -> bool:
    """Whether a run has nothing to compare."""
    return run.config is None and not run.entries


def page_path(out: str | None) -> Path:
    """Return the path of the page: a file, or `compare.html` in a folder.

    Raises:
        InputError: for a file of another kind.
    """
    path = Path(out or "compare.html")
    if path.is_dir() or not path.suffix:
        return path / "compare.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"out={out} must be a page, such as compare.html, or a folder")
    return path
