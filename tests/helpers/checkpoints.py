"""Checkpoints of finished runs, and whether two are the same."""

from pathlib import Path

import torch

from gan_lab.commands.launch import launch


def final(run: Path) -> dict[str, object]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same(ours: object, theirs: object, path: str = "") -> None:
    if isinstance(theirs, dict):
        assert isinstance(ours, dict) and ours.keys() == theirs.keys(), path
        for key, value in theirs.items():
            assert_same(ours[key], value, f"{path}/{key}")
    elif isinstance(theirs, list | tuple):
        assert isinstance(ours, list | tuple) and len(ours) == len(theirs), path
        for i, value in enumerate(theirs):
            assert_same(ours[i], value, f"{path}/{i}")
    elif isinstance(theirs, torch.Tensor):
        assert isinstance(ours, torch.Tensor) and torch.equal(ours, theirs), path
    else:
        assert ours == theirs, path


def check_resume(root: Path, *overrides: str, half: float, total: float) -> None:
    """Train a run in two parts and one in one, and check that their final weights are equal."""
    common = [*overrides, f"runs_dir={root}"]
    assert launch("train", [*common, "name=halted", f"total_kimg={half}"]) == 0
    for name in ("halted", "straight"):
        assert launch("train", [*common, f"name={name}", f"total_kimg={total}"]) == 0
    assert_same(final(root / "halted")["state_dict"], final(root / "straight")["state_dict"])
