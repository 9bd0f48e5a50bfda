"""Grids of samples at fixed latents, and how different the samples are."""

from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from gan_lab.data.images import save_png
from gan_lab.data.media import grid, sheet
from gan_lab.data.sample import SampleSpec
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.sampler import Sources
from gan_lab.training.callbacks.training_log import check_finite, check_interval, log
from gan_lab.training.module import AdversarialModule


class Samples(Callback):
    """Saves a grid of the moving average's images every `every_kimg`, at the start and at the end.

    Conditional models get a row for each class (of the first `rows`), others `rows` rows. The diversity of the grid's
    images is logged: the mean distance between two of them, as a share of that between real images. A collapsed
    generator's goes to 0.

    Args:
        run_dir: the run folder; grids go to its `samples/`.
        every_kimg: thousands of images between two grids.
        rows: of the grid, at most.
        columns: of the grid.
        seed: of the latents.
    """

    def __init__(
        self,
        *,
        run_dir: str | Path,
        every_kimg: float,
        rows: int = 10,
        columns: int = 10,
        seed: int = 0,
    ) -> None:
        check_interval("samples", every_kimg)
        self.folder = Path(run_dir) / "samples"
        self.every_kimg = every_kimg
        self.rows = rows
        self.columns = columns
        self.seed = seed
        self._real_distance: float | None = None

    def on_train_start(self, trainer: Trainer, module: AdversarialModule) -> None:  # type: ignore[override]
        """Save a grid of real images, and one of what the untrained generator makes."""
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        kind = data.spec.kind
        real = data.real_grid(self.rows * self.columns)
        self._real_distance = mean_distance(data.spec.encode(real))
        save_png(grid(kind.preview(real), self.columns), self.folder / "reals.png")
        if module.images_seen == 0:
            self._save(trainer, module)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save a grid when it is time."""
        if not module.due(self.every_kimg):
            return
        check_finite(module)
        if trainer.is_global_zero:
            self._save(trainer, module)

    def _save(self, trainer: Trainer, module: AdversarialModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        samples = fixed_samples(
            module,
            data.spec,
            rows=self.rows,
            columns=self.columns,
            seed=self.seed,
            sources=data.sources,
        )
        kind = data.spec.kind
        shown = sheet(kind, samples, self.columns)
        save_png(shown.picture, self.folder / f"kimg{module.kimg:010.3f}.png")
        for logger in trainer.loggers:
            logger.log_sheet("samples", shown, module.kimg)  # type: ignore[attr-defined]
        if self._real_distance:
            share = mean_distance(data.spec.encode(samples)) / self._real_distance
            log(trainer, module, {"health/diversity": share})


def fixed_samples(
    module: AdversarialModule,
    spec: SampleSpec,
    *,
    rows: int,
    columns: int,
    seed: int,
    sources: Sources | None = None,
) -> Tensor:
    """Draw samples [rows * columns, ...], stored, with the moving average; class by class where it has classes."""
    gan = Gan(module.generator_ema, spec=spec, sources=sources)
    labels = None
    if spec.num_classes and gan.num_classes:
        rows = min(rows, gan.num_classes)
        labels = torch.arange(rows).repeat_interleave(columns)
    return spec.decode(gan.sample(rows * columns, labels=labels, seed=seed))


def mean_distance(samples: Tensor) -> float:
    """Return the mean L2 distance between two of the samples [N, ...]."""
    return float(torch.pdist(samples.flatten(1)).mean())
