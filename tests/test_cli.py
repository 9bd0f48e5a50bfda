"""The command line before a command is chosen."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gan_lab import __version__
from gan_lab.cli import COMMANDS, main
from gan_lab.commands.launch import SWITCHES, expand_switches, flags_last, launch, quote_values
from gan_lab.config import conf_dir


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(args)
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"gan_lab {__version__}\n"


def test_a_slip_of_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["trian"])
    assert caught.value.code == 2 and "did you mean train?" in capsys.readouterr().err


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_has_every_key_and_what_it_is(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = (conf_dir() / f"{command.replace('-', '_')}.yaml").read_text()
    assert launch(command, ["--help"]) == 0
    out = capsys.readouterr().out
    written = re.split(r"^(?:defaults|hydra):\n(?:[ \n].*\n*)*", file, flags=re.MULTILINE)
    assert all(part.strip() in out for part in written) and "#" in out
    assert "hydra:" not in out and "powered" not in out.lower()
    assert ("  model " in out) == (command in ("train", "bench"))


def test_help_has_the_keys_of_what_is_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("shade: 3 # of gray\n")
    args = ["-m", "-h", "--config-dir", str(tmp_path), "data=mine", "regularizer=[r2,lecam]"]
    assert launch("train", args) == 0
    out = capsys.readouterr().out
    assert "shade: 3 # of gray" in out and "mine" in re.findall(r"\n  data +(.*)", out)[0].split()
    assert "regularizer=r2, " in out and "regularizer=lecam, " in out
    assert "regularizer=r1, " not in out and "\ndata=digits" not in out
    assert launch("train", ["model=dcgn", "--help"]) == 2
    assert "did you mean model/dcgan" in capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from gan_lab.cli import main; main(['--help']); "
        "sys.exit(bool({'torch', 'lightning', 'hydra', 'omegaconf', 'numpy'} & {*sys.modules}))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


def test_help_shows_the_penalties_that_the_model_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch("train", ["model=stylegan2", "--help"]) == 0
    out = capsys.readouterr().out
    assert "regularizer=r1_lazy, " in out and "interval: 16" in out
    assert "regularizer=r1, " not in out and "regularizer=path_length, " in out


def test_help_and_slips_wait_for_no_torch() -> None:
    script = (
        "import sys; from gan_lab.commands.launch import launch; "
        "assert (launch('train', ['--help']), launch('train', ['sead=1'])) == (0, 2); "
        "sys.exit(bool({'torch', 'lightning'} & {*sys.modules}))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "path",
    [
        "~/Bilder",
        "été",
        "photos (1)",
        "a#b",
        "it's",
        "日本/x",
        "C:\\photos (1)\\",
        "a&b;c!",
        "case([0-9]+)",
    ],
)
def test_a_path_is_taken_as_it_is_written(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    args = ["data=image_folder", f"data.root={path}", "--cfg", "job"]
    assert launch("train", args) == 0
    root = yaml.safe_load(capsys.readouterr().out)["data"]["root"]
    assert root == path.replace("~", str(tmp_path))


def test_what_hydra_reads_is_left_to_it() -> None:
    args = [
        "a=[b,~/c]",
        "a='b",
        "a",
        "seed=range(3)",
        "a=1,2",
        "~logger",
        "a={b: c}",
        "lr=intervall(1,2)",
    ]
    args += ["-m", "--config-dir", "~/é"]
    assert quote_values(args) == args


def test_a_list_without_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch("generate", ["run=a", "classes=0,3,5"]) == 2
    assert "write classes=[0,3,5] for a list" in capsys.readouterr().err


def test_a_missing_key_is_reported_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch("import-weights", ["name=x"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "gan-lab import-weights --help" in err


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    args = ["model.generator.width=8", "threads=1", f"runs_dir={tmp_path}/file", "name=x"]
    assert launch("train", args) == 2
    assert f"{tmp_path}/file/x could not be written: Not a dir" in capsys.readouterr().err


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: object) -> None:
        raise ConnectionResetError(104, "by nobody")

    monkeypatch.setattr("gan_lab.commands.compare.run", fail)
    with pytest.raises(ConnectionResetError):
        launch("compare", [])


def test_a_broken_override(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch("train", ["seed"]) == 2
    assert "seed: " in capsys.readouterr().err


def test_flags_may_come_first() -> None:
    args = ["-m", "model=gan", "--config-dir", "mine", "seed=0,1", "--cfg=job"]
    assert flags_last(args) == [
        "model=gan",
        "seed=0,1",
        "-m",
        "--config-dir",
        "mine",
        "--cfg=job",
    ]


def test_keys_that_are_true_or_false_may_be_flags() -> None:
    args = ["run=a", "--preview", "--cfg", "job"]
    assert expand_switches(args, SWITCHES["evaluate"]) == [
        "run=a",
        "preview=true",
        "--cfg",
        "job",
    ]
    assert expand_switches(["--dry-run"], SWITCHES["train"]) == ["dry_run=true"]
    assert expand_switches(args, ()) == args


def test_a_users_own_configurations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("_target_: gan_lab.training.losses.Hinge\n")
    assert launch("train", ["--config-dir", str(tmp_path), "loss=mine", "--cfg", "job"]) == 0
    assert "gan_lab.training.losses.Hinge" in capsys.readouterr().out


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
