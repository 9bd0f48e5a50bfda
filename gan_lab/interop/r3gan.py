"""Weights of the R3GAN networks under their published names and arguments."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gan_lab.models.r3gan import Discriminator, Generator

COARSEST = 4  # side of the published networks' smallest resolution

# published layer inside a residual block -> ours
BLOCK = {
    "LinearLayer1.Layer.weight": "conv1.weight",
    "NonLinearity1.Bias": "conv1.bias",
    "LinearLayer2.Layer.weight": "conv2.weight",
    "NonLinearity2.Bias": "conv2.bias",
    "LinearLayer3.Layer.weight": "conv3.weight",
}


def build_generator(arguments: Mapping[str, Any], *, channels: int = 3) -> Generator:
    """Build the generator that published arguments describe."""
    widths = list(arguments["WidthPerStage"])
    return Generator(
        image_size=COARSEST << len(widths) - 1,
        channels=channels,
        num_classes=arguments.get("ConditionDimension") or 0,
        latent_dim=arguments["NoiseDimension"],
        label_dim=arguments.get("ConditionEmbeddingDimension") or 0,
        widths=widths,
        cardinalities=list(arguments["CardinalityPerStage"]),
        blocks=list(arguments["BlocksPerStage"]),
        expansion=arguments["ExpansionFactor"],
    )


def build_discriminator(arguments: Mapping[str, Any], *, channels: int = 3) -> Discriminator:
    """Build the discriminator that published arguments, finest stage first, describe."""
    widths = list(arguments["WidthPerStage"])[::-1]
    return Discriminator(
        image_size=COARSEST << len(widths) - 1,
        channels=channels,
        num_classes=arguments.get("ConditionDimension") or 0,
        label_dim=arguments.get("ConditionEmbeddingDimension") or 0,
        widths=widths,
        cardinalities=list(arguments["CardinalityPerStage"])[::-1],
        blocks=list(arguments["BlocksPerStage"])[::-1],
        expansion=arguments["ExpansionFactor"],
    )


def generator_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a published generator's tensors."""
    return {_generator_name(name): tensor for name, tensor in state.items() if _kept(name)}


def discriminator_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a published discriminator's tensors."""
    last = max(int(name.split(".")[1]) for name in state if name.startswith("MainLayers."))
    return {
        _discriminator_name(name, last): tensor for name, tensor in state.items() if _kept(name)
    }


def _kept(name: str) -> bool:
    # the resampling filter is a constant here
    return not name.endswith("Resampler.Kernel")


def _generator_name(name: str) -> str:
    plain = {
        "EmbeddingLayer.weight": "embedding.weight",
        "AggregationLayer.Layer.weight": "to_image.weight",
        "MainLayers.0.Layers.0.Basis": "basis",
        "MainLayers.0.Layers.0.LinearLayer.weight": "scale.weight",
    }
    if name in plain:
        return plain[name]
    stage, layer, rest = _parts(name)
    if layer == 0:
        return f"transitions.{stage - 1}.weight"
    return f"stages.{stage}.{layer - 1}.{BLOCK[rest]}"


def _discriminator_name(name: str, last: int) -> str:
    plain = {"EmbeddingLayer.weight": "embedding.weight", "ExtractionLayer.Layer.weight": "from_image.weight"}
    if name in plain:
        return plain[name]
    stage, layer, rest = _parts(name)
    if rest in BLOCK:
        return f"stages.{stage}.{layer}.{BLOCK[rest]}"
    if stage < last:
        return f"transitions.{stage}.weight"
    return {"Basis.weight": "basis.weight", "LinearLayer.weight": "features.weight"}[rest]


def _parts(name: str) -> tuple[int, int, str]:
    match = re.fullmatch(r"MainLayers\.(\d+)\.Layers\.(\d+)\.(.+)", name)
    if match is None:
        raise KeyError(name)
    return int(match[1]), int(match[2]), match[3]
