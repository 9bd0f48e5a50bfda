"""Run folders among what was named on the command line."""

import re
from collections.abc import Iterator, Sequence
from os.path import commonpath
from pathlib import Path

from gan_lab.errors import InputError
from gan_lab.training.checkpoint import CONFIG_FILE
from gan_lab.training.loggers.files import METRICS_FILE

# runs_dir/sweep/run, with a folder to spare
_DEEPEST = 4
# what stands before a key in a name that training made of overrides
_GROUPS = re.compile(
    r"(?:(?<=_)|^)(?:model|data|loss|regularizer|augment|conditioning|callbacks|metrics|trainer|logger)"
    r"\.(?:\w+\.)*(?=\w+-)"
)


def find_runs(given: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """Return the run folders that are named, or lie in folders that are named, and what is none of them.

    Args:
        given: run folders, folders of runs at any depth up to four, checkpoints; other files, as `runs/*` gives them
            beside the runs, are passed over.

    Returns:
        Folders, each once, in the order given and by name within a folder; and a sentence for each wrong one.

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
            wrong.append(f"{path} is no run and holds none (a run has a {CONFIG_FILE})")
    if not found:
        named = ", ".join(map(str, given)) if len(given) < 5 else f"{len(given)} paths"
        raise InputError(
            f"no runs among {named}; " + ("; ".join(wrong[:3]) or "give runs/<name>, or runs/*")
        )
    return list(found.values()), wrong


def runs_in(path: Path, depth: int = _DEEPEST) -> Iterator[Path]:
    """Yield a run folder itself, or the run folders below a folder by name."""
    if is_run(path):
        yield path
    elif path.suffix == ".ckpt" and path.is_file():
        yield path.parent.parent
    elif path.is_dir() and depth:
        for below in sorted(path.iterdir()):
            if below.is_dir() and not below.name.startswith("."):
                yield from runs_in(below, depth - 1)


def is_run(path: Path) -> bool:
    """Whether a folder is one that training wrote."""
    return (path / CONFIG_FILE).is_file() or (path / METRICS_FILE).is_file()


def short_names(runs: Sequence[Path]) -> list[str]:
    """Name each run as shortly as it can be told from the others.

    By its folder, in which keys are without their groups ("lr-0.001" for "model.generator_optimizer.lr-0.001") where
    nothing gets the same name by that; by the path below the common folder where folders have the same name.
    """
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        top = commonpath([run.resolve().parent for run in runs])
        return [run.resolve().relative_to(top).as_posix() for run in runs]
    bare = [_GROUPS.sub("", name) for name in names]
    if any(same_key_twice(name) for name in bare) or len(set(bare)) < len(bare):
        return names
    return bare


def same_key_twice(name: str) -> bool:
    """Whether two settings in a run's name have one key, so that nobody knows which is which."""
    keys = re.findall(r"(?:^|_)([a-z]\w*?)-", name)
    return len(set(keys)) < len(keys)
