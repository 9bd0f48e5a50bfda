"""Beginning from another run's networks."""

from pathlib import Path

from torch import nn

from gan_lab.checkpoint import checkpoint_path, read
from gan_lab.console import say
from gan_lab.errors import InputError


def transfer(module: nn.Module, source: Path) -> None:
    """Copy the weights whose name and shape fit; optimizers, clock and random numbers begin anew.

    Args:
        module: whose networks are filled.
        source: a run folder or a checkpoint.

    Raises:
        InputError: when nothing fits.
    """
    path = checkpoint_path(source)
    theirs = read(path)["state_dict"]
    ours = module.state_dict()
    kept = {
        name: theirs[name]
        for name in ours
        if name in theirs and theirs[name].shape == ours[name].shape
    }
    if not kept:
        raise InputError(
            f"init_from={source}: none of its weights fits this model; give a run of the same model"
        )
    fresh = [name for name in ours if name not in kept]
    module.load_state_dict({**ours, **kept})
    say(
        f"init_from {path}: {len(kept)} tensors kept, {len(fresh)} fresh{': ' if fresh else ''}{', '.join(fresh[:10])}"
    )
