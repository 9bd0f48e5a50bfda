"""hydra/sweeper=optuna: a planted optimum is found, bad runs are pruned, and a stop changes nothing."""

import math
import multiprocessing
import signal
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from gan_lab.errors import InputError
from gan_lab.sweeps.job import Ending
from gan_lab.sweeps.outcome import open_storage
from gan_lab.sweeps.trials import as_override, search_space
from gan_lab.training.loggers.files import read_metrics
from tests.sweeps.conftest import Fake, Sweep, recorded

SPACE = (
    "hydra/sweeper=optuna",
    "lr=tag(log,interval(1e-5,1e-1))",
    "loss=hinge,wasserstein",
    "hydra.sweeper.sampler.n_startup_trials=5",
    "hydra.sweeper.pruner.n_startup_trials=3",
    "sweep=a",
)


def planted(config: DictConfig) -> float:
    """Least, 0, at lr=1e-3 with the hinge loss."""
    return (math.log10(config.lr) + 3) ** 2 + 2 * (config.loss != "hinge")


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """Return what the study of a sweep holds."""
    storage = open_storage(str(folder / "optuna.journal"))
    return optuna.load_study(study_name="a", storage=storage).get_trials()


@pytest.mark.usefixtures("small")
def test_a_planted_optimum_is_found_across_a_kill(
    sweep: Sweep, fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The search that was killed in its 6th trial ends in exactly the trials of an uninterrupted one."""
    fake.height = planted
    overrides = (*SPACE, "hydra.sweeper.n_trials=12")
    assert sweep(*overrides, f"runs_dir={tmp_path}/straight") == 0
    straight = trials(tmp_path / "straight" / "a")
    assert "best" in capsys.readouterr().out

    complete = [t for t in straight if t.state is TrialState.COMPLETE]
    pruned = [t for t in straight if t.state is TrialState.PRUNED]
    assert len(complete) + len(pruned) == 12 and len(pruned) >= 3
    best = min(complete, key=lambda t: t.value or 0.0)
    assert best.params["loss"] == "hinge" and abs(math.log10(best.params["lr"]) + 3) < 0.5
    found = recorded(tmp_path / "straight" / "a")
    for trial in straight:
        run = f"lr-{trial.params['lr']:.6g}_{trial.params['loss']}"
        log = read_metrics(tmp_path / "straight" / "a" / run / "metrics.jsonl")
        assert found[run]["status"] == ("done" if trial in complete else "pruned")
        assert (log[-1]["kimg"] == 40) == (trial in complete), "a pruned run ended early"
        assert log[0]["metrics/fd_digits"] == trial.intermediate_values[0]
    assert min(t.intermediate_values[1] for t in pruned) > best.intermediate_values[1]

    fake.trained.clear()
    fake.kill_at = (6, 20)
    child = multiprocessing.get_context("fork").Process(
        target=sweep, args=(*overrides, f"runs_dir={tmp_path}/killed")
    )
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    cut = trials(tmp_path / "killed" / "a")
    assert [t.state for t in cut[5:]] == [TrialState.RUNNING]
    fake.kill_at = None
    assert sweep(*overrides, f"runs_dir={tmp_path}/killed") == 0
    assert fake.trained[0][1] == 10, "the run that was cut off went on from where it was"
    assert len(fake.trained) == 7, "and the others before it were left alone"
    kept = [(t.number, t.state, t.params, t.value, t.intermediate_values) for t in straight]
    again = trials(tmp_path / "killed" / "a")
    assert kept == [(t.number, t.state, t.params, t.value, t.intermediate_values) for t in again]


@pytest.mark.usefixtures("small")
def test_more_is_better_where_it_is(sweep: Sweep, fake: Fake, tmp_path: Path) -> None:
    fake.height = lambda config: -planted(config)
    overrides = (
        *SPACE,
        "hydra.sweeper.n_trials=3",
        "objective_mode=max",
        "hydra.sweeper.pruner=null",
    )
    assert sweep(*overrides) == 0
    study = trials(tmp_path / "m" / "a")
    assert len(study) == 3 and not any(t.intermediate_values for t in study), "no pruner reads them"
    values = {run["run"]: run["value"] for run in recorded(tmp_path / "m" / "a").values()}
    assert sorted(values.values()) == sorted(t.value for t in study if t.value is not None)
    assert sweep(*overrides, "objective_mode=min") == 2, "a study has one direction"


@pytest.mark.usefixtures("small")
def test_a_trial_that_fails_is_reported_once(
    sweep: Sweep, fake: Fake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.endings = {"hinge": Ending("failed", "training diverged")}
    overrides = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "loss=hinge,wasserstein")
    assert sweep(*overrides, "sweep=a") == 2
    assert "the search goes on without them" in capsys.readouterr().err
    states = {t.params["loss"]: t.state for t in trials(tmp_path / "m" / "a")}
    assert states == {"hinge": TrialState.FAIL, "wasserstein": TrialState.COMPLETE}
    assert sweep(*overrides, "sweep=a") == 0, "there is nothing left to try"


@pytest.mark.usefixtures("small")
def test_batches_of_trials_and_trials_of_one_run(sweep: Sweep, fake: Fake, tmp_path: Path) -> None:
    overrides = ("hydra.sweeper.n_jobs=3", "hydra.sweeper.n_trials=6", "loss=hinge,wasserstein")
    assert sweep("hydra/sweeper=optuna", *overrides, "sweep=a") == 0
    assert {name for name, _ in fake.trained} <= {"hinge", "wasserstein"}
    assert len(fake.trained) <= 2, "a run that is done is not trained again for another trial"
    assert [t.state for t in trials(tmp_path / "m" / "a")] == [TrialState.COMPLETE] * 6


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("seed=1",), "has nothing to search over"),
        (("lr=tag(log,interval(0,1))",), "cannot be searched over"),
        (("lr=tag(wide,interval(0,1))",), "the tags log and int are known"),
        (("lr=interval(0,1)", "lrr=interval(0,1)"), "did you mean lr"),
        (("lr=interval(0,1)", "hydra.sweeper.n_trials=0"), "n_trials=0 must be a whole number"),
        (("lr=interval(0,1)", "objective=null"), "there are no metrics"),
        (("lr=interval(0,1)", "hydra.sweeper.storage='nosuch://x'"), "cannot be opened"),
    ],
)
def test_bad_input_is_rejected_before_the_first_run(
    sweep: Sweep,
    fake: Fake,
    capsys: pytest.CaptureFixture[str],
    overrides: tuple[str, ...],
    message: str,
) -> None:
    assert sweep("hydra/sweeper=optuna", *overrides) == 2
    assert message in capsys.readouterr().err
    assert fake.trained == []


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a=interval(0,1)", FloatDistribution(0, 1)),
        ("a=tag(log,interval(1e-5,1e-3))", FloatDistribution(1e-5, 1e-3, log=True)),
        ("a=int(interval(1,8))", IntDistribution(1, 8)),
        ("a=tag(int,log,interval(1,64))", IntDistribution(1, 64, log=True)),
        ("a=range(1,9,2)", IntDistribution(1, 7, step=2)),
        ("a=range(9,1,-2)", IntDistribution(3, 9, step=2)),
        ("a=range(0,1,0.25)", FloatDistribution(0, 0.75, step=0.25)),
        ("a=x,y", CategoricalDistribution(["x", "y"])),
        ("+a=choice([r1],[r1,r2])", CategoricalDistribution(["[r1]", "[r1,r2]"])),
    ],
)
def test_search_spaces(word: str, expected: BaseDistribution) -> None:
    fixed, space = search_space(OverridesParser.create().parse_overrides(["b=1", word]))
    assert fixed == ["b=1"] and space["a"].distribution == expected
    key = word.partition("=")[0]
    assert space["a"].override(space["a"].examples()[0]).startswith(f"{key}=")


def test_six_digits_of_a_number() -> None:
    _, space = search_space(OverridesParser.create().parse_overrides(["a=interval(0,1)"]))
    assert space["a"].override(0.000123456789) == "a=0.000123457"


@pytest.mark.parametrize(
    "value", [{"a": "it's a 'path' \\", "b": [1, 2.5e-7, None, True]}, {"c": {"d": "x,y:z={}"}}]
)
def test_values_survive_the_command_line(value: dict[str, Any]) -> None:
    assert OverridesParser.create().parse_override(f"k={as_override(value)}").value() == value


def test_without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install 'gan-laboratory\[sweeps\]'"):
        open_storage("x")
