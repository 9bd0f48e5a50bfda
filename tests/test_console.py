"""What reaches the terminal: styles of ours, of names nothing that it would obey, one progress bar."""

import io

import pytest
from rich.table import Table

from gan_lab import console
from gan_lab.commands.launch import print_error
from gan_lab.console import PlainConsole, printable, progress_bar, say, warn

HOSTILE = "a\x1b]0;title\x07b\x1b[2Jc\x9bd\re\x08f\u202eg\udce9h\x7f"


@pytest.mark.parametrize("speak", [say, warn, print_error])
def test_names_do_not_move_the_cursor(speak, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    speak(f"class {HOSTILE} of é and 猫\n\tand [brackets]")
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert printable(text) == text
    # rich drops some by itself
    assert r"b\x1b[2Jc\x9bd" in text and r"f\u202eg\udce9h\x7f" in text
    assert r"é and 猫\n\tand [brackets]" in text, "a message is a line"


def test_nor_in_tables_and_titles_while_styles_are_kept() -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, force_terminal=True, width=200)
    table = Table(title=HOSTILE)
    table.add_column(f"[red]{'name'}")
    table.add_row(HOSTILE)
    console.print(table)
    text = file.getvalue()
    assert "\x1b[31" in text or "\x1b[1;31" in text, "our own colors"
    for code in ("\x1b]0", "\x07", "\x1b[2J", "\x9b", "\r", "\x08", "\u202e", "\x7f"):
        assert code not in text


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, total: float | None) -> str:
    file = io.StringIO()
    made = PlainConsole(file=file, force_terminal=terminal, width=100)
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
def test_no_bar_without_a_terminal_or_work(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, total: int
) -> None:
    assert shown(monkeypatch, terminal=terminal, total=total).strip() == ""


def test_only_the_first_of_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "is_first", lambda: False)
    assert shown(monkeypatch, terminal=True, total=2).strip() == ""


@pytest.mark.parametrize("name", ["two\nlines", "a\ttab", "both\r\n\x1b[2J", "é 猫"])
def test_a_name_stays_in_its_line(name: str) -> None:
    shown = console.in_a_line(name)
    assert shown.isprintable() and (shown == name) == name.isprintable()


def test_whatever_a_name_holds_a_message_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\nb\tc\x1b[31m\u202e[bold]\ud800"
    say(f"class {name}")
    warn(f"class {name}")
    print_error(f"class {name}")
    out, err = capsys.readouterr()
    shown = r"class a\nb\tc\x1b[31m\u202e[bold]\ud800"
    assert out == f"{shown}\nwarning: {shown}\n"
    assert err == f"gan-lab: error: {shown}\n"
