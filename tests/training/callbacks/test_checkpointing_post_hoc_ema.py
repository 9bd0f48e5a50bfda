"""Saved averages equal the direct average of a run, uninterrupted and resumed."""

from pathlib import Path
from typing import Any

import pytest
import torch

import gan_lab
from gan_lab.commands.launch import launch
from gan_lab.errors import InputError
from gan_lab.training.callbacks.checkpointing import PostHocAverages
from gan_lab.training.ema import decay, exponent
from tests.commands.conftest import ELSE

KEEP = ("callbacks=[default,post_hoc_ema]", "callbacks.post_hoc_ema.every_kimg=0.1")


def train(root: Path, name: str, kimg: float, *overrides: str) -> Path:
    own = [*ELSE, *KEEP, f"runs_dir={root}", f"name={name}", f"total_kimg={kimg}", *overrides]
    assert launch("train", own) == 0
    return root / name


def state_of(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def test_resumed_it_is_the_straight_one(tmp_path: Path) -> None:
    straight = train(tmp_path, "straight", 0.48)
    train(tmp_path, "halted", 0.208)
    halted = train(tmp_path, "halted", 0.48)
    one, other = (state_of(run)["callbacks"]["PostHocAverages"] for run in (straight, halted))
    assert one["images_seen"] == other["images_seen"] == 480
    for length, kept in one["averages"].items():
        assert all(torch.equal(value, other["averages"][length][n]) for n, value in kept.items())
    names = [sorted(path.name for path in (run / "ema").iterdir()) for run in (straight, halted)]
    assert names[0] == names[1] and len(names[0]) == 5
    for name in names[0]:
        a, b = (torch.load(run / "ema" / name, weights_only=True) for run in (straight, halted))
        for length, kept in a["state_dict"]["averages"].items():
            theirs = b["state_dict"]["averages"][length]
            assert all(torch.equal(value, theirs[n]) for n, value in kept.items())


def test_any_length_is_near_the_direct_average_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights after each step are caught, and averaged directly."""
    direct: dict[str, torch.Tensor] = {}
    gamma, catch = exponent(0.07), PostHocAverages.on_train_batch_end

    def caught(self: Any, trainer: Any, module: Any, *rest: Any) -> None:
        share = 1 - decay(gamma, images_seen=module.images_seen, images=16)
        for name, value in module.generator.named_parameters():
            direct.setdefault(name, torch.zeros_like(value)).lerp_(value.detach(), share)
        catch(self, trainer, module, *rest)

    monkeypatch.setattr(PostHocAverages, "on_train_batch_end", caught)
    run = train(tmp_path, "run", 1.6)
    made = gan_lab.load(run, ema=0.07).generator.state_dict()
    raw = gan_lab.load(run, weights="raw").generator.state_dict()
    for name, value in direct.items():
        apart = (raw[name] - value).norm()
        assert (made[name] - value).norm() < 0.05 * apart, name
    with pytest.raises(InputError, match="give one of them"):
        gan_lab.load(run, ema=0.07, weights="raw")


def test_a_run_that_kept_none(tmp_path: Path) -> None:
    assert launch("train", [*ELSE, f"runs_dir={tmp_path}", "name=run", "total_kimg=0.1"]) == 0
    with pytest.raises(InputError, match="callbacks="):
        gan_lab.load(tmp_path / "run", ema=0.05)


def test_batch_norm_and_styles(tmp_path: Path) -> None:
    for model, overrides in (
        (
            "dcgan",
            ("model.generator.width=4", "model.discriminator.width=4", "model.ema.buffers=average"),
        ),
        ("sngan", ("model.generator.width=4", "model.discriminator.width=4")),
    ):
        run = train(tmp_path, model, 0.16, f"model={model}", *overrides)
        images = gan_lab.load(run, ema=0.15).sample(4)
        assert images.isfinite().all() and images.std() > 0
