"""From seeds to latents to samples of a trained generator."""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from math import cos, isfinite, radians, sin
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_lab.data.decoding import DECODE_ERRORS, check_regular
from gan_lab.data.images import Images, image_spec
from gan_lab.data.media import Samples, ShownTensor
from gan_lab.data.sample import SampleKind, SampleSpec
from gan_lab.data.source import reason_of
from gan_lab.errors import InputError
from gan_lab.layers.networks import (
    GeneratorNetwork,
    label_vectors,
    samples_made,
    standing_statistics,
)
from gan_lab.layers.stylegan import NOISE, StyleGeneratorNetwork, check_noise, truncated
from gan_lab.sampling.latents import (
    ImageNoise,
    Labels,
    Latents,
    LatentSource,
    SeedIndex,
    Seeds,
    by_index,
    by_name,
    check_labels,
    draw_label_vectors,
    draw_labels,
    draw_z,
    is_finite_number,
    seed_indices,
    set_attributes,
)
from gan_lab.seeding import Stream, derive_seed

BATCH_SIZE = 16  # default number of images per forward pass
STATISTICS_BATCH = 64  # batch size for standing statistics
CENTER_LATENTS = 4096  # number of z whose mean w is the center of a class

CENTERS = ("mean", "class")

Sources = Callable[[Sequence[int]], Tensor]  # indices -> stored sources [N, ...]


class Sampler:
    """Draws latents and images: `gan.sample(4)` is here. Base of `gan_lab.sampling.gan.Gan`."""

    def __init__(
        self,
        generator: GeneratorNetwork,
        *,
        spec: SampleSpec | None = None,
        kimg: float = 0.0,
        sources: Sources | None = None,
        label_rows: NDArray[np.float32] | None = None,
    ) -> None:
        self.generator = generator
        self.sources = sources
        self.label_rows = label_rows
        self._spec = spec
        self.kimg = kimg
        self._centers: dict[tuple[float, ...], Tensor] = {}

    def __repr__(self) -> str:
        classes = f", {self.num_classes} classes" if self.num_classes else ""
        return f"{type(self).__name__}({self.kind}, {self.kimg:g} kimg{classes})"

    def with_generator(self, generator: GeneratorNetwork) -> Self:
        """Return a copy with another generator of the same kind."""
        other = copy(self)
        other.generator, other._centers = generator, {}
        return other

    def with_sources(self, sources: str | Path | Tensor | Sources) -> Self:
        """Return a copy with sources to translate: image i of a seed is made from source i, modulo their number.

        Args:
            sources: stored samples [M, ...]; a file or folder of such; or a function of indices.

        Raises:
            InputError: for a generator that does not translate, and files that cannot be read.
        """
        kind = None if self._spec is None or self._spec.source is None else self._spec.source.kind
        if kind is None or not self.generator.translates:
            raise InputError(f"{self.kind} does not translate; leave source= out")
        other = copy(self)
        if isinstance(sources, str | Path):
            sources = read_sources(Path(sources), kind)
        if isinstance(sources, Tensor):
            stored = sources
            other.sources = lambda numbers: stored[[number % len(stored) for number in numbers]]
        else:
            other.sources = sources
        return other

    @property
    def spec(self) -> SampleSpec:
        """The spec of the samples; 8-bit images by default."""
        if self._spec is None:
            channels, height, width = self.synthesize(self.latents(1)).shape[1:]
            self._spec = image_spec(channels=channels, image_size=(height, width))
        return self._spec

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, if known."""
        return [] if self._spec is None else list(self._spec.class_names)

    @property
    def class_counts(self) -> list[int]:
        """Training samples of each class, if known."""
        return [] if self._spec is None else list(self._spec.class_counts)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes, if labels are vectors."""
        return () if self._spec is None or not self.num_classes else self._spec.attributes

    @property
    def labels_drawn(self) -> str | None:
        """Description of how default labels are drawn; None for an unconditional generator."""
        if not self.num_classes:
            return None
        if not self.attributes:
            known = self.class_counts
            return (
                "classes as often as in the training data" if known else "all classes equally often"
            )
        if self.label_rows is not None:
            return f"attributes of all {len(self.label_rows):,} rows of the training data"
        kept = len(self.spec.label_vectors)
        return f"attributes of {kept} rows of the training data, which are kept with the model"

    @property
    def kind(self) -> str:
        """Name of the architecture."""
        return type(self.generator).__module__.rpartition(".")[2]

    @property
    def num_classes(self) -> int:
        """Number of classes that labels choose from, 0 for an unconditional generator."""
        return self.generator.num_classes

    @property
    def device(self) -> torch.device:
        """Where images are computed."""
        return next(self.generator.parameters()).device

    @property
    def z_dim(self) -> int:
        """Length of z."""
        return self.generator.z_dim

    # Generators with styles.

    @property
    def has_styles(self) -> bool:
        """Whether images are made of w, and truncation acts on w and not on z."""
        return isinstance(self.generator, StyleGeneratorNetwork)

    @property
    def style_generator(self) -> StyleGeneratorNetwork:
        """The generator, one with styles.

        Raises:
            InputError: for another one.
        """
        if not isinstance(self.generator, StyleGeneratorNetwork):
            raise InputError(
                f"{self.kind} has no styles w; stylegan, stylegan2, stylegan3 and gat have. Others vary by z alone"
            )
        return self.generator

    @property
    def num_ws(self) -> int:
        """Number of styles w of an image."""
        return self.style_generator.num_ws

    @property
    def w_dim(self) -> int:
        """Length of w."""
        return self.style_generator.w_dim

    @property
    def w_avg(self) -> Tensor:
        """Running mean of w in training, [D]."""
        return self.style_generator.w_avg

    def _map(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Map z [N, Z] to w [N, L, D] on the generator's device."""
        labels = None if labels is None else labels.to(self.device)
        return self.style_generator.styles(z.to(self.device), labels)

    # Latents

    def latents(
        self,
        num_images: int | None = None,
        *,
        labels: Labels | None = None,
        seed: Seeds = 0,
        start: int = 0,
        truncation: float | None = None,
        truncation_center: str = "mean",
        space: str | None = None,
    ) -> Latents:
        """Draw the latents of images `start` to `start + num_images` of a seed; functions of seed and index.

        Args:
            num_images: how many; by default one, or one of each seed.
            labels: one class for all, one for each, or vectors [N, num_classes] that mix classes; attributes by name,
                such as {"smile": 1}, with the others drawn; None draws them as in the training data.
            seed: of all; or one for each image, the first of its seed.
            start: index of the first.
            truncation: psi of generators with styles, threshold of z of others; None for neither.
            truncation_center: what psi moves w towards: the "mean" of all images, or that of the image's "class".
            space: "w" or "z"; None for w where there are styles. Psi leaves z as they are.

        Returns:
            w on the generator's device, or z on the CPU; labels on the CPU.

        Raises:
            InputError: for an unknown class or space, and a truncation that the generator does not support.
        """
        if num_images is None:
            num_images = 1 if isinstance(seed, int) else len(seed)
        self.check(truncation=truncation, truncation_center=truncation_center)
        drawn = seed_indices(num_images, seed, start)
        threshold = None if self.has_styles else truncation
        latents = Latents(
            z=draw_z(drawn, self.z_dim, threshold, distribution=self.generator.z_distribution),
            labels=self._chosen(labels, drawn),
            source=self._sources(range(start, start + num_images)),
            seeds=drawn,
        )
        return self._in_space(latents, space, truncation, truncation_center)

    def labels(self, num_images: int, *, seed: Seeds = 0, start: int = 0) -> Tensor | None:
        """Draw labels [N] from the distribution of the training data; None for an unconditional generator."""
        return self._labels(seed_indices(num_images, seed, start))

    def _chosen(
        self, labels: Labels | None, drawn: Sequence[SeedIndex], own: Tensor | None = None
    ) -> Tensor | None:
        """Return the labels of images: given or drawn. Attributes that are not named are `own` or drawn."""
        if labels is None:
            return self._labels(drawn)
        labels = by_index(labels, self.class_names)
        attributes = by_name(labels)
        if attributes is None:
            return check_labels(labels, len(drawn), self.num_classes)
        rows = self._labels(drawn) if own is None and self.attributes else own
        if rows is None or not self.attributes:
            raise InputError(f"labels={dict(attributes[0])}: the model has no attributes")
        return set_attributes(rows, attributes, self.attributes)

    def _sources(self, numbers: Sequence[int]) -> Tensor | None:
        if not self.generator.translates:
            return None
        if self.sources is None:
            raise InputError(
                f"{self.kind} translates samples, and none are given; set source= to a file or folder of them, in "
                "Python gan.with_sources(...)"
            )
        return self.sources(numbers)

    def _labels(self, drawn: Sequence[tuple[int, int]]) -> Tensor | None:
        if not self.num_classes:
            return None
        if self._spec is not None and self._spec.attributes:
            if self.label_rows is not None:
                return draw_label_vectors(drawn, torch.from_numpy(self.label_rows))
            if not self._spec.label_vectors:
                raise InputError("no attributes are given, and the model has none to draw from")
            return draw_label_vectors(drawn, torch.tensor(self._spec.label_vectors))
        return draw_labels(drawn, self.class_counts or [1] * self.num_classes)

    def as_latents(
        self,
        source: LatentSource,
        *,
        labels: Labels | None = None,
        truncation: float | None = None,
        truncation_center: str = "mean",
        space: str | None = None,
    ) -> Latents:
        """Return latents of seeds, tensors or latents.

        Args:
            source: a seed or several, for the first latent of each; z [N, Z]; w [N, L, D]; or latents.
            labels: instead of their own; as many as latents, or one for all. A single latent is repeated for several
                labels. None takes those of the latents, or draws them.
            truncation: as in `latents`. Psi also applies to given w (again, if they were truncated); a threshold only
                to drawn z.
            truncation_center: as in `latents`; likewise `space`.

        Raises:
            InputError: for latents that do not match the generator, and labels that do not match the latents.
        """
        self.check(truncation=truncation, truncation_center=truncation_center)
        latents = self._given(source, truncation)
        if labels is not None:
            labels = by_index(labels, self.class_names)
            count = max(len(latents), _number(labels))
            if len(latents) == 1:
                latents = latents.expand(count)
            chosen = self._chosen(labels, latents.seeds, latents.labels)
            latents = latents.replace(latents.values, labels=chosen)
        self.check_latents(latents)
        return self._in_space(latents, space, truncation, truncation_center)

    def _given(self, source: LatentSource, truncation: float | None) -> Latents:
        if isinstance(source, Latents):
            return source
        if isinstance(source, Tensor) and source.is_floating_point():
            return Latents.of(source)
        seeds = source.flatten().tolist() if isinstance(source, Tensor) else source
        seeds = [seeds] if isinstance(seeds, int) else list(seeds)
        if not seeds:
            raise InputError("no seeds were given")
        return self.latents(seed=seeds, truncation=truncation, space="z")

    def read_latents(self, path: Any) -> Latents:
        """Read a file of latents.

        Raises:
            InputError: for a missing file, one with other content, or latents of another generator.
        """
        latents = Latents.read(path)
        try:
            self.check_latents(latents)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        return latents

    def check_latents(self, latents: Latents) -> None:
        """Check that latents match the generator.

        Raises:
            InputError: with both shapes.
        """
        shape = list(latents.values.shape)
        if latents.w is not None:
            expected = [self.num_ws, self.w_dim]
            if shape[1:] != expected:
                raise InputError(
                    f"w has shape {shape}, the generator takes [N, {expected[0]}, {expected[1]}]"
                )
        elif shape[1] != self.z_dim:
            raise InputError(f"z has shape {shape}, the generator takes [N, {self.z_dim}]")
        if not latents.values.is_floating_point() or not latents.values.isfinite().all():
            raise InputError("the values must be finite floats")
        if latents.labels is not None:
            check_labels(latents.labels, len(latents), self.num_classes)
        elif self.num_classes and latents.w is None:
            raise InputError(
                f"there are no labels, and the generator has {self.num_classes} classes"
            )

    def _in_space(
        self, latents: Latents, space: str | None, truncation: float | None, truncation_center: str
    ) -> Latents:
        space = space or ("w" if self.has_styles else "z")
        if space not in ("z", "w"):
            raise InputError(f"space={space!r} must be one of z, w")
        if space == "w":
            if not self.has_styles:
                raise InputError(f"space=w: {self.kind} has no styles w; set space=z")
            return self._to_w(latents, truncation, truncation_center)
        if latents.z is None:
            raise InputError(
                "space=z: these latents are styles w, of which no z is known; set space=w"
            )
        return latents

    @torch.no_grad()
    def _to_w(self, latents: Latents, truncation: float | None, truncation_center: str) -> Latents:
        """Map z to w, and move w towards a center: w' = center + psi (w - center)."""
        w = latents.w
        if w is None:
            w = self._map(latents.values, latents.labels)
        if truncation is not None and truncation != 1:
            w = w.to(self.device)
            if truncation_center == "class":
                towards = self.center(latents.labels).expand_as(w)
            else:
                labels = None if latents.labels is None else latents.labels.to(self.device)
                towards = self.style_generator.center(labels).expand_as(w)
            w = truncated(w, towards, truncation, self.style_generator.truncation_cutoff)
        return replace(latents, z=None, w=w)

    def center(self, labels: Tensor | None = None) -> Tensor:
        """Return the mean of w: of all images, [1, 1, D]; or of each label's class, [N, L, D].

        That of all images is the running mean of training. That of a class is the mean of 4096 latents of seed 0,
        computed once. Label vectors get the mixture of the classes' centers, vectors of attributes their own.
        """
        if labels is None:
            return self.w_avg[None, None]
        if self.attributes:
            return torch.stack([self._class_center(tuple(row)) for row in labels.tolist()])
        vectors = label_vectors(labels, self.num_classes, self.w_avg)
        used = vectors.ne(0).any(0).nonzero().flatten()
        if not len(used):
            return self.w_avg.new_zeros(len(vectors), self.num_ws, self.w_dim)
        centers = torch.stack([self._class_center((int(label),)) for label in used])
        return torch.einsum("nk,kld->nld", vectors[:, used].to(centers), centers)

    @torch.no_grad()
    def _class_center(self, label: tuple[float, ...]) -> Tensor:
        """Return the mean w [L, D] of a class, or of one vector of attributes."""
        if label not in self._centers:
            draws = torch.Generator().manual_seed(derive_seed(0, Stream.CLASS_CENTER))
            z = torch.randn(CENTER_LATENTS, self.z_dim, generator=draws)
            labels = torch.tensor(label).expand(CENTER_LATENTS, -1)
            w = self._map(z, labels if self.attributes else labels.flatten())
            self._centers[label] = w.mean(0)
        return self._centers[label]

    # Images

    def sample(
        self,
        num_images: int | None = None,
        *,
        labels: Labels | None = None,
        seed: Seeds = 0,
        batch_size: int = BATCH_SIZE,
        truncation: float | None = None,
        truncation_center: str = "mean",
        noise: str = "const",
        translate: tuple[float, float] = (0.0, 0.0),
        rotate: float = 0.0,
    ) -> ShownTensor:
        """Draw samples, which notebooks show or play.

            gan.sample(16, labels=3, truncation=0.7, seed=0)
            gan.sample(seed=range(64), truncation_center="class", truncation=0.5).grid(8).save("sheet.png")

        Args:
            num_images: how many; by default one, or one of each seed.
            labels: as in `latents`: classes, vectors, or attributes by name.
            seed: of the latents; the same seed gives the same images. Or a seed for each image.
            batch_size: images computed at a time.
            truncation: psi of generators with styles, threshold of z of others; None for neither.
            truncation_center: what psi moves w towards: the "mean" of all images, or that of the image's "class".
            noise: of StyleGAN and StyleGAN2: "const", "none", or "random", which is drawn for each image from its seed.
            translate: (x, y): moves StyleGAN3's images to the right and down, in image sides.
            rotate: rotates StyleGAN3's images counter-clockwise, in degrees.

        Returns:
            Floats as networks make them, on the CPU: `Images` [N, C, H, W] in about [-1, 1], or `Samples` [N, ...].

        Raises:
            InputError: for an unknown class, labels for an unconditional generator, and unsupported options:
                truncation, center, noise, translate, rotate.
        """
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size} must be at least 1")
        self.check(noise=noise, translate=translate, rotate=rotate)
        latents = self.latents(
            num_images,
            labels=labels,
            seed=seed,
            truncation=truncation,
            truncation_center=truncation_center,
        )
        transform = image_transform(translate, rotate)
        parts = [
            self.synthesize(part, noise=noise, transform=transform, batch_size=batch_size).cpu()
            for part in latents.split(batch_size)
        ]
        return self.shown(parts[0] if len(parts) == 1 else torch.cat(parts))

    def shown(self, samples: Tensor) -> ShownTensor:
        """Wrap samples [N, ...] for notebooks: `Images`, or `Samples`."""
        if self._spec is None:  # decided by the shape, without another forward pass
            channels, height, width = samples.shape[1:]
            self._spec = image_spec(channels=channels, image_size=(height, width))
        spec = self.spec
        as_images = spec.is_image and tuple(samples.shape[1:]) == spec.shape
        return Images(samples) if as_images else Samples(samples, spec)

    @torch.no_grad()
    def synthesize(
        self,
        latents: Latents | Tensor,
        *,
        noise: str = "const",
        transform: Tensor | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Tensor:
        """Make images [N, C, H, W] of latents, on the generator's device and without gradients.

        Args:
            latents: as `latents` returns them; or a tensor, w [N, L, D], or z [N, Z] of a generator without classes.
            noise: of StyleGAN and StyleGAN2: "const", "none", or "random", drawn for each image from its seed.
            transform: of the image plane, for StyleGAN3, [3, 3] or [N, 3, 3], from positions in the new image to the
                old one, in image sides from the center; see `image_transform`.
            batch_size: images computed at a time.

        Raises:
            InputError: for latents that do not match the generator, and unsupported noise or transform.
        """
        latents = latents if isinstance(latents, Latents) else Latents.of(latents)
        self.check_latents(latents)
        self.check(noise=noise)
        if transform is not None:
            if not self.generator.supports_transform:
                raise InputError(
                    f"{self.kind} has no input that a transform could move; stylegan3 has"
                )
            transform = transform.expand(len(latents), 3, 3)
        if len(latents) <= batch_size:
            return self._images(latents, noise, transform)
        parts = []
        for start in range(0, len(latents), batch_size):
            rows = slice(start, start + batch_size)
            moved = None if transform is None else transform[rows]
            parts.append(self._images(latents[rows], noise, moved))
        return torch.cat(parts)

    def _images(self, latents: Latents, noise: str, transform: Tensor | None) -> Tensor:
        """Make images in one forward pass."""
        if not self.has_styles:
            labels = None if latents.labels is None else latents.labels.to(self.device)
            given = [latents.values.to(self.device), labels]
            if self.generator.translates:
                source = latents.source
                if source is None:
                    source = self._sources(range(len(latents)))
                assert source is not None and self.spec.source is not None
                given.append(self.spec.source.encode(source.to(self.device)))
            return samples_made(self.generator(*given))
        w = self._to_w(latents, None, "mean").values.to(self.device)
        drawn = ImageNoise(latents.seeds) if noise == "random" else noise
        moved = {} if transform is None else {"transform": transform.to(w)}
        return self.style_generator.synthesis(w, drawn, **moved)

    def measure_statistics(
        self, num_images: int, *, seed: int = 0, truncation: float | None = None
    ) -> Self:
        """Measure standing statistics of batch norm on this many images, and use them from now on.

        Args:
            num_images: at least 2, in equal batches of at most 64.
            seed: of the latents and labels.
            truncation: of the images to draw.

        Returns:
            This object.

        Raises:
            InputError: when the generator has no batch norm, for fewer than 2 images, or an unsupported
                truncation.
        """
        if num_images < 2:
            raise InputError(f"standing_statistics={num_images} must be at least 2 images")
        self.check(truncation=truncation)
        size = min(num_images, STATISTICS_BATCH)
        own = derive_seed(seed, Stream.STATISTICS)
        batches = (
            self.latents(size, seed=own, start=start, truncation=truncation, space="z")
            for start in range(0, num_images, size)
        )
        standing_statistics(
            self.generator,
            ((each.values.to(self.device), _on(self.device, each.labels)) for each in batches),
        )
        return self

    def check(
        self,
        *,
        truncation: object = None,
        truncation_center: str = "mean",
        noise: str = "const",
        translate: object = (0.0, 0.0),
        rotate: object = 0.0,
    ) -> None:
        """Check that the generator supports options of `sample`.

        Raises:
            InputError: with the reason.
        """
        self.check_truncation(truncation)
        if truncation_center not in CENTERS:
            raise InputError(
                f"truncation_center={truncation_center!r} must be one of {', '.join(CENTERS)}"
            )
        if truncation_center == "class":
            if not self.has_styles:
                raise InputError(
                    f"truncation_center=class moves styles towards their class's mean, and {self.kind} has no styles; "
                    "leave it out"
                )
            if not self.num_classes:
                raise InputError("truncation_center=class: the model has no classes; leave it out")
        check_noise(noise)
        if noise != "const" and not self.generator.has_noise_inputs:
            raise InputError(
                f"noise={noise}: {self.kind} has no noise inputs ({', '.join(NOISE)} are for stylegan and "
                "stylegan2); leave it out"
            )
        self._check_motion(translate, rotate)

    def _check_motion(self, translate: object, rotate: object) -> None:
        pair = list(translate) if isinstance(translate, Sequence) else []
        if len(pair) != 2 or not all(is_finite_number(value) for value in pair):
            raise InputError(
                f"translate={translate!r} must be two numbers, [x, y] in shares of the image's side"
            )
        if not is_finite_number(rotate):
            raise InputError(f"rotate={rotate!r} must be a number of degrees")
        if (any(pair) or rotate) and not self.generator.supports_transform:
            raise InputError(
                f"translate and rotate move the input of stylegan3's layers, and {self.kind} has none; leave them out"
            )

    def check_truncation(self, truncation: object) -> None:
        """Check that the generator supports a truncation, or None.

        Raises:
            InputError: with the reason.
        """
        if truncation is None:
            return
        if isinstance(truncation, bool) or not isinstance(truncation, int | float):
            raise InputError(f"truncation={truncation!r} must be a number, or null for none")
        if not isfinite(truncation):
            raise InputError(f"truncation={truncation} must be finite, or null for none")
        if self.has_styles:
            return
        if not self.generator.supports_z_truncation:
            raise InputError(
                f"truncation={truncation} is not for {self.kind}, whose z are scaled to one length or uniform; "
                "leave it out"
            )
        if truncation <= 0:
            raise InputError(
                f"truncation={truncation}: of {self.kind} it is the threshold beyond which components of z are drawn "
                "again; give a positive number, such as 0.5"
            )


def read_sources(path: Path, kind: SampleKind) -> Tensor:
    """Read a file, or all files of a folder in order of their names, as stored samples [M, ...] of one shape.

    Raises:
        InputError: when there are none, or they differ in shape.
    """
    path = path.expanduser()
    files = sorted(path.glob(f"*{kind.suffix}")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise InputError(f"source={path} must be a {kind.suffix} file or a folder of them")
    found = [_read_source(file, kind) for file in files]
    if shapes := {tuple(one.shape) for one in found if one.shape != found[0].shape}:
        raise InputError(
            f"source={path} holds samples of shapes {tuple(found[0].shape)} and {shapes.pop()}; give those of one shape"
        )
    return torch.stack(found)


def _read_source(file: Path, kind: SampleKind) -> Tensor:
    """Read one file as a stored sample.

    Raises:
        InputError: naming the file, when it is damaged or none of this kind.
    """
    try:
        check_regular(file)
        return kind.read(file)
    except DECODE_ERRORS as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"source={file} is no {kind.name} that can be read ({reason_of(error)})"
        ) from error


def image_transform(translate: tuple[float, float], rotate: float) -> Tensor | None:
    """Return the transform [3, 3], float64, of a moved and rotated image; None for the identity.

    Positions (x, y) are in image sides from the center, y down. Content at p moves to R p + t, so position p shows
    R^-1 (p - t).

    Args:
        translate: (x, y), to the right and down.
        rotate: degrees counter-clockwise around the center, before translating.
    """
    if not any(translate) and not rotate:
        return None
    angle = radians(rotate)
    # with y down, this turns clockwise: the inverse of counter-clockwise
    back = torch.tensor([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]], dtype=torch.float64)
    found = torch.eye(3, dtype=torch.float64)
    found[:2, :2] = back
    found[:2, 2] = -back @ torch.tensor(translate, dtype=torch.float64)
    return found


def _number(labels: Labels) -> int:
    """Number of images of labels; a vector of floats is one label."""
    attributes = by_name(labels)
    if attributes is not None:
        return len(attributes)
    given = torch.as_tensor(labels)
    return 1 if given.ndim == 0 or (given.is_floating_point() and given.ndim == 1) else len(given)


def _on(device: torch.device, rows: Tensor | None) -> Tensor | None:
    return None if rows is None else rows.to(device)
