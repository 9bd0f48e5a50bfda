"""Drawing images from a trained generator, the same ones whatever the batch size, and what else is done with it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gan_lab.data.images import Images
from gan_lab.sampling.drawing import IMAGES_PER_STATISTIC as IMAGES_PER_STATISTIC
from gan_lab.sampling.drawing import Drawer
from gan_lab.sampling.labels import Labels
from gan_lab.sampling.latents import IMAGES_PER_FORWARD as IMAGES_PER_FORWARD

if TYPE_CHECKING:
    from gan_lab.sampling.directions import Directions
    from gan_lab.sampling.mixing import Layers
    from gan_lab.sampling.points import Source
    from gan_lab.sampling.projection import Projection
    from gan_lab.sampling.targets import Given, Targets


class Gan(Drawer):
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
        generator: `(z, labels) -> images`, with `z_dim` and `num_classes`.
        spec: what is drawn, with its classes and how often each of them is in the training data: labels that are not
            given are drawn so.
        kimg: how long it was trained.
    """

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
            source: key points: seeds, latents z [K, Z], styles w [K, L, D], or `gan_lab.sampling.points.Points`.
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
        from gan_lab.sampling.interpolation import interpolate

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
        from gan_lab.sampling.mixing import mix

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

    def project(
        self,
        images: "Given | Sequence[Given] | Targets",
        *,
        labels: int | Sequence[int] | None = None,
        space: str = "auto",
        steps: int | None = None,
        restarts: int | None = None,
        distance: str = "auto",
        tuning: int = 0,
        seed: int = 0,
        record: bool = False,
    ) -> "Projection":
        """Find latents whose images are nearest to pictures.

            found = gan.project("photo.png")
            found.mse, found.points, found.images
            gan.interpolate(found.points, frames=10)            # of several pictures

        Args:
            images: files, folders, Pillow pictures, tensors of the generator's shape, or several of these.
            labels: class of each picture, or one for all; None has it found.
            space: "w", "w+" (a style for each layer), "z", or "auto": w where there are styles, else z.
            steps: of the search; None takes 500, and none after BiGAN's encoder.
            restarts: searches for each picture, of which the best counts; None takes 4 in z and 1 in w.
            distance: "lpips", "pyramid" (needs no weights) or "auto": LPIPS where VGG16's weights are.
            tuning: steps for which the generator is tuned to the pictures afterwards.
            seed: of all draws.
            record: whether to keep the way for a video.

        Returns:
            What `gan_lab.sampling.projection.project` returns, which has the other settings, too.

        Raises:
            InputError: for pictures that cannot be read, classes that there are not, and settings out of range.
        """
        from gan_lab.sampling.projection import project

        return project(
            self,
            images,
            labels=labels,
            space=space,
            steps=steps,
            restarts=restarts,
            distance=distance,
            tuning=tuning,
            seed=seed,
            record=record,
        )

    def directions(
        self,
        method: str = "auto",
        *,
        layers: "Layers" = "all",
        count: int = 10,
        labels: int | Sequence[int] | None = None,
        within: bool = True,
        samples: int = 10_000,
        seed: int = 0,
    ) -> "Directions":
        """Find directions in which images change.

            found = gan.directions("ganspace", layers="coarse")
            gan.synthesize(found.apply(w, [2.0, -1.0]))         # 2 deviations along the first, 1 back along the second

        Args:
            method: "sefa", "ganspace" (with styles), or "auto": ganspace where there are styles.
            layers: styles to move, as `mix` takes them.
            count: how many, at most.
            labels: classes that w are drawn of; None draws them as the training data has them.
            within: leave differences between classes out of what GANSpace sees, and of scales.
            samples: number of w drawn.
            seed: of them.

        Raises:
            InputError: for a method that the generator has not, and for layers, classes or numbers that there are not.
        """
        from gan_lab.sampling.directions import directions

        return directions(
            self,
            method,
            layers=layers,
            count=count,
            labels=labels,
            within=within,
            samples=samples,
            seed=seed,
        )
