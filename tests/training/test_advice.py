"""Each sign on a run with the fault, and none on healthy runs."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gan_lab.commands.launch import launch
from gan_lab.config import conf_dir
from gan_lab.training.advice import SIGNS, Adviser, advice, chosen_metric

BASE = (
    "model=gan", "model.generator.width=8", "model.discriminator.width=8", "batch_size=16", "data.image_size=8",
    "callbacks.training_log.every_kimg=0.032", "callbacks.samples.every_kimg=0.1", "callbacks.samples.columns=3",
    "callbacks.evaluation.every_kimg=0.1", "callbacks.checkpointing.every_kimg=5", "metrics=none", "trainer=cpu",
)  # fmt: skip


def jump(before: float, after: float) -> str:
    """A schedule that ruins a run in its middle."""
    target = "gan_lab.training.schedules.Steps"
    return f"{{_target_: {target}, values: [{before}, {after}], at_kimg: [0.4]}}"


D_LR, G_LR = "model.discriminator_optimizer.lr", "model.generator_optimizer.lr"
FAULTS: dict[str, tuple[str, ...]] = {
    # G stands still
    "d_wins": ("loss=hinge", f"{G_LR}=1e-8", f"{D_LR}=0.03", "total_kimg=1.2"),
    "d_collapses": ("regularizer=[weight_clipping]", "regularizer.weight_clipping.limit=1e-4"),
    "logits_drift": ("loss._target_=tests.helpers.faulty.Unanchored", f"{D_LR}=0.03", f"{G_LR}=1e-8"),
    "ada_saturates": (
        "augment=ada", "augment.ada.pipe=b", "augment.ada.speed_kimg=0.2", "loss=hinge", f"{G_LR}=1e-8", f"{D_LR}=0.02",
    ),
    "gradients_explode": (
        "loss=wasserstein", f"+model.schedules.discriminator.lr={jump(2e-4, 1)}",
    ),
    # its weights decay to nothing: all samples are gray
    "samples_collapse": (
        "conditional=false",
        f"+model.schedules.generator={{lr: {jump(2e-3, 0.1)}, weight_decay: {jump(0, 100)}}}",
    ),
    "metric_worsens": (
        "metrics=digits", "metrics.num_fake=400", f"{D_LR}=1e-2",
        f"+model.schedules.generator.lr={jump(1e-2, 1)}",
    ),
    "loader_is_slow": ("data._target_=tests.helpers.faulty.SlowDigits",),
}  # fmt: skip


def train(root: Path, *overrides: str) -> list[dict[str, Any]]:
    own = [*BASE, "total_kimg=0.8", f"runs_dir={root}", "name=run", *overrides]
    assert launch("train", own) == 0
    return [json.loads(line) for line in (root / "run" / "metrics.jsonl").read_text().splitlines()]


def test_each_sign_has_its_fault() -> None:
    assert set(FAULTS) == set(SIGNS)


@pytest.mark.parametrize("sign", list(FAULTS))
def test_a_run_with_the_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sign: str
) -> None:
    entries = train(tmp_path, *FAULTS[sign])
    found = {one.sign: one for one in advice(entries)}
    assert sign in found
    output = " ".join(capsys.readouterr().out.split())
    assert output.count(found[sign].text) == 1, "it is said once, with the run"
    assert any(character.isdigit() for character in found[sign].text)
    if sign == "metric_worsens":
        assert "best.ckpt" in found[sign].text


def test_a_run_without_one_and_one_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert advice(train(tmp_path)) == []
    overrides = FAULTS["d_collapses"]
    train(tmp_path, *overrides, "name=resumed")
    assert capsys.readouterr().out.count("D collapses") == 1
    train(tmp_path, *overrides, "name=resumed", "total_kimg=1.2")
    assert "D collapses" not in capsys.readouterr().out, "it was said when it began"
    train(tmp_path, *overrides, "name=quiet", "callbacks.training_log.advice=false")
    assert "D collapses" not in capsys.readouterr().out


def healthy() -> Iterator[dict[str, float]]:
    """A log as a run without faults has it."""
    for i in range(60):
        entry = {
            "kimg": float(i), "loss/d": 1.2, "logits/real": 0.6, "logits/fake": -0.6, "grad_norm/d": 1.0,
            "grad_norm/g": 0.1, "augment/ada_p": 0.3, "augment/ada_r": 0.6, "time/data_share": 0.05,
        }  # fmt: skip
        if not i % 5:
            entry |= {
                "health/diversity": min(0.1 + i / 30, 0.9),
                "metrics/fd_digits": 3 + 30 / (1 + i),
            }
        yield entry


def changed(change: Callable[[dict[str, float]], dict[str, float]]) -> list[str]:
    """The signs of a healthy log of which the second half is changed."""
    entries = [{**e, **change(e)} if i >= 30 else e for i, e in enumerate(healthy())]
    return [one.sign for one in advice(entries)]


def test_a_healthy_log_gets_no_advice() -> None:
    assert advice(healthy()) == []


def test_one_outlier_is_no_sign() -> None:
    spike = {"loss/d": 0.0, "grad_norm/g": 1e6, "logits/real": 1e4, "time/data_share": 0.9}
    assert changed(lambda e: spike if e["kimg"] == 40 else {}) == []


@pytest.mark.parametrize(
    ("change", "signs"),
    [
        ({"loss/d": 0.001}, ["d_wins"]),
        ({"loss/d": -30.0}, []),  # Wasserstein's
        ({"logits/real": 0.2, "logits/fake": 0.2}, ["d_collapses"]),
        ({"logits/real": -400.0, "logits/fake": -404.0}, ["logits_drift"]),
        ({"logits/real": 300.0, "logits/fake": -300.0}, []),
        ({"augment/ada_p": 0.9}, ["ada_saturates"]),
        ({"grad_norm/g": 2e3}, ["gradients_explode"]),
        ({"grad_norm/g": 2e2}, []),
        ({"time/data_share": 0.5}, ["loader_is_slow"]),
        ({"health/diversity": 0.3}, ["samples_collapse"]),
        ({"health/diversity": 0.5}, []),
    ],
)
def test_signs_of_numbers(change: dict[str, float], signs: list[str]) -> None:
    assert changed(lambda e: change) == signs


@pytest.mark.parametrize(
    ("diversities", "output"),
    [
        ([1.5, 0.2, 0.3, 0.35], False),  # noise of an untrained generator, then learning
        ([0.15, 0.15, 0.15, 0.15], False),  # not yet trained
        ([1.5, 0.2, 0.15, 0.1], True),
        ([0.1, 0.39, 0.34, 0.29], True),
    ],
)
def test_a_collapse_is_no_beginning(diversities: list[float], output: bool) -> None:
    entries = [{"kimg": 10.0 * i, "health/diversity": x} for i, x in enumerate(diversities)]
    assert [one.sign for one in advice(entries)] == (["samples_collapse"] if output else [])


def test_a_collapse_with_noisy_penalties_gets_advice_on_exact_ones() -> None:
    entries = [
        {"kimg": 10.0 * i, "health/diversity": x} for i, x in enumerate((0.9, 0.3, 0.3, 0.2))
    ]
    noisy = [{**entry, "reg/approximate_r1": 0.1} for entry in entries]
    (exact,), (approximate,) = advice(entries), advice(noisy)
    assert "regularizer=[r1,r2]" in str(approximate) and "regularizer=[r1,r2]" not in str(exact)


def test_metrics_that_worsen_and_those_that_waver() -> None:
    def worse(entry: dict[str, float]) -> dict[str, float]:
        return {"metrics/fd_digits": 9.0} if "metrics/fd_digits" in entry else {}

    assert changed(worse) == ["metric_worsens"]
    waver = {30.0: 9.0, 40.0: 3.1, 50.0: 9.0}
    assert (
        changed(lambda e: {"metrics/fd_digits": waver[e["kimg"]]} if e["kimg"] in waver else {})
        == []
    )


def test_the_metric_of_a_log() -> None:
    keys = ["kimg", "metrics/accuracy_digits", "metrics/fd_digits", "metrics/fd_digits_real"]
    assert chosen_metric(keys) == "metrics/fd_digits"
    assert chosen_metric(["loss/d"]) is None


def test_what_is_not_finite_is_passed_over() -> None:
    adviser = Adviser()
    assert adviser.see({"kimg": 1.0, "loss/d": float("nan")}) == []
    assert "loss/d" not in adviser.log.series


DIGITS = sorted(path.stem for path in (conf_dir() / "experiment" / "digits").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("model", DIGITS)
def test_digits_recipes_get_no_advice(tmp_path: Path, model: str) -> None:
    """Their first 20 kimg with enough grids and evaluations for all signs."""
    overrides = [
        f"experiment=digits/{model}", "total_kimg=20", "callbacks.training_log.every_kimg=1", "trainer=cpu",
        "callbacks.samples.every_kimg=4", "callbacks.evaluation.every_kimg=4", f"runs_dir={tmp_path}", "name=run",
        *(["model.schedules.generator.lr.end_kimg=60"] if model == "gat" else []),  # or it would end at 20
    ]  # fmt: skip
    assert launch("train", overrides) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [str(one) for one in advice(map(json.loads, lines))] == []
