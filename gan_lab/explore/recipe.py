"""What a picture on the page is made of: a tree of plain values from the browser, checked before anything is drawn."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gan_lab.errors import InputError

Number = Annotated[float, Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
Whole = Annotated[int, Field(ge=0, strict=True)]
Label = Whole | None


class Part(BaseModel):
    """A part of a recipe; a key that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Seeded(Part):
    """The first latent of a seed, with a class or None."""

    seed: Seed
    label: Label = None


class Kept(Part):
    """Latents that the server keeps, such as those of a projected image."""

    latents: str


class Between(Part):
    """A share `t` of the way from one point to another."""

    start: "Seeded | Kept | Between"
    end: "Seeded | Kept | Between"
    t: Number


Point = Seeded | Kept | Between


class Mix(Part):
    """The styles of layers `first` to `last`, both counted, are another seed's."""

    seed: Seed
    first: Whole
    last: Whole


class Walk(Part):
    """Steps along directions, in units of their standard deviations, the first direction's first."""

    method: Literal["sefa", "ganspace"]
    amounts: Annotated[list[Number], Field(max_length=64)]


class Recipe(Part):
    """All that decides on a picture.

    Attributes:
        model: number of the generator on the page.
        point: where it lies.
        truncation: psi or threshold; None for none.
        center: what psi draws towards.
        mix: styles of another seed.
        walk: steps along found directions.
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
        InputError: naming each part that is wrong and what it may be.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        wrong = [
            f"{'.'.join(str(part) for part in one['loc']) or 'recipe'}: {one['msg']}"
            for one in error.errors(include_url=False)
        ]
        raise InputError("; ".join(wrong)) from error
    except RecursionError as error:
        raise InputError("points lie too deep within each other; pin fewer of them") from error
