"""Finding and reading runs; broken files are reported without affecting the rest."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from gan_lab.compare.page import curve, differing, main_metric, metric_keys, page_data, thinned
from gan_lab.compare.runs import SampleGrid, count_parameters, find_runs, read_run, short_names
from gan_lab.config import build
from gan_lab.errors import InputError
from gan_lab.training.building import describe_samples
from tests.compare.conftest import MakeRun
from tests.helpers.samples import images_of


def test_runs_are_found_in_folders_of_any_depth(make_run: MakeRun, tmp_path: Path) -> None:
    one = make_run("one")
    swept = [make_run(name, root=tmp_path / "multirun" / "sweep") for name in ("b", "a")]
    (tmp_path / "runs" / "sweep.log").write_text("")
    (tmp_path / "runs" / "empty").mkdir()
    given = [*sorted((tmp_path / "runs").iterdir()), tmp_path / "multirun", one, tmp_path / "none"]
    found, wrong = find_runs([*given, one / "checkpoints" / "best.ckpt"])
    assert found == [one, *reversed(swept)], "each once, a folder's by name"
    assert len(wrong) == 2
    assert "empty is not a run and holds none" in wrong[0] and "none does not exist" in wrong[1]


@pytest.mark.parametrize("given", [[], ["nowhere"], ["."]])
def test_no_run_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"runs/\*|nowhere does not exist|\. is not a run"):
        find_runs(given)


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["x/a", "y/a"], ["x/a", "y/a"]),
        (
            ["r/hinge_model.generator.width-64_seed-1", "r/hinge_model.generator.width-8_seed-2"],
            ["hinge_width-64_seed-1", "hinge_width-8_seed-2"],
        ),
        (
            ["r/model.generator_optimizer.lr-1_model.discriminator_optimizer.lr-2", "r/gan"],
            ["model.generator_optimizer.lr-1_model.discriminator_optimizer.lr-2", "gan"],
        ),
        (
            ["r/model.generator.width-8", "r/model.discriminator.width-8"],
            ["model.generator.width-8", "model.discriminator.width-8"],
        ),
    ],
)
def test_names_are_unique(folders: list[str], names: list[str]) -> None:
    assert short_names([Path(folder) for folder in folders]) == names


def test_best_time_and_status(make_run: MakeRun) -> None:
    run = read_run(make_run("run", best=1.5, kimg=4, total_kimg=6), "run")
    best, worst_kind = run.best("metrics/fd_digits"), run.best("metrics/accuracy_digits")
    assert best is not None and (best.value, best.kimg) == (1.5, 4)
    assert worst_kind is not None and worst_kind.value == pytest.approx(1 - 0.1 * 1.5 / 4)
    assert run.best("metrics/fd_digits_real") is None and run.best("loss/d") is None
    assert (run.kimg, run.total_kimg, run.finished) == (4, 6, False)
    assert (run.seconds, run.devices) == (8, 1)
    assert read_run(make_run("whole", kimg=4), "whole").finished
    assert run.problems == []


def test_parameters_are_counted(make_run: MakeRun) -> None:
    run = read_run(make_run("run"), "run")
    assert run.config is not None
    assert run.parameters == {
        player: sum(p.numel() for p in build(run.config["model"][player]).parameters())
        for player in ("generator", "discriminator")
    }


@pytest.mark.parametrize("model", ["dcgan", "biggan", "stylegan2", "stylegan3", "r3gan", "progan"])
def test_counting_parameters_needs_no_memory(
    model: str, compose: Callable[..., DictConfig], tmp_path: Path
) -> None:
    config = compose(f"experiment=digits/{model}")
    describe_samples(config, images_of([16, 16], channels=1, classes=10))
    config = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    counted = count_parameters(config, tmp_path, trust=())
    for player, count in counted.items():
        assert count == sum(p.numel() for p in build(config["model"][player]).parameters())


def test_broken_lines_are_reported_and_skipped(make_run: MakeRun) -> None:
    path = make_run("run", kimg=2)
    log = path / "metrics.jsonl"
    whole = log.read_text().splitlines()
    broken = ["{", *whole, "[]", '{"loss/d": 1}', '{"kimg": 3, "x": NaN, "note": "text"}', '{"ki']
    log.write_text("\n".join(broken))
    run = read_run(path, "run")
    assert len(run.entries) == len(whole) + 1 and "note" not in run.entries[-1]
    (problem,) = run.problems
    assert "is damaged in line 1, 6, 7: left out" in problem, "the last line was only cut short"
    assert curve(run, "x", most=10) == []


@pytest.mark.parametrize("text", ["a: [", "- a list", "a: !!python/name:os.system"])
def test_a_broken_configuration_keeps_the_curves(make_run: MakeRun, text: str) -> None:
    path = make_run("run")
    (path / "config.yaml").write_text(text)
    run = read_run(path, "run")
    assert run.config is None and len(run.problems) == 1
    assert run.best("metrics/fd_digits") is not None
    assert run.total_kimg is None and not run.finished and run.devices is None


def test_counting_runs_no_untrusted_code(make_run: MakeRun) -> None:
    path = make_run("run")
    config = OmegaConf.load(path / "config.yaml")
    config.model.generator._target_ = "os.system"
    OmegaConf.save(config, path / "config.yaml")
    run = read_run(path, "run")
    assert run.parameters is None
    assert "would run os.system" in run.problems[0]


def test_metrics_of_evaluate(make_run: MakeRun) -> None:
    fake = {"checkpoint": "best.ckpt", "kimg": 4.0}
    metrics = [{"key": "fd_digits_4", "value": 0.5, "uncertainty": 0.1, "detail": {}}]
    new = read_run(
        make_run("new", evaluation=[{"protocol": "digits", "metrics": metrics, "fake": fake}]),
        "new",
    )
    (one,) = new.measured
    assert (one.protocol, one.key, one.value, one.uncertainty) == (
        "digits",
        "fd_digits_4",
        0.5,
        0.1,
    )
    assert one.checkpoint == "best at 4 kimg"
    path = make_run("broken")
    (path / "evaluation.json").write_text('[{"metrics": 3}]')
    broken = read_run(path, "broken")
    assert broken.measured == [] and "evaluation.json cannot be used" in broken.problems[0]


def test_only_differing_settings_are_shown(make_run: MakeRun) -> None:
    paths = [
        make_run("a", "seed=1", "loss=hinge"),
        make_run("b", "seed=2", "loss=hinge", "regularizer=[r1]"),
        make_run("c", "seed=1", "loss=nonsaturating"),
    ]
    (paths[2] / "metrics.jsonl").unlink()
    runs = [read_run(path, path.name) for path in paths]
    rows = dict(differing(runs))
    assert rows["seed"] == ["1", "2", "1"]
    assert rows["loss"] == ["Hinge", "Hinge", "NonSaturating"]
    assert rows["regularizer.r1"] == ["–", "R1", "–"]
    assert not any(key.startswith(("model.", "run_dir", "name")) for key in rows), "said once"
    runs[0].config = None
    assert dict(differing(runs))["seed"][0] == "?"
    assert differing(runs[:1]) == []


def test_the_main_metric_is_a_distance_that_most_runs_have(make_run: MakeRun) -> None:
    runs = [read_run(make_run(name), name) for name in ("a", "b")]
    keys = metric_keys(runs)
    assert keys[:2] == ["metrics/accuracy_digits", "metrics/fd_digits"]
    assert keys[2] == "metrics/fd_digits_real" and not any(k.startswith("time") for k in keys)
    assert main_metric(runs, keys) == "metrics/fd_digits"
    assert main_metric(runs, ["loss/d", "loss/g"]) in ("loss/d", "loss/g")
    assert main_metric(runs, []) is None


def test_thinning_keeps_ends_and_spikes() -> None:
    points = [(float(i), float(i), (i * 7919) % 13 / 13) for i in range(1000)]
    points[500] = (500.0, 500.0, 99.0)
    points[501] = (501.0, 501.0, -99.0)
    thin = thinned(points, 100)
    assert len(thin) <= 102 and set(thin) <= set(points) and thin == sorted(thin)
    assert {points[0], points[-1], points[500], points[501]} <= set(thin)
    assert thinned(points, 1000) == points


def test_advice_is_shown(tmp_path: Path) -> None:
    lines = [json.dumps({"kimg": float(i), "loss/d": 0.001}) for i in range(12)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    run = read_run(tmp_path, "mine")
    assert len(run.advice) == 1 and "D wins" in run.advice[0]
    assert page_data([run], [SampleGrid(origin="")], [], seed=0)["advice"] == [
        f"mine {run.advice[0]}"
    ]


@pytest.mark.parametrize("what", [os.mkfifo, Path.mkdir])
def test_an_unreadable_log_is_reported(make_run: MakeRun, what: Callable[[Path], object]) -> None:
    path = make_run("run")
    (path / "metrics.jsonl").unlink()
    what(path / "metrics.jsonl")
    run = read_run(path, "run")
    assert not run.entries and any("metrics.jsonl cannot be read" in one for one in run.problems)
    assert run.config is not None
