"""Drawing images from a trained generator, the same ones whatever the batch size."""

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Protocol, cast

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.layers.mapping import Mapping
from gan_lab.layers.standing import standing_statistics
from gan_lab.models.networks import GeneratorNetwork
from gan_lab.seeding import derive_seed

# Matrix products of another height add in another order, and the last bits of an image with them: every forward pass
# therefore has exactly this many images, whatever batch size is asked for.
IMAGES_PER_FORWARD = 16
IMAGES_PER_STATISTIC = 64  # of a batch that standing statistics are the mean over


class StyleGenerator(Protocol):
    """A generator whose images depend on styles w, which can be drawn towards their mean."""

    def __call__(self, z: Tensor, labels: Tensor | None, truncation: float) -> Tensor:
        """Map z [N, Z] to images [N, C, H, W]."""


class Gan:
    """A trained generator to draw images from.

    Image `i` of a seed depends on (seed, i, label, truncation) alone.

    Truncation trades variety for quality. Of generators with styles (StyleGAN to StyleGAN3) it is psi: w' = mean +
    psi (w - mean); 1 changes nothing, 0 gives the mean image (Karras et al. 2019, appendix B,
    https://arxiv.org/abs/1812.04948). Of all others it is a threshold: components of z beyond it are drawn again
    (Brock et al. 2019, section 3.1, https://arxiv.org/abs/1809.11096; they use 0.04 to 2).

    Attributes:
        generator: in evaluation mode.
        kimg: how long it was trained, in thousands of real images.

    Args:
        generator: `(z, labels) -> images`, with `latent_dim` and `num_classes`.
        class_counts: images of each class in the training data: the distribution of labels that are not given.
        class_names: of the labels.
        kimg: how long it was trained.
    """

    def __init__(
        self,
        generator: GeneratorNetwork,
        *,
        class_counts: Sequence[int] = (),
        class_names: Sequence[str] = (),
        kimg: float = 0.0,
    ) -> None:
        self.generator = generator
        self.class_names = list(class_names)
        self.class_counts = list(class_counts)
        self.kimg = kimg

    @property
    def num_classes(self) -> int:
        """Number of classes that labels choose from, 0 for an unconditional generator."""
        return self.generator.num_classes

    @property
    def device(self) -> torch.device:
        """Where images are computed."""
        return next(self.generator.parameters()).device

    @property
    def has_styles(self) -> bool:
        """Whether truncation acts on styles w and not on z."""
        return any(isinstance(part, Mapping) for part in self.generator.children())

    def latents(
        self,
        num_images: int,
        *,
        seed: int = 0,
        start: int = 0,
        truncation: float | None = None,
    ) -> Tensor:
        """Return the latents [N, Z] of images `start` to `start + num_images` of a seed.

        Args:
            num_images: how many.
            seed: of all.
            start: index of the first.
            truncation: threshold beyond which components are drawn again; None for none. Not psi.
        """
        dim = self.generator.latent_dim
        rows = []
        for i in range(start, start + num_images):
            generator = torch.Generator().manual_seed(derive_seed(seed, i))
            z = torch.randn(dim, generator=generator)
            if truncation is not None:
                shares = torch.rand(dim, generator=generator, dtype=torch.float64)
                z = redrawn(z, shares, truncation)
            rows.append(z)
        return torch.stack(rows)

    def labels(self, num_images: int, *, seed: int = 0, start: int = 0) -> Tensor | None:
        """Draw labels [N] from the distribution of the training data; None for an unconditional generator."""
        if not self.num_classes:
            return None
        weights = torch.tensor(self.class_counts or [1] * self.num_classes, dtype=torch.float64)
        thresholds = weights.cumsum(0) / weights.sum()
        draws = [
            torch.rand(
                (),
                generator=torch.Generator().manual_seed(derive_seed(seed, i, 1)),
                dtype=torch.float64,
            )
            for i in range(start, start + num_images)
        ]
        return torch.searchsorted(thresholds, torch.stack(draws), right=True).clamp(
            max=self.num_classes - 1
        )

    def sample(
        self,
        num_images: int = 1,
        *,
        labels: int | Sequence[int] | Tensor | None = None,
        seed: int = 0,
        batch_size: int = 64,
        truncation: float | None = None,
    ) -> Tensor:
        """Draw images.

        Args:
            num_images: how many.
            labels: one class for all or one for each; None draws them as the training data has them.
            seed: of the latents; the same seed gives the same images.
            batch_size: images handed on at a time; it changes no image, since forward passes always have 16.
            truncation: psi of generators with styles, threshold of z of others; None for neither.

        Returns:
            Float images in about [-1, 1], [N, C, H, W], on the CPU.

        Raises:
            InputError: for a class that there is not, labels for an unconditional generator, or a truncation that
                means nothing to it.
        """
        made = self.batches(
            num_images, labels=labels, seed=seed, batch_size=batch_size, truncation=truncation
        )
        return torch.cat([images.cpu() for images, _ in made])

    def batches(
        self,
        num_images: int,
        *,
        labels: int | Sequence[int] | Tensor | None = None,
        seed: int = 0,
        batch_size: int = 64,
        truncation: float | None = None,
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield (images, labels) in the order of `sample`, `batch_size` at a time, on the generator's device."""
        if num_images < 1 or batch_size < 1:
            raise InputError(
                f"num_images={num_images} and batch_size={batch_size} must be at least 1"
            )
        chosen = None if labels is None else self._check_labels(labels, num_images)
        self.check_truncation(truncation)
        threshold = None if self.has_styles else truncation
        psi = truncation if self.has_styles and truncation is not None else 1.0
        for start in range(0, num_images, batch_size):
            count = min(batch_size, num_images - start)
            z = self.latents(count, seed=seed, start=start, truncation=threshold)
            drawn = self.labels(count, seed=seed, start=start)
            y = drawn if chosen is None else chosen[start : start + count]
            yield self.images(z, y, psi=psi), None if y is None else y.to(self.device)

    @torch.no_grad()
    def images(self, z: Tensor, labels: Tensor | None = None, *, psi: float = 1.0) -> Tensor:
        """Make images [N, C, H, W] of latents [N, Z] and labels [N], forward passes of one fixed size throughout.

        Other `psi` than 1 are for generators with styles.
        """
        made = []
        for start in range(0, len(z), IMAGES_PER_FORWARD):
            rows = slice(start, start + IMAGES_PER_FORWARD)
            y = None if labels is None else padded(labels[rows]).to(self.device)
            part = padded(z[rows]).to(self.device)
            if psi == 1:
                images = self.generator(part, y)
            else:
                images = cast(StyleGenerator, self.generator)(part, y, truncation=psi)
            made.append(images[: len(z) - start])
        return torch.cat(made)

    def measure_statistics(
        self, num_images: int, *, seed: int = 0, truncation: float | None = None
    ) -> "Gan":
        """Replace batch norm's statistics by those of images as they will be drawn: standing statistics.

        Brock et al. 2019, appendix C, https://arxiv.org/abs/1809.11096. They are the means over batches of 64 images,
        with labels as the training data has them; other latents than those of any image are used.

        Args:
            num_images: how many, rounded up to whole batches; fewer than 64 are one batch.
            seed: of the latents and labels.
            truncation: as images will be drawn with.

        Returns:
            This object.

        Raises:
            InputError: when the generator has no batch norm, for fewer than 2 images, or a truncation that means
                nothing.
        """
        if num_images < 2:
            raise InputError(f"standing_statistics={num_images} must be at least 2 images")
        self.check_truncation(truncation)
        size = min(num_images, IMAGES_PER_STATISTIC)
        # of a stream of its own
        own = derive_seed(seed, 2)
        standing_statistics(
            self.generator,
            (
                self._latents_and_labels(size, seed=own, start=start, truncation=truncation)
                for start in range(0, num_images, size)
            ),
        )
        return self

    def _latents_and_labels(
        self, count: int, *, seed: int, start: int, truncation: float | None
    ) -> tuple[Tensor, Tensor | None]:
        z = self.latents(count, seed=seed, start=start, truncation=truncation)
        labels = self.labels(count, seed=seed, start=start)
        return z.to(self.device), None if labels is None else labels.to(self.device)

    def check_truncation(self, truncation: float | None) -> None:
        """Refuse a truncation that means nothing to this generator.

        Raises:
            InputError: with the reason.
        """
        if truncation is None:
            return
        kind = type(self.generator).__module__.rpartition(".")[2]
        if isinstance(truncation, bool) or not isinstance(truncation, int | float):
            raise InputError(f"truncation={truncation!r} must be a number, or null for none")
        if not isfinite(truncation):
            raise InputError(f"truncation={truncation} must be finite, or null for none")
        if self.has_styles:
            return
        if not self.generator.truncates:
            raise InputError(
                f"truncation={truncation} means nothing to {kind}, which scales every z to one length; leave it out"
            )
        if truncation <= 0:
            raise InputError(
                f"truncation={truncation}: of {kind} it is the threshold beyond which components of z are drawn again; "
                "give a positive number, such as 0.5"
            )

    def _check_labels(self, labels: int | Sequence[int] | Tensor, num_images: int) -> Tensor:
        if not self.num_classes:
            raise InputError("labels were given to a generator without classes; leave them out")
        try:
            chosen = torch.as_tensor(labels)
        except (TypeError, ValueError) as error:
            raise InputError(f"labels={labels!r} are not whole numbers") from error
        if chosen.is_floating_point() or chosen.dtype == torch.bool:
            raise InputError(f"labels={labels!r} are not whole numbers")
        if chosen.ndim == 0:
            chosen = chosen.expand(num_images)
        if chosen.shape != (num_images,):
            raise InputError(
                f"labels have shape {tuple(chosen.shape)}; give one, or one for each of {num_images} images"
            )
        if chosen.min() < 0 or chosen.max() >= self.num_classes:
            wrong = chosen[(chosen < 0) | (chosen >= self.num_classes)][0]
            raise InputError(
                f"class {int(wrong)} is out of range: there are {self.num_classes}, 0 to {self.num_classes - 1}"
            )
        return chosen.long()


def redrawn(z: Tensor, shares: Tensor, threshold: float) -> Tensor:
    """Draw the components of z beyond a threshold again.

    Drawing until a component lies within the threshold gives it the truncated normal distribution. One draw by the
    inverse of that distribution function gives the same one, and takes no longer for small thresholds.

    Args:
        z: standard normal, any shape.
        shares: uniform in [0, 1), float64, of the same shape.
        threshold: positive.
    """
    limit = torch.tensor(threshold, dtype=torch.float64)
    below, above = torch.special.ndtr(-limit), torch.special.ndtr(limit)
    drawn = torch.special.ndtri(below + shares * (above - below)).clamp(-limit, limit)
    return torch.where(z.abs() > threshold, drawn.to(z.dtype), z)


def padded(rows: Tensor) -> Tensor:
    """Repeat the last row until there are `IMAGES_PER_FORWARD`."""
    missing = IMAGES_PER_FORWARD - len(rows)
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows
