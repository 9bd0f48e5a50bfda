"""The command line before a command is chosen."""

import pytest

from gan_lab import __version__
from gan_lab.cli import COMMANDS, main
from gan_lab.commands.launch import launch


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(words)
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"gan_lab {__version__}\n"


def test_a_slip_of_the_keys() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["trian"])
    assert "did you mean train?" in str(caught.value)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_a_configuration(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        launch(command, ["--help"])
    assert not caught.value.code
    assert "Powered by Hydra" in capsys.readouterr().out


def test_a_broken_override(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch("train", ["seed"]) == 2
    assert "missing EQUAL" in capsys.readouterr().err
