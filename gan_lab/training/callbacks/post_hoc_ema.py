"""Saves averages from which post-hoc averages of any length are computed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from gan_lab.console import warn
from gan_lab.errors import InputError
from gan_lab.training.callbacks.training_log import check_interval
from gan_lab.training.checkpoint import AtomicCheckpointIO
from gan_lab.training.ema import (
    FOLDER,
    LENGTHS,
    SUFFIX,
    Snapshot,
    decay,
    exponent,
    snapshot_kimg,
    snapshot_path,
)
from gan_lab.training.module import AdversarialModule


class PostHocAverages(Callback):
    """Updates two power function averages of the generator, saved in checkpoints and snapshots.

    It costs two more copies of G in memory, in each checkpoint and in each snapshot, and two passes over G's weights a
    step. The average for samples during training is not affected.

    Args:
        run_dir: the run folder; snapshots go to its `ema/`.
        every_kimg: thousands of images between two snapshots.
        lengths: sigma_rel of the averages, two or more; see `gan_lab.training.ema`.

    Raises:
        InputError: for invalid lengths.
    """

    def __init__(
        self, *, run_dir: str | Path, every_kimg: float, lengths: Sequence[float] = LENGTHS
    ) -> None:
        check_interval("post_hoc_ema", every_kimg)
        if len(set(lengths)) < 2:
            raise InputError(f"callbacks.post_hoc_ema.lengths={list(lengths)}: give two or more")
        self.run_dir = Path(run_dir)
        self.every_kimg = every_kimg
        self._gammas = {float(length): exponent(length) for length in lengths}
        self._averages: dict[float, dict[str, Tensor]] = {}
        self._buffers: dict[str, Tensor] = {}
        self._images_seen = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the averages so far."""
        return Snapshot(self._images_seen, self._averages, self._buffers).as_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`; averages of other lengths start again."""
        found = Snapshot.of(state_dict)
        if set(found.averages) == set(self._gammas):
            self._images_seen = found.images_seen
            self._averages = {length: dict(kept) for length, kept in found.averages.items()}

    def on_train_start(self, trainer: Trainer, module: AdversarialModule) -> None:  # type: ignore[override]
        """Start or resume the averages; delete snapshots after the checkpoint."""
        weights = averaged(module)
        if self._images_seen != module.images_seen or not self._averages:
            if module.images_seen:
                warn(
                    f"averages of any length begin at {module.kimg:g} kimg: long ones hold too much of the weights "
                    "of then"
                )
            self._averages = {
                length: {name: value.detach().clone() for name, value in weights.items()}
                for length in self._gammas
            }
        for kept in self._averages.values():
            for name, value in weights.items():
                kept[name] = kept[name].to(value.device)
        if trainer.is_global_zero:
            for path in (self.run_dir / FOLDER).glob(f"kimg*{SUFFIX}"):
                if snapshot_kimg(path) > module.kimg:
                    path.unlink()
        self._images_seen = module.images_seen

    @torch.no_grad()
    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the averages, and save a snapshot when due."""
        weights = averaged(module)
        shown = module.images_seen - self._images_seen
        self._images_seen = module.images_seen
        for length, gamma in self._gammas.items():
            kept = self._averages[length]
            share = 1 - decay(gamma, images_seen=module.images_seen, images=shown)
            torch._foreach_lerp_([kept[name] for name in weights], list(weights.values()), share)
        self._buffers = {
            name: value
            for name, value in module.generator_ema.state_dict().items()
            if name not in weights
        }
        if trainer.is_global_zero and module.due(self.every_kimg):
            state = {"state_dict": self.state_dict(), "clock": {"images_seen": self._images_seen}}
            AtomicCheckpointIO().save_checkpoint(state, snapshot_path(self.run_dir, module.kimg))


def averaged(module: AdversarialModule) -> dict[str, Tensor]:
    """Return the averaged tensors of the generator: parameters, and statistics if its own average has them."""
    found: dict[str, Tensor] = dict(module.generator.named_parameters())
    if module.ema.buffers == "average":
        floats = ((n, b) for n, b in module.generator.named_buffers() if b.is_floating_point())
        found |= {n: b for n, b in floats if n in module.generator.state_dict()}
    return {name: value.detach() for name, value in found.items()}
