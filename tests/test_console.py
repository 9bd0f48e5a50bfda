"""Console output: one progress bar for all commands, shown on a terminal only."""

import io

import pytest
from rich.console import Console

from gan_lab import console
from gan_lab.console import progress_bar


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, total: float | None) -> str:
    file = io.StringIO()
    made = Console(file=file, force_terminal=terminal, width=100)
    monkeypatch.setattr(console, "console", made)
    with progress_bar("packing [all]", total, transient=False) as advance:
        advance(1, "[note]")
        advance(2)
    return file.getvalue()


def test_on_a_terminal_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, terminal=True, total=2)
    assert "packing [all]" in text and "2/2" in text


def test_of_unknown_length(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "2/?" in shown(monkeypatch, terminal=True, total=None)


@pytest.mark.parametrize(("terminal", "total"), [(False, 2), (True, 0)])
def test_nothing_elsewhere_nor_for_no_work(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, total: int
) -> None:
    assert shown(monkeypatch, terminal=terminal, total=total).strip() == ""


def test_of_several_processes_the_first_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "is_first", lambda: False)
    assert shown(monkeypatch, terminal=True, total=2).strip() == ""
