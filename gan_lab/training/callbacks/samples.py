"""Grids of samples at fixed latents, with their diversity; and of an encoder's reconstructions, with its metrics."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from lightning import Callback, Trainer
from numpy.typing import NDArray
from torch import Tensor

from gan_lab.data.base import SampleDataset
from gan_lab.data.datamodule import DataModule
from gan_lab.data.images import save_png
from gan_lab.data.media import grid, sheet
from gan_lab.data.sample import Batch, SampleSpec
from gan_lab.errors import InputError
from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.metrics.functional import nearest
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.sampler import Sources
from gan_lab.training.callbacks.training_log import check_finite, check_interval, log
from gan_lab.training.loggers import run_loggers
from gan_lab.training.module import AdversarialModule


class SampleGrids(Callback):
    """Saves a grid of the moving average's images every `every_kimg`, at the start and at the end.

    Conditional models get a row for each of the first `rows` classes, others `rows` rows. The diversity of the grid is
    logged: the mean distance between two of its images, relative to that between real images. With classes, pairs are
    within a class. It is near 0 for a collapsed generator, or one that makes the same image of a class every time.

    Args:
        run_dir: the run folder; grids go to its `samples/`.
        every_kimg: thousands of images between two grids.
        rows: largest number of rows.
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
        """Save a grid of real images, and one of the untrained generator."""
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        kind = data.spec.kind
        real = data.real_grid(self.rows * self.columns)
        rows = rows_of_classes(module.generator_ema, data.spec, self.rows)
        compared = data.real_rows(rows, self.columns) if rows else [real]
        self._real_distance = mean_distance([data.spec.encode(row) for row in compared])
        save_png(grid(kind.preview(real), self.columns), self.folder / "reals.png")
        if module.images_seen == 0:
            self._save(trainer, module)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save a grid when due."""
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
        save_png(shown.image, self.folder / f"kimg{module.kimg:010.3f}.png")
        for logger in run_loggers(trainer):
            logger.log_sheet("samples", shown, module.kimg)
        if self._real_distance:
            encoded = data.spec.encode(samples)
            rows = rows_of_classes(module.generator_ema, data.spec, self.rows)
            compared = encoded.split(self.columns) if rows else [encoded]
            share = mean_distance(compared) / self._real_distance
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
    if classes := rows_of_classes(gan, spec, rows):
        rows = classes
        labels = torch.arange(rows).repeat_interleave(columns)
    return spec.decode(gan.sample(rows * columns, labels=labels, seed=seed))


def rows_of_classes(generator: Gan | GeneratorNetwork, spec: SampleSpec, rows: int) -> int:
    """Return how many rows of a grid show a class each; 0 without classes."""
    return min(rows, generator.num_classes) if spec.num_classes else 0


def mean_distance(groups: Sequence[Tensor]) -> float:
    """Return the mean L2 distance between two samples of the same group [N, ...]; 0 without pairs."""
    distances = torch.cat([torch.pdist(samples.flatten(1)) for samples in groups])
    return float(distances.mean()) if len(distances) else 0.0


BATCH_SIZE = 250


class EncodingGenerator(Protocol):
    """The interface of a generator with an encoder."""

    num_classes: int

    def encode(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] to codes [N, Z]."""

    def __call__(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map codes [N, Z] to images [N, C, H, W]."""


class Reconstructions(Callback):
    """Saves grids of images and their reconstructions by the moving average, and evaluates the encoder.

    In the grids, reconstructions are below their images. The images are from the validation split,
    or from training without one. Logged with each grid, in the units of images in [-1, 1]:

    - `encoder/error`: mean squared difference of a pixel between image and reconstruction;
    - `encoder/accuracy_codes`: share of the validation images whose class is that of the training image with the
      nearest code, as in section 4.2 of Donahue et al. 2017, https://arxiv.org/abs/1605.09782;
    - `encoder/accuracy_pixels`: the same with pixels instead of codes, independent of training.

    The accuracies need a validation split and at least two classes. A conditional generator needs the labels for
    reconstruction, too; codes may then not contain the class.

    Args:
        run_dir: the run folder; grids go to its `samples/`.
        every_kimg: thousands of images between two grids.
        rows: of the grid, reconstructions included; an even number.
        columns: of the grid.
        max_images: maximum number of images of each split for the metrics.

    Raises:
        InputError: for an invalid grid, and, before the first step, for a generator without an encoder.
    """

    def __init__(
        self,
        *,
        run_dir: str | Path,
        every_kimg: float,
        rows: int = 10,
        columns: int = 10,
        max_images: int = 10000,
    ) -> None:
        check_interval("reconstructions", every_kimg)
        if rows < 2 or rows % 2 or columns < 1 or max_images < 2:
            raise InputError(
                f"callbacks.reconstructions: rows={rows} must be even, columns={columns} at least 1 and "
                f"max_images={max_images} at least 2"
            )
        self.folder = Path(run_dir) / "samples"
        self.every_kimg = every_kimg
        self.rows = rows
        self.columns = columns
        self.max_images = max_images
        self._accuracy_pixels: float | None = None

    def on_fit_start(self, trainer: Trainer, module: AdversarialModule) -> None:  # type: ignore[override]
        """Check that the generator has an encoder."""
        encoding(module)

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, module: AdversarialModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save a grid and evaluate when due."""
        if not module.due(self.every_kimg):
            return
        check_finite(module)
        if not trainer.is_global_zero:
            return
        data: DataModule = trainer.datamodule  # type: ignore[attr-defined]
        self._save(trainer, module, data)
        log(trainer, module, self.measure(module, data))

    def measure(self, module: AdversarialModule, data: DataModule) -> dict[str, float]:
        """Return the metrics of the encoder."""
        held_out = data.val or data.train
        codes, errors = self._encode(module, held_out)
        metrics = {"encoder/error": errors.double().mean().item()}
        if data.val is None or data.train.num_classes < 2:
            return metrics
        known, _ = self._encode(module, data.train)
        metrics["encoder/accuracy_codes"] = self._accuracy(known, codes, data)
        if self._accuracy_pixels is None:
            train, val = (
                torch.cat([batch.real.flatten(1).float() for batch in self._batches(split)])
                for split in (data.train, data.val)
            )
            self._accuracy_pixels = self._accuracy(train, val, data)
        metrics["encoder/accuracy_pixels"] = self._accuracy_pixels
        return metrics

    def _accuracy(self, known: Tensor, queries: Tensor, data: DataModule) -> float:
        """Return the accuracy of a nearest-neighbor classifier from `known` [N, D] to `queries` [M, D]."""
        assert data.val is not None
        train, val = (self._chosen(split) for split in (data.train, data.val))
        _, indices = nearest(queries, known)
        found = data.train.labels[train][indices.cpu().numpy()]
        return float((found == data.val.labels[val]).mean())

    @torch.no_grad()
    def _encode(self, module: AdversarialModule, split: SampleDataset) -> tuple[Tensor, Tensor]:
        """Return codes [N, Z] and squared errors [N] of the images of a split."""
        codes, errors = [], []
        for batch in self._batches(split):
            real = split.spec.encode(batch.real.to(module.device))
            made, code = reconstruct(module, real, batch.labels)
            codes.append(code.float())
            errors.append((made - real).square().flatten(1).mean(1))
        return torch.cat(codes), torch.cat(errors)

    def _batches(self, split: SampleDataset) -> Iterator[Batch]:
        """Yield stored samples of a split, at most `max_images` and none mirrored."""
        chosen = self._chosen(split)
        for start in range(0, len(chosen), BATCH_SIZE):
            yield split.__getitems__(chosen[start : start + BATCH_SIZE].tolist())

    def _chosen(self, split: SampleDataset) -> NDArray[np.int64]:
        return in_turn(split.labels)[: self.max_images]

    def _save(self, trainer: Trainer, module: AdversarialModule, data: DataModule) -> None:
        split = data.val or data.train
        chosen = in_turn(split.labels)[: self.rows // 2 * self.columns]
        batch = split.__getitems__(chosen.tolist())
        spec = split.spec
        with torch.no_grad():
            made, _ = reconstruct(module, spec.encode(batch.real.to(module.device)), batch.labels)
        remade = spec.decode(made).cpu()
        rows = zip(batch.real.split(self.columns), remade.split(self.columns), strict=True)
        shown = sheet(spec.kind, torch.cat([row for pair in rows for row in pair]), self.columns)
        save_png(shown.image, self.folder / f"reconstructions_kimg{module.kimg:010.3f}.png")
        for logger in run_loggers(trainer):
            logger.log_sheet("reconstructions", shown, module.kimg)


def reconstruct(
    module: AdversarialModule, images: Tensor, labels: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return reconstructions [N, C, H, W] and codes [N, Z] of images by the moving average."""
    generator = encoding(module)
    codes = generator.encode(images)
    given = labels.to(images.device) if labels is not None and generator.num_classes else None
    return generator(codes, given), codes


def encoding(module: AdversarialModule) -> EncodingGenerator:
    """Return the moving average as a generator with an encoder.

    Raises:
        InputError: when it has none.
    """
    generator = module.generator_ema
    if not hasattr(generator, "encode"):
        raise InputError(
            f"callbacks.reconstructions needs a generator with an encoder, which {type(module).__name__} has not; "
            "use model=bigan, or remove the callback with ~callbacks.reconstructions"
        )
    return cast(EncodingGenerator, generator)


def in_turn(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Order items so that classes take turns: the first of each, then the second of each, ..."""
    by_class = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[by_class], labels[by_class])
    rank = np.empty(len(labels), dtype=np.int64)
    rank[by_class] = np.arange(len(labels)) - starts
    return np.lexsort((labels, rank))
