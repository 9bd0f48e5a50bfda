"""gan-lab train -m: which runs there are, what is skipped, tried again, recorded and rejected."""

import json
import multiprocessing
import signal
from pathlib import Path

import pytest

from gan_lab.commands.launch import launch
from gan_lab.run import locked
from gan_lab.sweeps.job import Ending
from tests.sweeps.conftest import FIGURE, Fake, Sweep, recorded

SMALL = pytest.mark.usefixtures("small")
SIX = ("loss=hinge,wasserstein", "seed=range(3)")


def test_every_combination_is_named_recorded_and_ranked(
    sweep: Sweep, fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.height = lambda config: abs(config.seed - 1) + (config.model._target_.endswith("DCGAN"))
    assert sweep("model=gan,dcgan", "seed=range(2)", "batch_size=16") == 0
    names = [f"{model}_seed-{seed}" for model in ("gan", "dcgan") for seed in range(2)]
    assert [name for name, _ in fake.trained] == names
    folder = tmp_path / "m" / "batch_size-16_gan,dcgan_seed-range-2"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted(names)
    record = json.loads((folder / "sweep.json").read_text())
    assert (record["objective"], record["mode"], record["best"]) == (FIGURE, "min", "gan_seed-1")
    best = recorded(folder)["gan_seed-1"]
    assert best["overrides"][-3:] == ["model=gan", "seed=1", "batch_size=16"]
    assert best["status"] == "done" and best["kimg"] == best["value_kimg"] == best["seconds"] == 40
    assert best["value"] == best["metrics"][FIGURE] == pytest.approx(0.183, abs=1e-3)
    table = [line.split() for line in capsys.readouterr().out.splitlines()[-6:-1]]
    assert table[0][:4] == ["model", "seed", "status", "fd_digits"]
    assert table[1][:3] == ["gan", "1", "done"] and table[1][-1] == "best"
    assert sum("best" in row for row in table) == 1


@SMALL
def test_the_value_of_a_run_is_its_best_one(sweep: Sweep, fake: Fake, tmp_path: Path) -> None:
    assert sweep("seed=0,1", "sweep=a", "objective=metrics/fd_digits", "objective_mode=max") == 0
    found = recorded(tmp_path / "m" / "a")["seed-1"]
    assert found["value_kimg"] == 10 and found["mode"] == "max", "the curve falls"


@SMALL
def test_a_repeated_call_skips_what_is_done(sweep: Sweep, fake: Fake) -> None:
    assert sweep("seed=0,1") == 0
    fake.trained.clear()
    assert sweep("seed=0,1") == 0
    assert fake.trained == []
    assert sweep("seed=0,1", "total_kimg=60") == 0, "longer, it is the same sweep"
    assert len(fake.trained) == 2 and {begun for _, begun in fake.trained} == {40}


@SMALL
def test_killed_in_the_middle_and_started_again(sweep: Sweep, fake: Fake, tmp_path: Path) -> None:
    """The issue's sweep of 6 runs; test_end_to_end.py has it with real training."""
    fake.kill_at = (4, 30)
    child = multiprocessing.get_context("fork").Process(target=sweep, args=SIX)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    folder = tmp_path / "m" / "hinge,wasserstein_seed-range-3"
    before = {name: entry["status"] for name, entry in recorded(folder).items()}
    assert list(before.values()) == ["done"] * 3 + ["running"] + ["waiting"] * 2
    fake.kill_at = None
    assert sweep(*SIX) == 0
    assert fake.trained == [
        ("wasserstein_seed-0", 20),
        ("wasserstein_seed-1", 0),
        ("wasserstein_seed-2", 0),
    ]
    assert {entry["status"] for entry in recorded(folder).values()} == {"done"}


@SMALL
def test_a_failing_run_does_not_stop_others_and_is_retried(
    sweep: Sweep, fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.endings = {
        "seed-1": Ending("failed", "training diverged at 3 kimg"),
        "seed-2": Ending("killed", "process killed by SIGKILL"),
        "seed-3": Ending("stopped", None, 143),
    }
    assert sweep("seed=range(4)", "sweep=a") == 2
    captured = capsys.readouterr()
    assert "3 of 4 runs failed (seed-1, seed-2, seed-3)" in captured.err
    assert "seed-1 failed. training diverged at 3 kimg" in captured.out
    found = recorded(tmp_path / "m" / "a")
    assert [entry["status"] for entry in found.values()] == ["done", "failed", "killed", "stopped"]
    assert found["seed-1"]["error"] == "training diverged at 3 kimg"
    fake.endings.clear()
    fake.trained.clear()
    assert sweep("seed=range(4)", "sweep=a") == 0
    assert [name for name, _ in fake.trained] == ["seed-1", "seed-2", "seed-3"]
    assert recorded(tmp_path / "m" / "a")["seed-1"]["error"] is None


@SMALL
def test_a_stopped_sweep_starts_no_further_run(
    sweep: Sweep, fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.stop_after = "seed-1"
    assert sweep("seed=range(4)", "sweep=a") == 128 + signal.SIGTERM
    assert "stopped; the same command goes on" in capsys.readouterr().out
    statuses = [entry["status"] for entry in recorded(tmp_path / "m" / "a").values()]
    assert statuses == ["done", "done", "waiting", "waiting"]
    fake.stop_after = None
    assert sweep("seed=range(4)", "sweep=a") == 0
    assert [name for name, _ in fake.trained] == [f"seed-{seed}" for seed in range(4)]


def test_an_unknown_key_is_rejected_before_the_first_run(
    sweep: Sweep, fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("seed=0,1", "model.generator.wdth=8,16") == 2
    assert "model.generator.wdth" in (err := capsys.readouterr().err)
    assert "did you mean width" in err
    assert sweep("seed=0,1", "loss=hinge,hings") == 2
    assert "did you mean loss/hinge" in capsys.readouterr().err
    assert fake.trained == [] and not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("seed=0,1", "name=x"), "2 runs, of which several would be called x"),
        (("seed=0,one",), "seed='one' must be a whole number"),
        (("lr=interval(0,1)",), "choose hydra/sweeper=optuna"),
        (("seed=0,1", "objective=speed/img_per_s"), "set objective_mode=min or max"),
        (("seed=0,1", "objective_mode=up"), "objective_mode='up' must be min, max"),
        (("seed=0,1", "sweep=../a"), "must be the name of a folder"),
        (("seed=0,1", "dry_run=true"), "says what one run costs; leave -m out"),
    ],
)
@SMALL
def test_bad_input_is_rejected_before_the_first_run(
    sweep: Sweep,
    fake: Fake,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: tuple[str, ...],
    message: str,
) -> None:
    assert sweep(*overrides) == 2
    assert message in capsys.readouterr().err
    assert fake.trained == [] and not (tmp_path / "m").exists()


@SMALL
def test_one_name_is_not_used_for_two_kinds_of_runs(
    sweep: Sweep, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep("seed=0,1", "sweep=a", "batch_size=16") == 0
    assert sweep("seed=1,2", "sweep=a", "batch_size=32") == 2
    err = capsys.readouterr().err
    assert "has a run seed-1 with batch_size=16, and now it would be with batch_size=32" in err
    assert sweep("seed=1,2", "sweep=a", "batch_size=16") == 0, "more of the same is welcome"
    assert [name for name, _ in fake.trained] == ["seed-0", "seed-1", "seed-2"]


@SMALL
def test_what_names_no_run_names_one_where_it_is_swept(
    sweep: Sweep, fake: Fake, tmp_path: Path
) -> None:
    assert launch("train", ["-m", f"runs_dir={tmp_path}", "lr=1", "total_kimg=10,20"]) == 0
    assert [name for name, _ in fake.trained] == ["total_kimg-10", "total_kimg-20"]
    assert (tmp_path / "lr-1_total_kimg-10,20" / "total_kimg-20").is_dir()


@SMALL
def test_a_second_call_at_the_same_time_is_rejected(
    sweep: Sweep, fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m" / "a").mkdir(parents=True)
    with locked(tmp_path / "m" / "a"):
        assert sweep("seed=0,1", "sweep=a") == 2
    assert "another process is training in" in capsys.readouterr().err
    assert fake.trained == []
    assert sweep("seed=0,1", "sweep=a") == 0


def test_without_joblib(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gan_lab.sweeps.find_spec", lambda name: None)
    assert sweep("hydra/launcher=joblib", "seed=0,1") == 2
    assert "pip install 'gan-laboratory[sweeps]'" in capsys.readouterr().err


@SMALL
def test_ranks_of_torchrun_are_not_to_run_sweeps(
    sweep: Sweep, fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert sweep("seed=0,1") == 2
    assert "leave torchrun or srun out" in capsys.readouterr().err
    assert fake.trained == []


@SMALL
def test_an_unreadable_record(
    sweep: Sweep, fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m" / "a").mkdir(parents=True)
    (tmp_path / "m" / "a" / "sweep.json").write_text("{}")
    assert sweep("seed=0,1", "sweep=a") == 2
    assert "is not the record of a sweep" in capsys.readouterr().err


def test_keys_that_no_file_lists_are_swept_without_a_plus(
    sweep: Sweep, fake: Fake, tmp_path: Path
) -> None:
    overrides = ("model=stylegan2", "sweep=a", "model.generator.num_fp16_res=0,2")
    assert sweep(*overrides, "total_kimg=10") == 0
    assert [name for name, _ in fake.trained] == [
        f"model.generator.num_fp16_res-{number}" for number in (0, 2)
    ]
    assert sweep(*overrides, "total_kimg=10") == 0 and len(fake.trained) == 2, (
        "nothing is left to do"
    )


@SMALL
def test_an_objective_that_is_never_measured_is_a_failure(
    sweep: Sweep, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("seed=0,1", "sweep=a", "objective_mode=min")
    for wrong in ("metrics/fd_digitz", "metric/fd_digits", "loss/dd"):
        assert sweep(*overrides, f"objective={wrong}", f"sweep={wrong.replace('/', '_')}") == 2
        said = capsys.readouterr()
        assert "2 of 2 runs failed" in said.err and f"objective={wrong}" in said.out
