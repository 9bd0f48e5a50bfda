"""Drawing images from a trained generator, the same ones whatever the batch size."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.models.networks import GeneratorNetwork
from gan_lab.seeding import derive_seed

# Matrix products of another height add in another order, and the last bits of an image with them: every forward pass
# therefore has exactly this many images, whatever batch size is asked for.
IMAGES_PER_FORWARD = 16


class Gan:
    """A trained generator to draw images from.

    Image `i` of a seed depends on (seed, i, label) alone.

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

    def latents(self, num_images: int, *, seed: int = 0, start: int = 0) -> Tensor:
        """Return the latents [N, Z] of images `start` to `start + num_images` of a seed."""
        dim = self.generator.latent_dim
        rows = [
            torch.randn(dim, generator=torch.Generator().manual_seed(derive_seed(seed, i)))
            for i in range(start, start + num_images)
        ]
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
    ) -> Tensor:
        """Draw images.

        Args:
            num_images: how many.
            labels: one class for all or one for each; None draws them as the training data has them.
            seed: of the latents; the same seed gives the same images.
            batch_size: images handed on at a time; it changes no image, since forward passes always have 16.

        Returns:
            Float images in about [-1, 1], [N, C, H, W], on the CPU.

        Raises:
            InputError: for a class that there is not, or labels for an unconditional generator.
        """
        made = self.batches(num_images, labels=labels, seed=seed, batch_size=batch_size)
        return torch.cat([images.cpu() for images, _ in made])

    def batches(
        self,
        num_images: int,
        *,
        labels: int | Sequence[int] | Tensor | None = None,
        seed: int = 0,
        batch_size: int = 64,
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield (images, labels) in the order of `sample`, `batch_size` at a time, on the generator's device."""
        if num_images < 1 or batch_size < 1:
            raise InputError(
                f"num_images={num_images} and batch_size={batch_size} must be at least 1"
            )
        chosen = None if labels is None else self._check_labels(labels, num_images)
        for start in range(0, num_images, batch_size):
            count = min(batch_size, num_images - start)
            z = self.latents(count, seed=seed, start=start)
            drawn = self.labels(count, seed=seed, start=start)
            y = drawn if chosen is None else chosen[start : start + count]
            yield self.images(z, y), None if y is None else y.to(self.device)

    @torch.no_grad()
    def images(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Make images [N, C, H, W] of latents [N, Z] and labels [N], forward passes of one fixed size throughout."""
        made = []
        for start in range(0, len(z), IMAGES_PER_FORWARD):
            rows = slice(start, start + IMAGES_PER_FORWARD)
            y = None if labels is None else padded(labels[rows]).to(self.device)
            made.append(self.generator(padded(z[rows]).to(self.device), y)[: len(z) - start])
        return torch.cat(made)

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


def padded(rows: Tensor) -> Tensor:
    """Repeat the last row until there are `IMAGES_PER_FORWARD`."""
    missing = IMAGES_PER_FORWARD - len(rows)
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows
