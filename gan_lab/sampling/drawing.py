"""Drawing from a trained generator by seed and index."""

from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor

from gan_lab.data.images import Images, image_spec
from gan_lab.data.sample import SampleSpec
from gan_lab.errors import InputError
from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.layers.standing import standing_statistics
from gan_lab.sampling.labels import Labels, check_labels
from gan_lab.sampling.latents import Seeds, labels_of, latents_of, numbers
from gan_lab.sampling.rendering import Rendering, check_rendering
from gan_lab.sampling.synthesis import PLAIN, Synthesizer
from gan_lab.seeding import derive_seed

IMAGES_PER_STATISTIC = 64  # of a batch that standing statistics are the mean over


class Drawer(Synthesizer):
    """Draws latents, labels and images; `Gan` has the arguments."""

    def __init__(
        self,
        generator: GeneratorNetwork,
        *,
        spec: SampleSpec | None = None,
        kimg: float = 0.0,
    ) -> None:
        super().__init__(generator)
        self._spec = spec
        self.kimg = kimg

    @property
    def spec(self) -> SampleSpec:
        """What is drawn; 8-bit images where nobody said."""
        if self._spec is None:
            channels, *size = self.images(self.latents(1), self.labels(1)).shape[1:]
            self._spec = image_spec(channels=channels, image_size=(size[0], size[1]))
        return self._spec

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, none where nobody said."""
        return [] if self._spec is None else list(self._spec.class_names)

    @property
    def class_counts(self) -> list[int]:
        """Training samples of each class, none where nobody said."""
        return [] if self._spec is None else list(self._spec.class_counts)

    def __repr__(self) -> str:
        classes = f", {self.num_classes} classes" if self.num_classes else ""
        return f"{type(self).__name__}({self.kind}, {self.kimg:g} kimg{classes})"

    def latents(
        self,
        num_images: int,
        *,
        seed: Seeds = 0,
        start: int = 0,
        truncation: float | None = None,
    ) -> Tensor:
        """Return the latents [N, Z] of images `start` to `start + num_images` of a seed.

        Args:
            num_images: how many.
            seed: of all; or one for each image, which then is its seed's first.
            start: index of the first.
            truncation: threshold beyond which components are drawn again; None for none. Not psi.
        """
        drawn = numbers(num_images, seed, start)
        return latents_of(drawn, self.generator.z_dim, truncation)

    def labels(self, num_images: int, *, seed: Seeds = 0, start: int = 0) -> Tensor | None:
        """Draw labels [N] from the distribution of the training data; None for an unconditional generator."""
        if not self.num_classes:
            return None
        weights = self.class_counts or [1] * self.num_classes
        return labels_of(numbers(num_images, seed, start), weights)

    def sample(
        self,
        num_images: int | None = None,
        *,
        labels: Labels | None = None,
        seed: Seeds = 0,
        batch_size: int = 64,
        truncation: float | None = None,
        center: str = "mean",
        noise: str = "const",
        translate: tuple[float, float] = (0.0, 0.0),
        rotate: float = 0.0,
    ) -> Images:
        """Draw images.

            gan.sample(16, labels=3, truncation=0.7, seed=0)
            gan.sample(seed=range(64), center="class", truncation=0.5).grid(8).save("sheet.png")

        Args:
            num_images: how many; by default one, or one of each seed.
            labels: one class for all, one for each, or vectors [N, num_classes] that mix classes; None draws them as
                the training data has them.
            seed: of the latents; the same seed gives the same images. Or a seed for each image.
            batch_size: images handed on at a time; it changes no image, since forward passes always have 16.
            truncation: psi of generators with styles, threshold of z of others; None for neither.
            center: what psi moves w towards: the "mean" of all images, or that of the image's "class".
            noise: of StyleGAN and StyleGAN2: "const", "none", or "random", which is drawn for each image from its seed.
            translate: (x, y): StyleGAN3's images move so many sides to the right and down.
            rotate: StyleGAN3's images turn so many degrees counter-clockwise.

        Returns:
            Float images in about [-1, 1], [N, C, H, W], on the CPU.

        Raises:
            InputError: for a class that there is not, labels for an unconditional generator, or what means nothing to
                it: truncation, a centre, noise, or motion.
        """
        if num_images is None:
            num_images = 1 if isinstance(seed, int) else len(seed)
        rendering = Rendering(
            truncation=truncation, center=center, noise=noise, translate=translate, rotate=rotate
        )
        made = self.batches(
            num_images, labels=labels, seed=seed, batch_size=batch_size, rendering=rendering
        )
        return Images(torch.cat([images.cpu() for images, _ in made]))

    def batches(
        self,
        num_images: int,
        *,
        labels: Labels | None = None,
        seed: Seeds = 0,
        batch_size: int = 64,
        rendering: Rendering = PLAIN,
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield (images, labels) in the order of `sample`, `batch_size` at a time, on the generator's device."""
        if num_images < 1 or batch_size < 1:
            raise InputError(
                f"num_images={num_images} and batch_size={batch_size} must be at least 1"
            )
        chosen = None if labels is None else check_labels(labels, num_images, self.num_classes)
        check_rendering(self.generator, rendering, styles=self.has_styles)
        threshold = None if self.has_styles else rendering.truncation
        for start in range(0, num_images, batch_size):
            count = min(batch_size, num_images - start)
            z = self.latents(count, seed=seed, start=start, truncation=threshold)
            drawn = self.labels(count, seed=seed, start=start) if chosen is None else None
            y = drawn if chosen is None else chosen[start : start + count]
            images = self.render(z, y, rendering, seed=seed, start=start)
            yield images, None if y is None else y.to(self.device)

    def measure_statistics(
        self, num_images: int, *, seed: int = 0, truncation: float | None = None
    ) -> Self:
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
