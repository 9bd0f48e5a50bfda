"""Advice is printed once, and every logger gets all that a run was given."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from gan_lab.training.advice import Advice, Adviser
from gan_lab.training.callbacks.training_log import TrainingLog
from gan_lab.training.loggers.files import FileLogger


class Kept(FileLogger):
    """Keeps the advice that it gets."""

    def __init__(self, *, run_dir: Path) -> None:
        super().__init__(run_dir=run_dir)
        self.got: list[tuple[list[str], float]] = []

    def log_metrics(self, metrics: object, step: int | None = None) -> None: ...

    def log_advice(self, advice: Sequence[str], kimg: float) -> None:
        self.got.append((list(advice), kimg))


def test_advice_is_printed_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {1.0: [], 2.0: [Advice("a", 2.0, "first")], 3.0: [Advice("b", 3.0, "second")]}
    monkeypatch.setattr(Adviser, "see", lambda self, entry: given[entry["kimg"]])
    log, loggers = TrainingLog(every_kimg=1.0), [Kept(run_dir=tmp_path), Kept(run_dir=tmp_path)]
    for kimg in given:
        log.advise({"kimg": kimg}, loggers)
    assert capsys.readouterr().out.count("at 2 kimg: first") == 1
    for logger in loggers:
        assert logger.got == [
            (["at 2 kimg: first"], 2.0),
            (["at 2 kimg: first", "at 3 kimg: second"], 3.0),
        ]
    TrainingLog(every_kimg=1.0, advice=False).advise({"kimg": 2.0}, loggers)
    assert len(loggers[0].got) == 2
