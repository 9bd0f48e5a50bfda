"""The torchmetrics classes are the pure functions, over batches, and forget when they are reset."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gan_lab import metrics
from gan_lab.commands.launch import launch
from gan_lab.errors import InputError
from gan_lab.metrics import torchmetrics
from tests.commands.conftest import TINY
from tests.helpers.features import as_set, context


@pytest.fixture
def sets() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(200, 16, generator=generator) + 50 for _ in range(2))
    return real, 1.2 * fake - 10


def fed(metric, sets: tuple[Tensor, Tensor]):
    for features, real in zip(sets, (True, False), strict=True):
        for part in features.split(70):
            metric.update(part, real=real)
    return metric


def test_the_frechet_distance_goes_by_sums(sets: tuple[Tensor, Tensor]) -> None:
    metric = fed(torchmetrics.FrechetDistance(width=16), sets)
    expected = metrics.frechet_distance(*sets).item()
    assert metric.compute().item() == pytest.approx(expected, rel=1e-9)
    metric.reset()
    assert fed(metric, sets).compute().item() == pytest.approx(expected, rel=1e-9)


def test_pairs(sets: tuple[Tensor, Tensor]) -> None:
    for metric, expected in (
        (torchmetrics.PrecisionRecall(k=4), metrics.precision_recall(*sets, k=4)),
        (torchmetrics.DensityCoverage(), metrics.density_coverage(*sets)),
        (
            torchmetrics.KernelDistance(subsets=5, subset_size=50),
            metrics.kernel_distance(*sets, subsets=5, subset_size=50),
        ),
    ):
        assert torch.equal(torch.stack(fed(metric, sets).compute()), torch.stack(expected))


def test_the_score(sets: tuple[Tensor, Tensor]) -> None:
    metric = torchmetrics.InceptionScore(splits=4)
    for part in sets[0].split(33):
        metric.update(part)
    assert metric.compute() == metrics.inception_score(sets[0], splits=4)


def test_a_metric_is_a_metric_of_training_and_of_evaluate(tmp_path: Path) -> None:
    """Added to what a run measures, under keys of the user's choice."""
    package = "gan_lab.metrics.torchmetrics"
    overrides = [*TINY, f"runs_dir={tmp_path}", "name=run", "total_kimg=0.2"]
    overrides += [f"+metrics.digits.metrics.mine._target_={package}.TorchMetric"]
    overrides += [f"+metrics.digits.metrics.mine.metric._target_={package}.FrechetDistance"]
    overrides += [
        "+metrics.digits.metrics.mine.metric.width=64",
        "+metrics.digits.metrics.mine.keys=[mine]",
    ]
    assert launch("train", overrides) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    (logged,) = [entry for entry in map(json.loads, lines) if "metrics/mine" in entry]
    assert logged["metrics/mine"] == pytest.approx(logged["metrics/fd_digits"], rel=1e-6)
    out = tmp_path / "all.json"
    assert launch("evaluate", [f"run={tmp_path}/run", "checkpoint=last", f"out={out}"]) == 0
    (result,) = json.loads(out.read_text())
    (mine,) = [metric for metric in result["metrics"] if metric["key"] == "mine"]
    assert mine["value"] == pytest.approx(logged["metrics/mine"], rel=1e-9)
    assert result["settings"]["metrics"]["mine"]["metric"] == f"{package}.FrechetDistance"


def test_several_values_have_several_keys(sets: tuple[Tensor, Tensor]) -> None:
    made = [as_set(features) for features in sets]
    metric = torchmetrics.TorchMetric(metric=torchmetrics.PrecisionRecall(k=4), keys=["a", "b"])
    found = {result.key: result.value for result in metric.compute(made[0], made[1], context())}
    expected = metrics.precision_recall(*sets, k=4)
    assert found == {"a": expected[0].item(), "b": expected[1].item()}
    one = torchmetrics.TorchMetric(metric=torchmetrics.PrecisionRecall(k=4), keys=["a"])
    with pytest.raises(InputError, match="computes 2 values"):
        one.compute(made[0], made[1], context())
    with pytest.raises(InputError, match="Linear with keys"):
        torchmetrics.TorchMetric(metric=torch.nn.Linear(1, 1), keys=["a"])  # type: ignore[arg-type]
