"""A generator of the explore page: its abilities, and samples of recipes."""

import io
import secrets
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from gan_lab.data.sample import SampleSpec, to_pil
from gan_lab.errors import InputError
from gan_lab.layers.networks import label_vectors
from gan_lab.layers.stylegan import replace_styles
from gan_lab.sampling.directions import Directions, directions
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.interpolation import slerp
from gan_lab.sampling.latents import Latents
from gan_lab.sampling.sampler import image_transform

DIRECTIONS = 8  # number of sliders per method
FROM = {"kind": "explore"}
MOST_POINTS = 64  # limit of points in a recipe; each is a pass through the mapping network
MOST_KEPT = 64  # limit of saved latents; the oldest are dropped

# beyond these limits float32 overflows
Number = Annotated[float, Field(ge=-1e4, le=1e4, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
Whole = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
# a class, or attributes by name; missing ones are drawn from the seed
Label = Whole | dict[str, Number] | None


class RecipePart(BaseModel):
    """A part of a recipe; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Seeded(RecipePart):
    """The first latent of a seed, with a given or drawn label."""

    seed: Seed
    label: Label = None


class SavedLatents(RecipePart):
    """Latents kept on the server, such as those of a projected image."""

    latents: str


class Between(RecipePart):
    """Interpolation between two points at `t` in [0, 1]."""

    start: "Seeded | SavedLatents | Between"
    end: "Seeded | SavedLatents | Between"
    t: Number


Point = Seeded | SavedLatents | Between


class Mix(RecipePart):
    """Style mixing: layers `first` to `last` (inclusive) have another seed's styles."""

    seed: Seed
    first: Whole
    last: Whole


class Walk(RecipePart):
    """Steps along directions, in units of their standard deviations, in the order of the directions."""

    method: Literal["sefa", "ganspace"]
    amounts: Annotated[list[Number], Field(max_length=64)]


class Recipe(RecipePart):
    """All settings of a sample.

    Attributes:
        model: number of the generator on the page.
        point: its latent.
        truncation: psi or threshold; None for none.
        center: the center of truncation.
        mix: styles of another seed.
        walk: steps along directions.
        noise: of generators with noise inputs.
        translate: shares of the image's side, to the right and down.
        rotate: degrees, counter-clockwise.
    """

    model: Whole = 0
    point: Point
    truncation: Number | None = None
    center: Literal["mean", "class"] = "mean"
    mix: Mix | None = None
    walk: Walk | None = None
    noise: Literal["const", "none"] = "const"
    translate: tuple[Number, Number] = (0.0, 0.0)
    rotate: Number = 0.0


def parse(values: Any) -> Recipe:
    """Read a recipe as the page sends it.

    Raises:
        InputError: naming each wrong part and what is allowed.
    """
    try:
        recipe = Recipe.model_validate(values)
        if count_points(recipe.point) > MOST_POINTS:
            raise InputError(f"there are more than {MOST_POINTS} points; pin fewer of them")
        return recipe
    except ValidationError as error:
        wrong = [
            f"{'.'.join(str(part) for part in one['loc']) or 'recipe'}: {one['msg']}"
            for one in error.errors(include_url=False)
        ]
        raise InputError("; ".join(wrong)) from error
    except RecursionError as error:
        raise InputError("points are nested too deeply; pin fewer of them") from error


def count_points(point: Point) -> int:
    """Count the points in a nested point."""
    if isinstance(point, Between):
        return count_points(point.start) + count_points(point.end)
    return 1


@dataclass(frozen=True)
class Abilities:
    """What a generator supports.

    Attributes:
        name: of the run.
        kind: of the architecture.
        kimg: how long it was trained.
        sample: description of its samples.
        media_type: of its samples.
        size: height and width of its preview.
        classes: names of the classes.
        attributes: name, smallest and largest value of each.
        styles: number of styles, 0 without.
        levels: first and last style of "coarse" and so on.
        truncation: "psi", "threshold" or None.
        noise: whether it has noise inputs.
        supports_transform: whether images can be translated and rotated.
        projects: whether images can be projected.
        walks: methods for directions.
    """

    name: str
    kind: str
    kimg: float
    sample: str
    media_type: str
    size: tuple[int, int]
    classes: list[str]
    attributes: list[tuple[str, float, float]]
    styles: int
    levels: dict[str, tuple[int, int]]
    truncation: str | None
    noise: bool
    supports_transform: bool
    projects: bool
    walks: list[str]


class Studio:
    """A generator on the page; all methods but `keep` are called by one thread.

    Args:
        gan: the generator.
        name: its name on the page.
    """

    def __init__(self, gan: Gan, *, name: str) -> None:
        self.gan = gan
        self.name = name
        self._kept: dict[str, Latents] = {}
        self._directions: dict[str, Directions] = {}
        self._last: tuple[Recipe, Tensor] | None = None
        height, width = gan.spec.preview(gan.synthesize(gan.latents(1))).shape[-2:]
        self._size = height, width

    def abilities(self) -> Abilities:
        """Return what the generator supports."""
        gan = self.gan
        generator = gan.generator
        threshold = "threshold" if generator.supports_z_truncation else None
        count = 0 if gan.attributes else gan.num_classes
        names = list(gan.class_names) if count else []
        ends = gan.spec.attribute_ranges
        return Abilities(
            name=self.name,
            kind=gan.kind,
            kimg=round(gan.kimg, 1),
            sample=describe_sample(gan.spec),
            media_type=gan.spec.kind.media_type,
            size=self._size,
            classes=names or [str(i) for i in range(count)],
            attributes=[(one, *ends[i]) for i, one in enumerate(gan.attributes)],
            styles=gan.num_ws if gan.has_styles else 0,
            levels=levels(gan),
            truncation="psi" if gan.has_styles else threshold,
            noise=generator.has_noise_inputs,
            supports_transform=generator.supports_transform,
            projects=gan.spec.is_image
            and gan.spec.encoded_shape == gan.spec.shape
            and not gan.attributes,
            walks=["sefa", "ganspace"] if gan.has_styles else ["sefa"],
        )

    def media(self, recipe: Recipe) -> bytes:
        """Render a recipe in the samples' media type.

        Raises:
            InputError: for settings that this generator does not support.
        """
        if self.gan.spec.is_image:
            return self.image(recipe)
        return self.gan.spec.kind.media(self._draw(recipe))

    def image(self, recipe: Recipe) -> bytes:
        """Render a recipe's preview as PNG.

        Raises:
            InputError: for settings that this generator does not support.
        """
        return encoded(self.gan.spec.kind.preview(self._draw(recipe)[None])[0])

    def _draw(self, recipe: Recipe) -> Tensor:
        """Return the stored sample [...] of a recipe; the last one is cached, since the page requests it twice."""
        if self._last is None or self._last[0] != recipe:
            latents = self._latents(recipe)
            transform = image_transform(recipe.translate, recipe.rotate)
            made = self.gan.synthesize(latents, noise=recipe.noise, transform=transform)
            self._last = recipe, self.gan.spec.decode(made)[0].cpu()
        return self._last[1]

    def latents(self, recipe: Recipe) -> bytes:
        """Return a recipe's latents as a file for generate, interpolate and mix, without noise and transform.

        Raises:
            InputError: for settings that this generator does not support.
        """
        latents = self._latents(recipe)
        with TemporaryDirectory() as folder:
            return latents.save(Path(folder) / "latents.safetensors").read_bytes()

    def keep(self, latents: Latents) -> str:
        """Save latents for use in recipes; return their name."""
        name = secrets.token_hex(8)
        self._kept[name] = latents
        while len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return name

    def shares(self, method: str) -> list[float]:
        """Return the share of the variance that each direction explains."""
        return self._find(method).shares.tolist()

    def _latents(self, recipe: Recipe) -> Latents:
        """Return the latents of a recipe: w, or z with label vectors."""
        gan = self.gan
        gan.check(
            truncation=recipe.truncation,
            truncation_center=recipe.center,
            noise=recipe.noise,
            translate=recipe.translate,
            rotate=recipe.rotate,
        )
        if gan.has_styles:
            return Latents(w=self._walked(self._mixed(recipe), recipe.walk), metadata=FROM)
        if recipe.mix is not None:
            raise InputError(f"{gan.kind} has no styles to mix")
        z, labels = self._z(recipe.point, recipe)
        return Latents(z=self._walked(z, recipe.walk), labels=labels, metadata=FROM)

    def _mixed(self, recipe: Recipe) -> Tensor:
        """Return w [1, L, D] of a recipe, before steps along directions."""
        w = self._w(recipe.point, recipe)
        if recipe.mix is None:
            return w
        first, last = recipe.mix.first, recipe.mix.last
        if not first <= last < w.shape[1]:
            raise InputError(
                f"mix: layers {first} to {last} must be in order, within 0 to {w.shape[1] - 1}"
            )
        other = self._w(Seeded(seed=recipe.mix.seed, label=label_of(recipe.point)), recipe)
        return replace_styles(w, other, range(first, last + 1))

    def _w(self, point: Point, recipe: Recipe) -> Tensor:
        """Return w [1, L, D] of a point. Truncation applies to seeds only, not to projected images."""
        if isinstance(point, Between):
            start, end = (self._w(one, recipe) for one in (point.start, point.end))
            return torch.lerp(start, end, point.t)
        if isinstance(point, SavedLatents):
            return self._find_kept(point).values.to(self.gan.device)
        return self._seeded(point, recipe).values

    def _z(self, point: Point, recipe: Recipe) -> tuple[Tensor, Tensor | None]:
        """Return z [1, Z] and label vectors [1, K] of a point: spherical interpolation of z, linear of labels."""
        if isinstance(point, Between):
            (z0, y0), (z1, y1) = (self._z(one, recipe) for one in (point.start, point.end))
            labels = None if y0 is None or y1 is None else torch.lerp(y0, y1, point.t)
            return slerp(z0, z1, point.t), labels
        if isinstance(point, SavedLatents):
            found = self._find_kept(point)
        else:
            found = self._seeded(point, recipe)
        labels = found.labels
        return found.values, None if labels is None else label_vectors(
            labels, self.gan.num_classes, found.values
        )

    def _seeded(self, point: Seeded, recipe: Recipe) -> Latents:
        # the page has one label for both runs, of which one may be unconditional
        label = point.label if self.gan.num_classes else None
        if isinstance(label, dict):
            label = {name: label[name] for name in self.gan.attributes if name in label}
        elif self.gan.attributes:
            label = None
        label = label or None if isinstance(label, dict) else label
        return self.gan.latents(
            1,
            seed=point.seed,
            labels=label,
            truncation=recipe.truncation,
            truncation_center=recipe.center,
        )

    def _walked(self, latents: Tensor, walk: Walk | None) -> Tensor:
        if walk is None or not any(walk.amounts):
            return latents
        found = self._find(walk.method)
        # the page has the same sliders for both runs, of which one may have fewer directions
        return found.apply(latents, walk.amounts[: len(found)])

    def _find(self, method: str) -> Directions:
        if method not in self._directions:
            self._directions[method] = directions(self.gan, method, count=DIRECTIONS)
        return self._directions[method]

    def _find_kept(self, point: SavedLatents) -> Latents:
        if point.latents not in self._kept:
            raise InputError(
                "these latents are no longer saved, or belong to the other run; project the image again"
            )
        return self._kept[point.latents]


def encoded(pixels: Tensor) -> bytes:
    """Encode an image uint8 [C, H, W] as PNG."""
    file = io.BytesIO()
    # low compression: the connection is local, and compressing takes longer than sending
    to_pil(pixels).save(file, "png", compress_level=1)
    return file.getvalue()


def describe_sample(spec: SampleSpec) -> str:
    """Describe a sample, such as 64×64, or audio 1×16384."""
    if spec.is_image:
        return f"{spec.shape[2]}×{spec.shape[1]}"
    return f"{spec.kind.name} {'×'.join(map(str, spec.shape))}"


def levels(gan: Gan) -> dict[str, tuple[int, int]]:
    """Return the first and last style of each non-empty level."""
    if not gan.has_styles:
        return {}
    return {
        name: (found[0], found[-1]) for name, found in gan.style_generator.levels().items() if found
    }


def label_of(point: Point) -> int | dict[str, float] | None:
    """Return the label of a seeded point, None for others."""
    return point.label if isinstance(point, Seeded) else None
