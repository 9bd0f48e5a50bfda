"""Loading exported models, folders with weights and a description, without Lightning, Hydra or code of others.

`model.json` describes the generator, `model.safetensors` holds its weights, `README.md` is the model card.
`gan-lab export` writes such a folder (`gan_lab.weights`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from gan_lab.config import read_json, take
from gan_lab.data.sample import SampleSpec
from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorNetwork, GeneratorNetwork
from gan_lab.metrics.features import file_sha256
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.latents import check_classes
from gan_lab.training.state_dicts import MisfitError, network_of

FORMAT = 2

DESCRIPTION = "model.json"

CARD = "README.md"

GRID = "grid.png"

WEIGHTS = {
    "generator": "model.safetensors",
    "discriminator": "discriminator.safetensors",
    "representation": "representation.safetensors",
}

PROGRAMS = {"torch": "generator.pt2", "onnx": "generator.onnx"}

# weights and arguments for the classes of NVIDIA's stylegan3 repository
NVIDIA = {
    "arguments": "nvidia.json",
    "generator": "nvidia_generator.pt",
    "discriminator": "nvidia_discriminator.pt",
}

NETWORKS: dict[str, type[nn.Module]] = {
    "generator": GeneratorNetwork,
    "discriminator": DiscriminatorNetwork,
}

# keys of `model.json` that loading needs, and their types
NEEDED: dict[str, Any] = {
    "generator": dict[str, Any],
    "generator.network": dict[str, Any],
    "sample": dict[str, Any],
    "discriminator": dict[str, Any] | None,
    "kimg": Annotated[float, Field(ge=0, allow_inf_nan=False)],
    "gan_lab": str,
}

# further keys of `model.json`, for exporting again
ABOUT: dict[str, Any] = {
    "name": str,
    "generator.network._target_": Annotated[str, Field(pattern=r"\..*\.")],
    "generator.weights": str,
    "sample.kind._target_": str,
    "sample.shape": list[int],
    "sample.num_classes": int,
    "source": dict[str, Any],
    "metrics": list[dict[str, Any]],
    "best": dict[str, Any] | None,
    "license": str | None,
    "programs": dict[str, dict[str, Any]],
    "recipe": dict[str, Any],
    "git_revision": str | None,
    "standing_statistics": dict[str, Any] | None,
}


def is_export(folder: Path) -> bool:
    """Whether a folder holds an exported model."""
    return (folder / DESCRIPTION).is_file()


def read_description(folder: Path) -> dict[str, Any]:
    """Read `model.json` of an exported model.

    Raises:
        InputError: when it is missing, damaged, or of an unsupported format version.
    """
    path = folder / DESCRIPTION
    if not path.exists():
        raise InputError(f"{folder} is not an exported model: it has no {DESCRIPTION}")
    description = read_json(path)
    made = description.get("format") if isinstance(description, dict) else None
    if not isinstance(made, int) or isinstance(made, bool) or made < 1:
        raise InputError(f"{path} is not an exported model of gan_lab: it has no format number")
    if made != FORMAT:
        raise InputError(
            f"{path} has format {made}, written by gan_lab {description.get('gan_lab', 'unknown')}; this gan_lab reads "
            f"format {FORMAT}: install that version, or export the model again"
        )
    for key, kind in NEEDED.items():
        take(description, key, kind, origin=path)
    return description


def read_about(folder: Path) -> dict[str, Any]:
    """Read all of `model.json`, including what sampling does not need.

    Raises:
        InputError: as `read_description`.
    """
    description = read_description(folder)
    for key, kind in ABOUT.items():
        take(description, key, kind, origin=folder / DESCRIPTION)
    return description


def load(
    folder: Path,
    *,
    weights: str | None = None,
    device: str | torch.device = "cpu",
    trust: Sequence[str] = (),
) -> Gan:
    """Load an exported generator to draw samples from.

    Args:
        folder: with `model.json` and `model.safetensors`.
        weights: "ema" or "raw" to require these; None for whichever was exported.
        device: where to compute.
        trust: packages besides gan_lab whose classes `model.json` may name.

    Raises:
        InputError: when a file is missing, damaged, of a newer format, or names other code.
    """
    description = read_description(folder)
    kept = description["generator"].get("weights")
    if weights not in (None, kept):
        raise InputError(
            f"weights={weights}: {folder} holds the {kept} weights alone; leave weights= out"
        )
    generator = network(folder, description, "generator", trust=trust)
    assert isinstance(generator, GeneratorNetwork)
    spec = read_spec(folder, description, trust=trust)
    check_classes(generator.num_classes, spec, origin=folder / DESCRIPTION)
    return Gan(
        generator.eval().requires_grad_(False).to(device),
        spec=spec,
        kimg=description["kimg"],
    )


def read_spec(
    folder: Path, description: Mapping[str, Any], *, trust: Sequence[str] = ()
) -> SampleSpec:
    """Return the sample spec of an exported model, with its representation's buffers.

    Raises:
        InputError: as `load`.
    """
    spec = SampleSpec.from_dict(description["sample"], origin=folder / DESCRIPTION, trust=trust)
    if description.get("representation"):
        spec.representation.load_state_dict(state(folder, description, "representation"))
    return spec


def network(
    folder: Path, description: Mapping[str, Any], player: str, *, trust: Sequence[str] = ()
) -> nn.Module:
    """Build a player's network with its exported weights.

    The file is checked before memory for the network is allocated.

    Raises:
        InputError: as `load`.
    """
    origin = folder / DESCRIPTION
    node = description[player].get("network")
    weights = state(folder, description, player)
    try:
        return network_of(node, NETWORKS[player], weights, origin=origin, trust=trust)
    except MisfitError as error:
        raise InputError(f"{folder / WEIGHTS[player]}: {error}; export the model again") from error


def state(folder: Path, description: Mapping[str, Any], player: str) -> dict[str, Tensor]:
    """Read a player's weights by name.

    Raises:
        InputError: when the file is missing, or its hash is not that in `model.json`.
    """
    path = folder / WEIGHTS[player]
    if not path.is_file():
        raise InputError(f"{folder} has no {path.name}; get the whole folder again")
    expected = description[player].get("sha256")
    found = file_sha256(path)
    if found != expected:
        raise InputError(
            f"{path} has the SHA-256 {found}, but {DESCRIPTION} says {expected}: it is damaged, cut short or of "
            "another model; get both files again"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); export the model again") from error
