"""Published weights of R3GAN.

Names of arguments and weights are theirs: https://github.com/brownvc/R3GAN.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gan_lab.errors import InputError
from gan_lab.models.r3gan import Discriminator, Generator
from gan_lab.training.state_dicts import Renames, renamer
from gan_lab.weights.blueprint import MOST_LAYERS, Arguments, Blueprint, Blueprints, read_players

COARSEST = 4  # the published networks' lowest resolution

MOST_STAGES = 12

# prefix in pickled networks
WRAPPED = r"(?:Model\.)?"

# the resampling filter is a constant here
FILTER = r".*\.Resampler\.Kernel"


def read(config: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprints:
    """Read G and D; see `gan_lab.weights.from_published`."""
    return read_players(config, state, generator=generator, discriminator=discriminator)


def generator(arguments: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprint:
    """Read a generator's published arguments, coarsest stage first, and weights."""
    given = Arguments(arguments, "generator")
    ours = stages(given) | {"z_dim": given.take("NoiseDimension", int)}
    finish(given, resolution=ours["image_size"])
    return Blueprint(
        Generator, ours, state, renamer(generator_renames(ours["blocks"]), ignored=FILTER)
    )


def discriminator(arguments: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprint:
    """Read a discriminator's published arguments, finest stage first, and weights."""
    given = Arguments(arguments, "discriminator")
    ours = stages(given)
    finish(given, resolution=ours["image_size"])
    renames = discriminator_renames(ours["blocks"])
    ours |= {name: ours[name][::-1] for name in ("widths", "cardinalities", "blocks")}
    return Blueprint(Discriminator, ours, state, renamer(renames, ignored=FILTER))


def stages(given: Arguments) -> dict[str, Any]:
    """Take the arguments that both networks share, stages in the published order."""
    widths = given.take("WidthPerStage", list)
    if not 0 < len(widths) <= MOST_STAGES:
        raise InputError(
            f"{given.where}: WidthPerStage has {len(widths)} stages; 1 to {MOST_STAGES} are supported"
        )
    return {
        "image_size": COARSEST << len(widths) - 1,
        "channels": 3,
        "num_classes": num_classes(given),
        "label_dim": given.take("ConditionEmbeddingDimension", int, default=0) or 0,
        "widths": widths,
        "cardinalities": given.take("CardinalityPerStage", list),
        "blocks": given.take("BlocksPerStage", list, most=MOST_LAYERS),
        "expansion": given.take("ExpansionFactor", int),
    }


def num_classes(given: Arguments) -> int:
    """Take the number of classes, which pickles call `c_dim`; 0 without."""
    classes = given.take("c_dim", int, default=0)
    return given.take("ConditionDimension", int, default=None) or classes


def finish(given: Arguments, *, resolution: int) -> None:
    """Check fixed arguments, and that none is left."""
    given.expect("KernelSize", 3)
    given.expect("ResamplingFilter", [1, 2, 1])
    given.expect("img_resolution", resolution)
    given.take("FP16Stages", list, default=None)
    given.finish()


def generator_renames(blocks: Sequence[int]) -> Renames:
    """Return published names -> ours, given the blocks of each stage; a published stage starts with its transition."""
    first = rf"{WRAPPED}MainLayers\.0\.Layers\.0"
    renames = [
        (rf"{WRAPPED}EmbeddingLayer\.weight", "embedding.weight"),
        (rf"{WRAPPED}AggregationLayer\.Layer\.weight", "to_image.weight"),
        (rf"{first}\.Basis", "basis"),
        (rf"{first}\.LinearLayer\.weight", "scale.weight"),
    ]
    for stage, count in enumerate(blocks):
        theirs = rf"{WRAPPED}MainLayers\.{stage}\.Layers"
        renames.append((rf"{theirs}\.0\.LinearLayer\..+", f"transitions.{stage - 1}.weight"))
        renames += block_renames(theirs, stage=stage, count=count, start=1)
    return renames


def discriminator_renames(blocks: Sequence[int]) -> Renames:
    """Return published names -> ours, given the blocks of each stage; a published stage ends with its transition."""
    renames = [
        (rf"{WRAPPED}EmbeddingLayer\.weight", "embedding.weight"),
        (rf"{WRAPPED}ExtractionLayer\.Layer\.weight", "from_image.weight"),
        (rf"{WRAPPED}MainLayers\.\d+\.Layers\.\d+\.Basis\.weight", "basis.weight"),
        (rf"{WRAPPED}MainLayers\.\d+\.Layers\.\d+\.LinearLayer\.weight", "features.weight"),
    ]
    for stage, count in enumerate(blocks):
        theirs = rf"{WRAPPED}MainLayers\.{stage}\.Layers"
        renames.append(
            (rf"{theirs}\.{count}\.LinearLayer\.Layer\.weight", f"transitions.{stage}.weight")
        )
        renames += block_renames(theirs, stage=stage, count=count, start=0)
    return renames


def block_renames(theirs: str, *, stage: int, count: int, start: int) -> list[tuple[str, str]]:
    """Return the renames of a stage's residual blocks; published activations have the biases of our convolutions."""
    layers = ((r"LinearLayer(\d)\.Layer\.weight", "weight"), (r"NonLinearity(\d)\.Bias", "bias"))
    return [
        (rf"{theirs}\.{start + i}\.{layer}", rf"stages.{stage}.{i}.conv\1.{leaf}")
        for i in range(count)
        for layer, leaf in layers
    ]
