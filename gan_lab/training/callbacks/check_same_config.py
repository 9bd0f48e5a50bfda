"""Check that all processes train the same run."""

import hashlib
import json
from typing import Any

from lightning import Callback, Trainer
from omegaconf import DictConfig, OmegaConf
from torch.distributed import all_gather_object

from gan_lab.config import flatten
from gan_lab.errors import InputError
from gan_lab.layers.collectives import several_ranks
from gan_lab.training.module import AdversarialModule


class CheckSameConfig(Callback):
    """Check that all processes have the same configuration and begin at the same point of the run.

    A launcher that composes the configuration anew on each rank (a sweep, for one) may give each another one, and
    gradients of different models would be averaged.

    Args:
        config: of this process, resolved.
    """

    def __init__(self, *, config: DictConfig) -> None:
        container = OmegaConf.to_container(config)
        assert isinstance(container, dict)
        self._flat = {str(key): value for key, value in flatten(container).items()}

    @property
    def digest(self) -> str:
        """SHA-256 of the configuration."""
        text = json.dumps(self._flat, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def on_train_start(self, trainer: Trainer, module: AdversarialModule) -> None:  # type: ignore[override]
        """Compare with the other processes, before the first step.

        Raises:
            InputError: naming the keys that differ.
        """
        if not several_ranks():
            return
        everywhere: list[Any] = [None] * trainer.world_size
        all_gather_object(everywhere, (self.digest, module.images_seen))
        if len(set(everywhere)) == 1:
            return
        all_gather_object(everywhere, (self._flat, module.images_seen))
        first, seen = everywhere[0]
        for rank, (other, others_seen) in enumerate(everywhere):
            keys = [k for k in {**first, **other} if first.get(k) != other.get(k)]
            if keys or others_seen != seen:
                what = f"{keys[0]} is {first.get(keys[0])} and {other.get(keys[0])}" if keys else ""
                where = (
                    "" if seen == others_seen else f"they are at {seen} and {others_seen} images"
                )
                raise InputError(
                    f"processes 0 and {rank} are not the same run: {what or where}; start all of them by one command"
                )
