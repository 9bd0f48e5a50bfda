"""The command line before a command is chosen."""

from pathlib import Path

import pytest

from gan_lab import __version__
from gan_lab.cli import COMMANDS, SWITCHES, main, switched
from gan_lab.commands.launch import flags_last, launch


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


def test_flags_may_come_first() -> None:
    words = ["-m", "model=gan", "--config-dir", "mine", "seed=0,1", "--cfg=job"]
    assert flags_last(words) == ["model=gan", "seed=0,1", "-m", "--config-dir", "mine", "--cfg=job"]


def test_keys_that_are_true_or_false_may_be_flags() -> None:
    words = ["run=a", "--preview", "--cfg", "job"]
    assert switched(words, SWITCHES["evaluate"]) == ["run=a", "preview=true", "--cfg", "job"]
    assert switched(["--dry-run"], SWITCHES["train"]) == ["dry_run=true"]
    assert switched(words, ()) == words


def test_a_users_own_configurations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("_target_: gan_lab.losses.Hinge\n")
    assert launch("train", ["--config-dir", str(tmp_path), "loss=mine", "--cfg", "job"]) == 0
    assert "gan_lab.losses.Hinge" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "word", "close"),
    [
        ("train", "loss=hinges", "did you mean loss/hinge"),
        ("train", "experiment=quickstrat", "did you mean experiment/quickstart"),
        ("evaluate", "protocol=fid10kk", "did you mean protocol/fid10k"),
        ("evaluate", "features=cli", "did you mean features/clip"),
    ],
)
def test_the_options_of_a_group(
    command: str, word: str, close: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(command, [word]) == 2
    err = capsys.readouterr().err
    assert close in err and "there are " in err
    assert "provider" not in err and "Error executing" not in err
