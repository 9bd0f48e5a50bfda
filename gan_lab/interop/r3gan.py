"""R3GAN networks as their repository stores them.

Names of arguments and weights are theirs: https://github.com/brownvc/R3GAN.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from gan_lab.interop.arguments import Arguments
from gan_lab.interop.weights import Renames, load, part
from gan_lab.models.r3gan import Discriminator, Generator

COARSEST = 4  # side of the published networks' smallest resolution
# what a pickled network wraps around
WRAPPED = r"(?:Model\.)?"
# the resampling filter is a constant here
FILTER = r".*\.Resampler\.Kernel"


def from_published(
    config: Mapping[str, Any], state: Mapping[str, Any] | None
) -> dict[str, nn.Module]:
    """Build G and D; see `gan_lab.interop.from_published`."""
    networks: dict[str, nn.Module] = {}
    if "generator" in config:
        networks["G"] = generator(config["generator"], part(state, "G"))
    if "discriminator" in config:
        networks["D"] = discriminator(config["discriminator"], part(state, "D"))
    return networks


def generator(arguments: Mapping[str, Any], state: Mapping[str, Any] | None) -> Generator:
    """Build a generator from its published arguments and weights."""
    given = Arguments(arguments, "generator")
    widths = given.take("WidthPerStage", list)
    network = Generator(
        image_size=COARSEST << len(widths) - 1,
        channels=3,
        num_classes=num_classes(given),
        latent_dim=given.take("NoiseDimension", int),
        label_dim=given.take("ConditionEmbeddingDimension", int, default=0) or 0,
        widths=widths,
        cardinalities=given.take("CardinalityPerStage", list),
        blocks=given.take("BlocksPerStage", list),
        expansion=given.take("ExpansionFactor", int),
    )
    finish(given, resolution=COARSEST << len(widths) - 1)
    if state is not None:
        load(network, state, generator_renames(network), ignored=FILTER)
    return network.eval()


def discriminator(arguments: Mapping[str, Any], state: Mapping[str, Any] | None) -> Discriminator:
    """Build a discriminator from its published arguments, finest stage first, and weights."""
    given = Arguments(arguments, "discriminator")
    widths = given.take("WidthPerStage", list)
    network = Discriminator(
        image_size=COARSEST << len(widths) - 1,
        channels=3,
        num_classes=num_classes(given),
        label_dim=given.take("ConditionEmbeddingDimension", int, default=0) or 0,
        widths=widths[::-1],
        cardinalities=given.take("CardinalityPerStage", list)[::-1],
        blocks=given.take("BlocksPerStage", list)[::-1],
        expansion=given.take("ExpansionFactor", int),
    )
    finish(given, resolution=COARSEST << len(widths) - 1)
    if state is not None:
        load(network, state, discriminator_renames(network), ignored=FILTER)
    return network.eval()


def num_classes(given: Arguments) -> int:
    """Take the number of classes, which pickles call `c_dim`; 0 without."""
    classes = given.take("c_dim", int, default=0)
    return given.take("ConditionDimension", int, default=None) or classes


def finish(given: Arguments, *, resolution: int) -> None:
    """Take what is fixed here or concerns precision only, and refuse the rest."""
    given.expect("KernelSize", 3)
    given.expect("ResamplingFilter", [1, 2, 1])
    given.expect("img_resolution", resolution)
    given.take("FP16Stages", list, default=None)
    given.finish()


def generator_renames(network: Generator) -> Renames:
    """Return published names -> ours; their stages begin with what joins them to the one before."""
    first = rf"{WRAPPED}MainLayers\.0\.Layers\.0"
    renames = [
        (rf"{WRAPPED}EmbeddingLayer\.weight", "embedding.weight"),
        (rf"{WRAPPED}AggregationLayer\.Layer\.weight", "to_image.weight"),
        (rf"{first}\.Basis", "basis"),
        (rf"{first}\.LinearLayer\.weight", "scale.weight"),
    ]
    for stage, blocks in enumerate(network.stages):
        theirs = rf"{WRAPPED}MainLayers\.{stage}\.Layers"
        renames.append((rf"{theirs}\.0\.LinearLayer\..+", f"transitions.{stage - 1}.weight"))
        renames += block_renames(theirs, stage=stage, count=len(list(blocks.children())), start=1)
    return renames


def discriminator_renames(network: Discriminator) -> Renames:
    """Return published names -> ours; their stages end with what joins them to the next."""
    renames = [
        (rf"{WRAPPED}EmbeddingLayer\.weight", "embedding.weight"),
        (rf"{WRAPPED}ExtractionLayer\.Layer\.weight", "from_image.weight"),
        (rf"{WRAPPED}MainLayers\.\d+\.Layers\.\d+\.Basis\.weight", "basis.weight"),
        (rf"{WRAPPED}MainLayers\.\d+\.Layers\.\d+\.LinearLayer\.weight", "features.weight"),
    ]
    for stage, blocks in enumerate(network.stages):
        theirs = rf"{WRAPPED}MainLayers\.{stage}\.Layers"
        count = len(list(blocks.children()))
        renames.append(
            (rf"{theirs}\.{count}\.LinearLayer\.Layer\.weight", f"transitions.{stage}.weight")
        )
        renames += block_renames(theirs, stage=stage, count=count, start=0)
    return renames


def block_renames(theirs: str, *, stage: int, count: int, start: int) -> list[tuple[str, str]]:
    """Return the renames of a stage's residual blocks; a bias that follows a convolution is that convolution's here."""
    layers = ((r"LinearLayer(\d)\.Layer\.weight", "weight"), (r"NonLinearity(\d)\.Bias", "bias"))
    return [
        (rf"{theirs}\.{start + i}\.{layer}", rf"stages.{stage}.{i}.conv\1.{leaf}")
        for i in range(count)
        for layer, leaf in layers
    ]
