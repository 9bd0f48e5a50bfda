"""A run that is killed before, in the middle of or after any write ends as one that was not, bit by bit."""

from pathlib import Path

import pytest

from tests.helpers.crashes import Trace, check_kill, traced


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trace]:
    """An uninterrupted run, in this process, so that forks of it import nothing."""
    return traced(tmp_path_factory.mktemp("straight"))


def last_of(trace: Trace, name: str, file: str) -> int:
    return max(i for i, call in enumerate(trace) if call == (name, file))


POINTS = {
    "the first configuration": lambda trace: (trace.index(("replace", "config.yaml")), "before"),
    "an entry of the log": lambda trace: (last_of(trace, "fsync", "metrics.jsonl"), "after"),
    "a checkpoint": lambda trace: (last_of(trace, "save", "last.ckpt"), "middle"),
    "the one before": lambda trace: (last_of(trace, "replace", "previous.ckpt"), "after"),
    "the last one, not yet the best": lambda trace: (last_of(trace, "replace", "last.ckpt"), "after"),
    "the last call": lambda trace: (len(trace) - 1, "before"),
}  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_a_write(straight: tuple[Path, Trace], tmp_path: Path, point: str) -> None:
    run, trace = straight
    number, when = POINTS[point](trace)
    check_kill(tmp_path, run, number, when)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_kill_at_every_write(straight: tuple[Path, Trace], tmp_path: Path) -> None:
    run, trace = straight
    assert len(trace) > 40
    for number, (name, _) in enumerate(trace):
        for when in ("before", "after", *(["middle"] if name == "save" else [])):
            check_kill(tmp_path / f"{number}-{when}", run, number, when)
