"""What `gan_lab.load` returns: `Sampler` (sampler.py) with interpolations, style mixing, projections, directions."""

from collections.abc import Sequence

from gan_lab.console import say
from gan_lab.data.media import ShownTensor
from gan_lab.sampling.directions import Directions, directions
from gan_lab.sampling.interpolation import Layers, interpolation, mixture
from gan_lab.sampling.latents import Labels, LatentSource
from gan_lab.sampling.projection import ProjectionResult, project
from gan_lab.sampling.sampler import Sampler
from gan_lab.sampling.targets import Distance, Given, PyramidDistance, Targets


class Gan(Sampler):
    """A trained generator; `sample`, `latents` and `synthesize` are in `Sampler`.

    Latents, labels and noise of image `i` of a seed are functions of (seed, i) alone, to the last bit. Its pixels agree
    to 1e-5 in float32 for any batch.

        gan = gan_lab.load("runs/digits")
        gan.sample(16, labels=3, truncation=0.7)  # the first 16 images of seed 0; an image in a notebook
        gan.sample(4, seed=[0, 5, 7, 9])          # the first image of each seed
        w = gan.latents(2, seed=1).w              # of a generator with styles
        gan.synthesize((w[:1] + w[1:]) / 2)

    Truncation trades variety for quality. Of generators with styles (StyleGAN to StyleGAN3) it is psi: w' = center +
    psi (w - center); 1 changes nothing, 0 gives the center's image (Karras et al. 2019, appendix B,
    https://arxiv.org/abs/1812.04948). Of all others it is a threshold: components of z beyond it are drawn again
    (Brock et al. 2019, section 3.1, https://arxiv.org/abs/1809.11096; they use 0.04 to 2).

    Attributes:
        generator: in evaluation mode.
        kimg: how long it was trained, in thousands of real images.

    Args:
        generator: `(z, labels) -> images`, with `z_dim` and `num_classes`.
        spec: of the samples, with classes and their counts in the training data, which default labels are drawn
            from.
        kimg: how long it was trained.
        sources: for generators that translate: indices -> stored sources; see `with_sources`.
        label_rows: for generators with attributes: all label vectors [M, K] of the training data, to draw from instead
            of the few in `spec`.
    """

    def interpolate(
        self,
        source: LatentSource,
        *,
        frames: int = 8,
        labels: Labels | None = None,
        space: str | None = None,
        method: str | None = None,
        loop: bool = False,
        truncation: float | None = None,
        truncation_center: str = "mean",
        noise: str = "const",
    ) -> ShownTensor:
        """Make images on a path through key points.

            gan.interpolate([0, 1, 2], frames=10)               # from seed to seed, 21 images
            gan.interpolate([0], labels=[3, 8], frames=10)      # one latent from class to class
            gan.interpolate(range(4), loop=True, space="w")     # a closed cubic spline

        Args:
            source: key points: seeds, latents z [K, Z], styles w [K, L, D], or `Latents`.
            frames: images for each part of the path.
            labels: of the key points: one, as many as points, or several for one point; None as seeds draw them.
            space: "z" or "w"; None for w where there are styles.
            method: "linear", "spherical" or "spline"; None for a spline in a loop, else spherical in z and linear in w.
            loop: whether to go back to the first point.
            truncation: as in `sample`, of the key points; likewise `truncation_center` and `noise` ("const" or "none").

        Returns:
            [T, C, H, W] with T = (K - 1) frames + 1, or K frames of a loop, on the CPU.

        Raises:
            InputError: for a single point, points or labels that do not match, or options that the generator lacks.
        """
        found = interpolation(
            self,
            source,
            labels=labels,
            space=space,
            method=method,
            loop=loop,
            truncation=truncation,
            truncation_center=truncation_center,
            noise=noise,
        )
        return self.shown(found.images(found.path.positions(frames)).cpu())

    def mix(
        self,
        rows: LatentSource,
        columns: LatentSource,
        *,
        layers: Layers = "coarse",
        row_labels: Labels | None = None,
        column_labels: Labels | None = None,
        truncation: float | None = None,
        truncation_center: str = "mean",
        noise: str = "const",
        sheet: bool = False,
    ) -> ShownTensor:
        """Mix styles: images of rows, with some of the layers' styles taken from columns.

            gan.mix([0, 1, 2], [10, 11, 12, 13], layers="coarse", sheet=True).grid(5)

        Args:
            rows: seeds, latents z, styles w or `Latents`, from which all layers come but ...
            columns: ... those that come from these.
            layers: "coarse", "middle", "fine", "all", indices ("0-3", 5, or a list of them), or a range.
            row_labels: one for all or one for each; None as seeds draw them. Likewise `column_labels`.
            truncation: as in `sample`; likewise `truncation_center` and `noise`.
            sheet: whether to put the columns' own images above and the rows' at the left, with an empty corner.

        Returns:
            [R K, C, H, W], row by row, or [(R + 1) (K + 1), C, H, W] of a sheet; on the CPU.

        Raises:
            InputError: for a generator without styles, unknown layers, or sources that do not fit.
        """
        made = mixture(
            self,
            rows,
            columns,
            layers=layers,
            row_labels=row_labels,
            column_labels=column_labels,
            truncation=truncation,
            truncation_center=truncation_center,
            noise=noise,
        )
        return self.shown(made.sheet() if sheet else made.mixed)

    def project(
        self,
        images: Given | Sequence[Given] | Targets,
        *,
        labels: int | Sequence[int] | None = None,
        space: str = "auto",
        steps: int | None = None,
        restarts: int | None = None,
        distance: Distance | None = None,
        tuning: int = 0,
        seed: int = 0,
        record: bool = False,
    ) -> ProjectionResult:
        """Find latents whose images are nearest to given ones.

            found = gan.project("photo.png")
            found.mse, found.latents, found.images
            gan.interpolate(found.latents, frames=10)           # of several images

        Args:
            images: files, folders, Pillow images, tensors of the generator's shape, or several of these.
            labels: class of each image, or one for all; None searches for it.
            space: "w", "w+" (a style for each layer), "z", or "auto": w where there are styles, else z.
            steps: of the search; None takes 500, and none after BiGAN's encoder.
            restarts: searches for each image, of which the best counts; None takes 4 in z and 1 in w.
            distance: of images, such as `gan_lab.metrics.features.vgg16.choose_distance` gives; None for differences
                of Laplacian pyramids, which needs no weights.
            tuning: steps of tuning the generator to the images afterwards.
            seed: of all draws.
            record: whether to record the search for a video.

        Returns:
            As `gan_lab.sampling.projection.project`, which has further options.

        Raises:
            InputError: for unreadable images, unknown classes, and options out of range.
        """
        if distance is None:
            distance = PyramidDistance()
            say(
                f"compared by {distance.name}; distance= takes LPIPS, of gan_lab.metrics.features.vgg16"
            )
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
        layers: Layers = "all",
        count: int = 10,
        labels: int | Sequence[int] | None = None,
        within: bool = True,
        samples: int = 10_000,
        seed: int = 0,
    ) -> Directions:
        """Find directions in which images change.

            found = gan.directions("ganspace", layers="coarse")
            gan.synthesize(found.apply(w, [2.0, -1.0]))         # 2 deviations along the first, 1 back along the second

        Args:
            method: "sefa", "ganspace" (with styles), or "auto": ganspace where there are styles.
            layers: styles to move, as `mix` takes them.
            count: how many, at most.
            labels: classes that w are drawn of; None draws them as the training data has them.
            within: remove differences between classes for GANSpace and scales.
            samples: number of w drawn.
            seed: of them.

        Raises:
            InputError: for a method that the generator does not support, and for unknown layers or classes.
        """
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
