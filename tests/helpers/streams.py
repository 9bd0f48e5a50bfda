"""What data sets give: their items, and the batches that ranks and workers get of them."""

from types import SimpleNamespace

import torch
from torch import Tensor

from gan_lab.data.base import SampleDataset
from gan_lab.data.datamodule import DataModule


def content(data: SampleDataset) -> list[tuple[object, bytes]]:
    """Return labels and samples of all items."""
    batch = data.__getitems__(range(len(data)))
    assert batch.labels is not None
    return [
        (label, sample.numpy().tobytes())
        for label, sample in zip(batch.labels.tolist(), batch.real, strict=True)
    ]


def shown(
    data: SampleDataset, *, start: int, ranks: int, workers: int, images: int
) -> list[Tensor]:
    """Return the global batches of 12 samples, put together from those of all ranks."""
    module = DataModule(
        dataset=lambda split: data,
        batch_size=12,
        d_steps=1,
        total_images=images,
        seed=5,
        num_workers=workers,
    )
    parts = []
    for rank in range(ranks):
        trainer = SimpleNamespace(
            lightning_module=SimpleNamespace(images_seen=start),
            global_rank=rank,
            world_size=ranks,
            num_devices=ranks,
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        )
        module.trainer = trainer  # type: ignore[assignment]
        parts.append([batch.real for batch in module.train_dataloader()])
    return [torch.cat(batches) for batches in zip(*parts, strict=True)]
