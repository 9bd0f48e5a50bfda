"""LeCam's averages and penalty against manual computation."""

import pytest
import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorNetwork
from gan_lab.training.regularizers import LeCam
from gan_lab.training.steps import DiscriminatorStep
from tests.commands.conftest import ELSE, Train, train
from tests.helpers.steps import discriminator_step

__all__ = ["train"]


class Given(DiscriminatorNetwork):
    """D(x) = x."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return images


def step_of(real: Tensor, fake: Tensor) -> DiscriminatorStep:
    return discriminator_step(Given(), real, fake)


def test_the_penalty_measures_the_distance_to_the_other_side() -> None:
    lecam = LeCam(weight=1, start=1)
    first = lecam(step_of(torch.tensor([2.0, 4.0]), torch.tensor([-1.0, -3.0])))
    assert first.tolist() == [0, 0]
    lecam.after_step(Given())
    assert (float(lecam.real), float(lecam.fake)) == (3, -2)
    real, fake = torch.tensor([0.0, 1.0], requires_grad=True), torch.tensor([1.0, 5.0])
    penalty = lecam(step_of(real, fake))
    assert penalty.tolist() == [(0 + 2) ** 2 + (1 - 3) ** 2, (1 + 2) ** 2 + (5 - 3) ** 2]
    penalty.sum().backward()
    assert real.grad is not None and real.grad.tolist() == [2 * 2, 2 * 3]


def test_the_averages_follow_at_the_rate_of_the_decay() -> None:
    lecam = LeCam(weight=1, decay=0.75, start=1)
    for value in (4.0, 0.0, 0.0):
        lecam(step_of(torch.tensor([value]), torch.tensor([-value])))
        lecam.after_step(Given())
    assert float(lecam.real) == pytest.approx(4 * 0.75**2)
    assert float(lecam.fake) == pytest.approx(-4 * 0.75**2)


def test_nothing_before_the_start() -> None:
    lecam = LeCam(weight=1, start=3)
    sums = []
    for _ in range(5):
        sums.append(float(lecam(step_of(torch.ones(2), torch.zeros(2))).sum()))
        lecam.after_step(Given())
    assert sums == [0, 0, 0, 4, 4]


def test_micro_batches_are_one_step() -> None:
    whole, parts = LeCam(weight=1, start=1), LeCam(weight=1, start=1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        real, fake = torch.randn(2, 8, generator=generator)
        ours = whole(step_of(real, fake))
        theirs = [parts(step_of(r, f)) for r, f in zip(real.split(2), fake.split(2), strict=True)]
        torch.testing.assert_close(ours, torch.cat(theirs))
        whole.after_step(Given())
        parts.after_step(Given())
        parts.after_step(Given())  # after the step of a lazy penalty, which adds nothing
    assert int(parts.num_averaged) == 3
    torch.testing.assert_close(whole.real, parts.real)


def test_averages_are_saved() -> None:
    assert set(LeCam(weight=1).state_dict()) == {"real", "fake", "num_averaged"}


def test_settings_out_of_range() -> None:
    with pytest.raises(InputError, match="decay=1"):
        LeCam(weight=1, decay=1)
    with pytest.raises(InputError, match="start=0"):
        LeCam(weight=1, start=0)


def test_a_resumed_run_keeps_its_averages(train: Train) -> None:
    overrides = (
        "regularizer=[lecam,top_k]",
        "regularizer.lecam.start=3",
        "model.schedules.top_k.share.end_kimg=0.4",
    )
    straight = train(*overrides, "total_kimg=0.4", name="straight", base=ELSE)
    train(*overrides, "total_kimg=0.2", name="stopped", base=ELSE)
    stopped = train(*overrides, "total_kimg=0.4", name="stopped", base=ELSE)
    ours, theirs = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in (stopped, straight)
    )
    assert int(theirs["regularizers.lecam.num_averaged"]) == 25
    assert float(theirs["regularizers.lecam.real"]) != float(theirs["regularizers.lecam.fake"])
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
