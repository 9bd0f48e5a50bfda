"""A callback that fails on one rank of a job."""

from typing import Any

from lightning import Callback, Trainer


class Failing(Callback):
    """Raises on rank 1, some steps into a run."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_rank == 1 and trainer.lightning_module.kimg > 0.1:
            raise RuntimeError("rank 1 has had enough")
