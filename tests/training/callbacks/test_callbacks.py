"""What the callbacks measure and guard."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from gan_lab.distributed.ranks import RunningMeans
from gan_lab.errors import InputError
from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.training.callbacks.checkpointing import Checkpointing
from gan_lab.training.callbacks.samples import fixed_samples, mean_distance
from gan_lab.training.callbacks.training_log import (
    NonFiniteError,
    check_finite,
    check_finite_metrics,
    describe,
)
from tests.helpers.samples import images_of


def test_diversity_of_a_collapsed_generator_is_zero() -> None:
    same = torch.rand(1, 1, 4, 4).expand(10, -1, -1, -1)
    assert mean_distance([same]) == 0
    # two points: black and white, sixteen pixels apart by one each
    pair = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    assert mean_distance([pair]) == pytest.approx(4)
    # one image a class: what differs between classes does not count
    assert mean_distance([same, 1 - same]) == 0
    assert mean_distance([pair, same[:2]]) == pytest.approx(2)
    assert mean_distance([pair[:1]]) == 0


def test_a_row_a_class() -> None:
    class Painter(GeneratorNetwork):
        z_dim, num_classes = 2, 3

        def __init__(self) -> None:
            super().__init__()
            self.nothing = torch.nn.Parameter(torch.zeros(()))

        def forward(self, z: Tensor, labels: Tensor) -> Tensor:
            return (labels.float() - 1)[:, None, None, None].expand(-1, 1, 2, 2)

    module = SimpleNamespace(generator_ema=Painter())
    images = fixed_samples(module, images_of(2, classes=3), rows=10, columns=4, seed=0)  # type: ignore[arg-type]
    assert images[:, 0, 0, 0].tolist() == [0] * 4 + [128] * 4 + [255] * 4
    assert len(fixed_samples(module, images_of(2, classes=3), rows=2, columns=4, seed=0)) == 8  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_guard_names_what_is_not_finite(value: float) -> None:
    check_finite_metrics({"loss/d": 1e30, "loss/g": -1e30}, kimg=1)
    with pytest.raises(NonFiniteError, match=r"at 1.5 kimg: reg/r1 is"):
        check_finite_metrics({"loss/d": 1.0, "reg/r1": value}, kimg=1.5)


def test_nothing_is_made_of_weights_that_are_not_finite() -> None:
    network = torch.nn.Linear(2, 2)
    network.kimg, network.stats = 1, RunningMeans()  # type: ignore[assignment]
    network.synchronize = lambda: None  # type: ignore[assignment]
    check_finite(network)  # type: ignore[arg-type]
    with torch.no_grad():
        network.bias[1] = float("nan")
    with pytest.raises(NonFiniteError, match="the norm of bias is nan"):
        check_finite(network)  # type: ignore[arg-type]


def test_a_loss_that_is_not_finite_stops_before_the_next_entry() -> None:
    network = torch.nn.Linear(2, 2)
    network.kimg, network.stats = 1, RunningMeans()  # type: ignore[assignment]
    network.synchronize = lambda: None  # type: ignore[assignment]
    network.stats.add("loss/g", torch.tensor([1.0, float("nan")]))
    with pytest.raises(NonFiniteError, match="loss/g is nan"):
        check_finite(network)  # type: ignore[arg-type]


def test_a_metric_that_is_not_finite_is_never_the_best(tmp_path: Path) -> None:
    evaluation = SimpleNamespace(best=("metrics/x", False), values={})
    callback = Checkpointing(run_dir=tmp_path, every_kimg=1, evaluation=evaluation)  # type: ignore[arg-type]
    found = []
    for value in (2.0, float("nan"), 3.0, 1.0, float("-inf"), 1.5):
        evaluation.values["metrics/x"] = value
        found.append(callback._is_better(SimpleNamespace(kimg=1.0)))  # type: ignore[arg-type]
    assert found == [True, False, False, True, False, False]


def test_the_best_of_another_metric_does_not_count(tmp_path: Path) -> None:
    def with_metric(name: str) -> Checkpointing:
        evaluation = SimpleNamespace(best=(name, False), values={})
        return Checkpointing(run_dir=tmp_path, every_kimg=1, evaluation=evaluation)  # type: ignore[arg-type]

    saved = {"best_key": "metrics/x", "best_value": 0.5, "best_kimg": 3.0}
    same, other = with_metric("metrics/x"), with_metric("metrics/y")
    for callback in (same, other):
        callback.load_state_dict(saved)
    assert (same.best_value, other.best_value) == (0.5, None)


@pytest.mark.parametrize("minutes", [0, -1.0, float("nan"), float("inf")])
def test_minutes_that_are_no_time(tmp_path: Path, minutes: float) -> None:
    with pytest.raises(InputError, match=r"every_minutes=.* must be positive"):
        Checkpointing(run_dir=tmp_path, every_kimg=1, every_minutes=minutes)


def test_means_survive_a_save() -> None:
    straight, first, second = RunningMeans(), RunningMeans(), RunningMeans()
    values = [torch.rand(5) for _ in range(4)]
    for value in values:
        straight.add("x", value)
    for value in values[:2]:
        first.add("x", value)
    second.load_state_dict(first.state_dict())
    for value in values[2:]:
        second.add("x", value)
    means = straight.take()
    assert means == second.take() and means["x"] == pytest.approx(float(torch.cat(values).mean()))
    assert straight.take() == {}


def test_the_progress_line() -> None:
    metrics = {"loss/d": 0.5, "loss/g": 1.25, "logits/real": 3.0, "speed/img_per_s": 812.4}
    assert describe(metrics) == "812 img/s  d 0.500  g 1.250"
    assert describe({}) == ""
