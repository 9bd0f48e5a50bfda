"""A data module and a trainer that it can be attached to."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch

from gan_lab.data.builtin import Digits
from gan_lab.data.datamodule import DataModule


def module(**options: Any) -> DataModule:
    defaults: dict = {"dataset": partial(Digits, image_size=8), "batch_size": 8, "d_steps": 1}
    return DataModule(**{**defaults, "total_images": 80, "seed": 0, **options})


def attach(data: DataModule, *, seen: int = 0, rank: int = 0, world_size: int = 1) -> None:
    """Give the datamodule the part of a trainer that it reads."""
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        lightning_module=SimpleNamespace(images_seen=torch.tensor(seen)),
        global_rank=rank,
        world_size=world_size,
        num_devices=1,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
