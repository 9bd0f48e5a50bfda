"""The best values of a run, and what becomes of a service that fails."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from gan_lab.data.media import Sheet
from gan_lab.training.loggers import BestValues, Service


def test_the_best_of_each_metric_by_its_direction() -> None:
    best = BestValues()
    assert best.update({"kimg": 1.0, "metrics/fid": 3.0, "metrics/recall": 0.5, "loss/d": 1.0}) == {
        "best/fid": 3.0,
        "best/fid_kimg": 1.0,
        "best/recall": 0.5,
        "best/recall_kimg": 1.0,
    }
    changed = best.update({"kimg": 2.0, "metrics/fid": math.nan, "metrics/recall": 0.7})
    assert changed == {"best/recall": 0.7, "best/recall_kimg": 2.0}
    assert best.update({"kimg": 3.0, "metrics/fid": 3.0, "metrics/recall": 0.6}) == {}
    assert best.values["best/fid_kimg"] == 1.0


def test_a_run_that_goes_on_counts_up_to_there() -> None:
    best = BestValues()
    entries = [{"kimg": kimg, "metrics/fid": 10 - kimg} for kimg in (1.0, 2.0, 3.0)]
    best.restart(entries, 2.0)
    assert best.values == {"best/fid": 8.0, "best/fid_kimg": 2.0}
    best.restart(entries, -1.0)
    assert best.values == {}


class Letters(Service[list[str]]):
    """A service that takes two letters."""

    title = "Letters"

    @property
    def version(self) -> str:
        return ""

    def begin(self) -> list[str]:
        return []

    def started(self, session: list[str]) -> None:
        session.append(f"seed {self.config['seed']}")

    def send_later(self) -> str:
        return "; post them"

    def log_metrics(self, metrics: object, step: int | None = None) -> None: ...

    def rewind(self, kimg: float) -> None: ...

    def log_sheet(self, name: str, sheet: Sheet, kimg: float) -> None: ...

    def log_advice(self, advice: Sequence[str], kimg: float) -> None: ...


def test_a_failing_service_is_not_called_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service, tried = Letters(run_dir=tmp_path), []
    service.log_hyperparams({"seed": 3})
    session = service.session
    assert session == ["seed 3"]

    def fail(session: list[str]) -> None:
        tried.append(session)
        raise OSError("no stamps\nat all")

    service.attempt(fail)
    service.attempt(fail)
    assert len(tried) == 1
    service.end(fail)
    assert len(tried) == 2, "an end sends what can still be sent"
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("Letters failed") == 1 and "OSError: no stamps)" in out
    assert "metrics.jsonl has everything; post them" in out.replace(
        "metrics. jsonl", "metrics.jsonl"
    )
    service.attempt(fail)
    assert service.session is None and len(tried) == 2, "over"
