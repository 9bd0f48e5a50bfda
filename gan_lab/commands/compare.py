"""gan-lab compare: runs side by side, as one page that needs nothing but itself, and as a picture."""

from pathlib import Path

from omegaconf import DictConfig
from rich.progress import track

from gan_lab.commands.options import pick_device
from gan_lab.comparing.finding import find_runs, short_names
from gan_lab.comparing.overview import check_matplotlib, has_matplotlib, save_overview
from gan_lab.comparing.page import page
from gan_lab.comparing.pictures import columns_for, draw
from gan_lab.comparing.reading import Run, read_run
from gan_lab.console import console, say, warn
from gan_lab.errors import InputError
from gan_lab.run import check_writable, write
from gan_lab.seeding import check_seed

_MOST_LINES = 8


def run(config: DictConfig) -> None:
    """Read the runs, draw from each, and write the page and the picture.

    Raises:
        InputError: when there is no run, or a key that means nothing; a broken run is named and the others compared.
    """
    check_seed(config.seed)
    device = pick_device(config.device)
    if config.png:
        check_matplotlib()
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
    complain([*wrong, *(text for run in runs for text in run.problems)])
    if not runs:
        raise InputError("of no run that was named can anything be read")
    columns = check_columns(config.columns) or columns_for(runs)
    pictures = [
        draw(
            run,
            columns=columns,
            seed=config.seed,
            checkpoint=config.checkpoint,
            weights=config.weights,
            device=device,
            trust=config.trust,
        )
        for run in track(runs, description="drawing", console=console, transient=True)
    ]
    named = zip(runs, pictures, strict=True)
    complain([f"{one.name}: {picture.origin}" for one, picture in named if not picture.same])
    write(out, page(runs, pictures, wrong, seed=config.seed))
    say(
        f"wrote {out} ({len(runs)} {'run' if len(runs) == 1 else 'runs'}, {out.stat().st_size / 1e6:.1f} MB)"
    )
    if config.png is None and not has_matplotlib():
        say("no PNG without matplotlib: pip install 'gan_lab[plots]'")
    elif config.png is not False:
        save_overview(runs, pictures, out.with_suffix(".png"))
        say(f"wrote {out.with_suffix('.png')}")


def complain(texts: list[str]) -> None:
    """Say what is wrong, in a few lines: the page has them all."""
    for text in texts[:_MOST_LINES]:
        warn(text)
    if len(texts) > _MOST_LINES:
        warn(f"and {len(texts) - _MOST_LINES} more such, which the page names")


def is_empty(run: Run) -> bool:
    """Whether there is nothing to compare of a run."""
    return run.config is None and not run.entries


def page_path(out: str | None) -> Path:
    """Return where the page goes: a file, or `compare.html` in a folder.

    Raises:
        InputError: for a file of another kind.
    """
    path = Path(out or "compare.html")
    if path.is_dir() or not path.suffix:
        return path / "compare.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"out={out} must be a page, such as compare.html, or a folder")
    return path


def check_columns(columns: int | None) -> int | None:
    """Refuse a number of columns that is none.

    Raises:
        InputError: with the range.
    """
    if columns is not None and (not isinstance(columns, int) or not 1 <= columns <= 32):
        raise InputError(f"columns={columns} must be a number from 1 to 32, or null")
    return columns
