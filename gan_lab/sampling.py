"""Drawing images from a trained generator, the same ones whatever the batch size."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.images import Images
from gan_lab.labels import Labels, check_labels
from gan_lab.latents import IMAGES_PER_FORWARD as IMAGES_PER_FORWARD
from gan_lab.latents import Seeds, labels_of, latents_of, numbers
from gan_lab.layers.standing import standing_statistics
from gan_lab.models.networks import GeneratorNetwork
from gan_lab.rendering import Rendering, check_rendering
from gan_lab.seeding import derive_seed
from gan_lab.synthesis import PLAIN, Synthesizer

if TYPE_CHECKING:
    from gan_lab.editing.layers import Layers
    from gan_lab.editing.sources import Source

IMAGES_PER_STATISTIC = 64  # of a batch that standing statistics are the mean over


class Gan(Synthesizer):
    """A trained generator to draw images from.

    Image `i` of a seed depends on (seed, i, label, rendering) alone: not on the batch size, nor on what else is drawn.

        gan = gan_lab.load("runs/digits")
        gan.sample(16, labels=3, truncation=0.7)  # the first 16 images of seed 0; a picture in a notebook
        gan.sample(4, seed=[0, 5, 7, 9])          # the first image of each seed
        w = gan.styles(gan.latents(2, seed=1))    # of a generator with styles
        gan.synthesize((w[:1] + w[1:]) / 2)

    Truncation trades variety for quality. Of generators with styles (StyleGAN to StyleGAN3) it is psi: w' = centre +
    psi (w - centre); 1 changes nothing, 0 gives the centre's image (Karras et al. 2019, appendix B,
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
        super().__init__(generator)
        self.class_names = list(class_names)
        self.class_counts = list(class_counts)
        self.kimg = kimg

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
        return latents_of(drawn, self.generator.latent_dim, truncation)

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

    def interpolate(
        self,
        source: "Source",
        *,
        frames: int = 8,
        labels: Labels | None = None,
        space: str | None = None,
        method: str | None = None,
        loop: bool = False,
        truncation: float | None = None,
        center: str = "mean",
        noise: str = "const",
    ) -> Images:
        """Make pictures on the way from point to point.

            gan.interpolate([0, 1, 2], frames=10)               # from seed to seed, 21 pictures
            gan.interpolate([0], labels=[3, 8], frames=10)      # one latent from class to class
            gan.interpolate(range(4), loop=True, space="w")     # a closed cubic spline

        Args:
            source: key points: seeds, latents z [K, Z], styles w [K, L, D], or `gan_lab.editing.points.Points`.
            frames: pictures for each part of the way.
            labels: of the key points: one, as many as points, or several for one point; None as seeds draw them.
            space: "z" or "w"; None for w where there are styles.
            method: "linear", "spherical" or "spline"; None for a spline in a loop, else spherical in z and linear in w.
            loop: whether to go back to the first point.
            truncation: as in `sample`, of the key points; likewise `center` and `noise` ("const" or "none").

        Returns:
            [T, C, H, W] with T = (K - 1) frames + 1, or K frames of a loop, on the CPU.

        Raises:
            InputError: for one point alone, points or labels that do not fit, or what the generator has not.
        """
        from gan_lab.editing.interpolation import interpolate

        return interpolate(
            self,
            source,
            frames=frames,
            labels=labels,
            space=space,
            method=method,
            loop=loop,
            truncation=truncation,
            center=center,
            noise=noise,
        )

    def mix(
        self,
        rows: "Source",
        columns: "Source",
        *,
        layers: "Layers" = "coarse",
        row_labels: Labels | None = None,
        column_labels: Labels | None = None,
        truncation: float | None = None,
        center: str = "mean",
        noise: str = "const",
        sheet: bool = False,
    ) -> Images:
        """Mix styles: images of rows, with some of the layers' styles taken from columns.

            gan.mix([0, 1, 2], [10, 11, 12, 13], layers="coarse", sheet=True).grid(5)

        Args:
            rows: seeds, latents z, styles w or points, from which all layers come but ...
            columns: ... those that come from these.
            layers: "coarse", "middle", "fine", "all", indices ("0-3", 5, or a list of them), or a range.
            row_labels: one for all or one for each; None as seeds draw them. Likewise `column_labels`.
            truncation: as in `sample`; likewise `center` and `noise`.
            sheet: whether to put the columns' own images above and the rows' at the left, with an empty corner.

        Returns:
            [R K, C, H, W], row by row, or [(R + 1) (K + 1), C, H, W] of a sheet; on the CPU.

        Raises:
            InputError: for a generator without styles, layers that there are not, or sources that do not fit.
        """
        from gan_lab.editing.mixing import mix

        return mix(
            self,
            rows,
            columns,
            layers=layers,
            row_labels=row_labels,
            column_labels=column_labels,
            truncation=truncation,
            center=center,
            noise=noise,
            sheet=sheet,
        )

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
