"""Loading generators: of a run, an exported model, or the Hugging Face hub."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from gan_lab.config import take
from gan_lab.data.sample import SampleSpec
from gan_lab.errors import InputError
from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.latents import check_classes
from gan_lab.training.checkpoint import CONFIG_FILE, checkpoint_path, read, read_config
from gan_lab.training.ema import combined
from gan_lab.training.state_dicts import MisfitError, Origin, network_of
from gan_lab.weights import exported, hub


def load(
    source: str | Path,
    *,
    checkpoint: str | None = None,
    weights: str | None = None,
    ema: float | None = None,
    device: str | torch.device = "cpu",
    trust: Sequence[str] = (),
) -> Gan:
    """Load a generator to draw samples from.

    Args:
        source: a run folder, one of its checkpoints, a folder of `gan-lab export`, or "hf://user/name" (optionally
            followed by "@revision"), an exported model on the Hugging Face hub.
        checkpoint: of a run: "best", "last" or "previous"; by default the best where there is one, else the last.
        weights: "ema" for the moving average, which is the default for a run, "raw" for the generator as trained. An
            exported model has only one of them.
        ema: instead of `weights`, the length of a post-hoc EMA as a share of the training; see `gan_lab.training.ema`.
        device: where to compute.
        trust: packages besides gan_lab whose classes the source may name. Loading imports and calls them, so name only
            code that you would run.

    Returns:
        A `Gan`: `.sample(16, labels=3, seed=0)` gives images [16, C, H, W] in [-1, 1].

    Raises:
        InputError: when the source is missing, damaged or names untrusted code.
    """
    if weights not in (None, "ema", "raw"):
        raise InputError(f"weights={weights!r} must be 'ema' or 'raw'")
    folder = local(source)
    if exported.is_export(folder):
        if checkpoint is not None:
            raise InputError(
                f"checkpoint={checkpoint}: {folder} is an exported model, which has no checkpoints; leave it out"
            )
        if ema is not None:
            raise InputError(
                f"ema={ema}: {folder} is an exported model with one set of weights; give the run instead"
            )
        return exported.load(folder, weights=weights, device=device, trust=trust)
    if ema is not None and weights is not None:
        raise InputError(
            f"ema={ema} and weights={weights} both choose the weights; give one of them"
        )
    return load_run(
        folder,
        checkpoint=checkpoint,
        weights=weights or "ema",
        ema=ema,
        device=device,
        trust=trust,
    )


def local(source: str | Path) -> Path:
    """Return the local path of a source; a model on the hub is downloaded first.

    Raises:
        InputError: when it cannot be downloaded.
    """
    if str(source).startswith(hub.PREFIX):
        return hub.download(str(source))
    return Path(source).expanduser()


def load_run(
    source: str | Path,
    *,
    checkpoint: str | None = None,
    weights: str = "ema",
    ema: float | None = None,
    device: str | torch.device = "cpu",
    trust: Sequence[str] = (),
) -> Gan:
    """Load the generator of a run folder to draw samples from.

    Args:
        source: a run folder, or one of its checkpoints.
        checkpoint: "best", "last" or "previous"; by default the best where there is one, else the last.
        weights: "ema" for the moving average, "raw" for the generator as trained.
        ema: as in `load`.
        device: where to compute.
        trust: packages besides gan_lab whose classes the folder's config.yaml may name. Loading imports and calls
            them, so name only what you would run.

    Returns:
        A `Gan`: `.sample(16, labels=3, seed=0)` gives images [16, C, H, W] in [-1, 1].

    Raises:
        InputError: when the folder, its configuration or its checkpoint is missing, damaged or names untrusted code.
    """
    if weights not in ("ema", "raw"):
        raise InputError(f"weights={weights!r} must be 'ema' or 'raw'")
    path = checkpoint_path(Path(source), checkpoint)
    state = read(path)
    config = read_config(path.parent.parent)
    if ema is not None:
        made = combined(path.parent.parent, state, ema)
        state["state_dict"] |= {f"generator_ema.{name}": value for name, value in made.items()}
    generator = player(
        "generator", config, state, average=weights == "ema", origin=path, trust=trust
    )
    return as_gan(
        generator.to(device), config, state, origin=path.parent.parent / CONFIG_FILE, trust=trust
    )


def load_discriminator(
    source: Path, gan: Gan, *, checkpoint: str | None, trust: Sequence[str]
) -> Callable[[Tensor, Tensor | None], Tensor] | None:
    """Load the discriminator of a run or an exported model as a function: stored samples and classes to logits [N].

    Args:
        source: as in `load`, on this machine.
        gan: the generator that was loaded from it.
        checkpoint: as in `load`.
        trust: as in `load`.

    Returns:
        The function; None where there is no discriminator, or where it needs label vectors.

    Raises:
        InputError: as `load`.
    """
    if exported.is_export(source):
        description = exported.read_description(source)
        if not description.get("discriminator"):
            return None
        network = exported.network(source, description, "discriminator", trust=trust)
    else:
        path = checkpoint_path(source, checkpoint)
        config = read_config(path.parent.parent)
        model = config.get("model", {})
        if not model.get("discriminator") or model.get("discriminator_spectral_norm"):
            return None
        network = player(
            "discriminator", config, read(path), average=False, origin=path, trust=trust
        )
    if network.num_classes and gan.attributes:
        return None
    cast(Any, network).prepare()
    network.eval().requires_grad_(False).to(gan.device)

    @torch.no_grad()
    def discriminate(stored: Tensor, labels: Tensor | None) -> Tensor:
        samples = gan.spec.encode(stored.to(gan.device))
        classes = None if labels is None or not network.num_classes else labels.to(gan.device)
        # with an encoder, the discriminator sees pairs of samples and their codes
        generator = gan.generator
        x = (samples, cast(Any, generator).encode(samples)) if generator.has_encoder else samples
        logits: Tensor = network(x, classes)
        return logits.float().reshape(len(stored), -1).mean(1)

    return discriminate


def player(
    name: str,
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    *,
    average: bool,
    origin: Path,
    trust: Sequence[str],
) -> Any:
    """Build a player's network with a checkpoint's weights.

    Args:
        name: "generator" or "discriminator".
        config: of the run.
        state: of the checkpoint.
        average: whether to take the generator's moving average.
        origin: the checkpoint's path.
        trust: packages besides gan_lab whose classes the configuration may name.

    Raises:
        InputError: for a config without this player, or of another one than the checkpoint.
    """
    file = origin.parent.parent / CONFIG_FILE
    node = take(config, f"model.{name}", dict[str, Any], origin=file)
    prefix = "generator_ema." if average else f"{name}."
    weights = {
        key.removeprefix(prefix): value
        for key, value in state["state_dict"].items()
        if key.startswith(prefix)
    }
    try:
        return network_of(node, exported.NETWORKS[name], weights, origin=file, trust=trust)
    except MisfitError as error:
        raise InputError(
            f"{origin} does not belong to the run that {file} describes: {error}"
        ) from error


def as_gan(
    generator: GeneratorNetwork,
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    *,
    origin: Path,
    trust: Sequence[str],
) -> Gan:
    """Wrap a run's generator as a `Gan`.

    Raises:
        InputError: when its config has other classes than the generator.
    """
    spec = read_spec(config, state["state_dict"], origin=origin, trust=trust)
    check_classes(generator.num_classes, spec, origin=origin)
    return Gan(
        generator.eval().requires_grad_(False),
        spec=spec,
        kimg=state["clock"]["images_seen"] / 1000,
    )


def open_origin(source: str | Path) -> Origin:
    """Read the networks of `init_from`.

    Args:
        source: a run folder, a checkpoint, an exported model, or one on the Hugging Face hub, as in `load`.

    Raises:
        InputError: when it is missing or damaged.
    """
    path = local(source)
    return _origin_of_export(path) if exported.is_export(path) else _origin_of_run(path)


def _origin_of_run(source: Path) -> Origin:
    """Read the networks of a run folder or a checkpoint."""
    path = checkpoint_path(source)
    state = read(path)["state_dict"]
    run_dir = path.parent.parent
    nodes: Any = {}
    if (run_dir / CONFIG_FILE).exists():
        nodes = take(read_config(run_dir), "model", dict[str, Any], origin=run_dir / CONFIG_FILE)
    players = {name.split(".")[0] for name in state}
    states = {player: below(state, player) for player in players}
    return Origin(path, run_dir / CONFIG_FILE, states, nodes)


def _origin_of_export(folder: Path) -> Origin:
    """Read the networks of an exported model; its generator is also used as the moving average."""
    description = exported.read_description(folder)
    there = [player for player in exported.NETWORKS if description.get(player)]
    states = {player: exported.state(folder, description, player) for player in there}
    states["generator_ema"] = states["generator"]
    nodes = {player: description[player].get("network") for player in there}
    return Origin(folder, folder / exported.DESCRIPTION, states, nodes)


def below(state: Mapping[str, Tensor], player: str) -> dict[str, Tensor]:
    """Return the entries of a checkpoint's state that belong to a player."""
    prefix = f"{player}."
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def read_spec(
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    *,
    origin: Path,
    trust: Sequence[str],
) -> SampleSpec:
    """Return the sample spec of a run, with its representation's buffers.

    Args:
        config: of the run.
        state: weights and buffers of a checkpoint, by name.
        origin: the file of the configuration.
        trust: packages besides gan_lab whose classes it may name.

    Raises:
        InputError: when the config has no sample spec, or names untrusted code.
    """
    node = take(config, "sample", dict[str, Any], origin=origin)
    spec = SampleSpec.from_dict(node, origin=origin, trust=trust)
    spec.representation.load_state_dict(below(state, "representation"))
    return spec
