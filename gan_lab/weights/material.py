"""What is exported: a generator with all that is known of it, from a run or from an earlier export."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from torch import Tensor

from gan_lab.config import take
from gan_lab.errors import InputError
from gan_lab.metrics.features.base import file_sha256
from gan_lab.run import git_revision, read_results
from gan_lab.sampling.gan import Gan
from gan_lab.training.checkpoint import CONFIG_FILE, checkpoint_path, read, read_config
from gan_lab.training.loggers.files import read_metrics
from gan_lab.weights import exported
from gan_lab.weights.loading import as_gan, player

# of a configuration, these say where its run lies
PLACES = ("run_dir", "runs_dir", "init_from")


@dataclass(frozen=True, kw_only=True)
class Material:
    """A generator, and what its description and card are made of.

    Attributes:
        gan: on the CPU.
        discriminator: its weights; None to leave it out.
        description: of `model.json`, as far as it is known before files are written.
    """

    gan: Gan
    discriminator: Mapping[str, Tensor] | None
    description: dict[str, Any]


def of_run(
    run: Path,
    *,
    checkpoint: str | None,
    weights: str | None,
    discriminator: bool,
    trust: Sequence[str],
) -> Material:
    """Gather what a run folder has.

    Args:
        run: the folder, or one of its checkpoints.
        checkpoint: "best", "last" or "previous"; None for the best where there is one.
        weights: "ema" or "raw"; None for "ema".
        discriminator: whether to take it along.
        trust: packages besides gan_lab whose classes the run may name.

    Raises:
        InputError: when the run is missing, damaged or names other code.
    """
    weights = weights or "ema"
    path = checkpoint_path(run, checkpoint)
    state = read(path)
    folder = path.parent.parent
    config = read_config(folder)
    file = folder / CONFIG_FILE
    generator = player(
        "generator", config, state, average=weights == "ema", origin=path, trust=trust
    )
    gan = as_gan(generator, config, state, origin=file, trust=trust)
    judge = None
    if discriminator:
        check_discriminator(config, folder)
        judge = player("discriminator", config, state, average=False, origin=path, trust=trust)
    source = {"run": folder.name, "checkpoint": path.name, "sha256": file_sha256(path)}
    description = {
        "format": exported.FORMAT,
        "name": folder.resolve().name,
        "gan_lab": version("gan_lab"),
        "git_revision": git_revision(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "licence": None,
        "generator": {"network": config["model"]["generator"], "weights": weights},
        "discriminator": None if judge is None else {"network": config["model"]["discriminator"]},
        "sample": gan.spec.as_dict(),
        "z_dim": generator.z_dim,
        "kimg": gan.kimg,
        "truncation": truncation_of(gan),
        "standing_statistics": None,
        "source": source,
        "metrics": metrics_of(folder, source["sha256"], gan.kimg, weights, config),
        "best": best_of(state, gan.kimg) if weights == "ema" else None,
        "recipe": without_places(config),
    }
    return Material(
        gan=gan,
        discriminator=None if judge is None else judge.state_dict(),
        description=description,
    )


def of_export(
    folder: Path, *, weights: str | None, discriminator: bool, trust: Sequence[str]
) -> Material:
    """Gather what an exported model has.

    Raises:
        InputError: when it is damaged, names other code, or has not the weights or the discriminator asked for.
    """
    description = exported.read_description(folder)
    gan = exported.load(folder, weights=weights, trust=trust)
    judge = None
    if description.get("discriminator"):
        judge = exported.state(folder, description, "discriminator")
    elif discriminator:
        raise InputError(f"discriminator=true: {folder} has none; export its run again")
    return Material(gan=gan, discriminator=judge, description=description)


def check_discriminator(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse to export a discriminator that there is not, or that its own arguments do not describe.

    Raises:
        InputError: naming the run.
    """
    model = take(config, "model", dict[str, Any], origin=folder / CONFIG_FILE)
    if model.get("discriminator") is None:
        raise InputError(f"discriminator=true: {folder} has none; leave it out")
    if model.get("discriminator_spectral_norm"):
        raise InputError(
            "discriminator=true: it was normalised from outside (model.discriminator_spectral_norm=true), which its "
            "own arguments do not say; leave it out"
        )


def truncation_of(gan: Gan) -> dict[str, Any]:
    """Return what truncation means to a generator."""
    if gan.has_styles:
        return {
            "kind": "psi",
            "centre": "mapping.w_avg",
            "layers": gan.generator.truncation_cutoff,
        }
    return {"kind": "threshold" if gan.generator.supports_z_truncation else None}


def metrics_of(
    folder: Path, sha256: str, kimg: float, weights: str, config: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the metrics of this checkpoint and these weights, each with how it was made.

    They are those of `evaluation.json`, and those of the end of training that are not among them.
    """
    found = []
    for result in read_results(folder / "evaluation.json"):
        fake = result.get("fake", {})
        same = fake.get("checkpoint_sha256") == sha256 and fake.get("weights") == weights
        if same and fake.get("standing_statistics") is None:
            found.append(measured(result))
    known = {metric["key"] for result in found for metric in result["metrics"]}
    lines = read_metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
    values: dict[str, Any] = {}
    for line in lines:
        if line.get("kimg") == kimg and weights == "ema":
            values |= {
                key.removeprefix("metrics/"): value
                for key, value in line.items()
                if key.startswith("metrics/")
            }
    left = [
        {
            "key": key,
            "value": value,
            "uncertainty": values.get(f"{key}_se"),
            "uncertainty_kind": "se" if f"{key}_se" in values else None,
        }
        for key, value in values.items()
        if key not in known and not key.endswith("_se")
    ]
    if left:
        how = without_places(config.get("metrics"))
        found.append({"during": "training", "metrics": left, "config": how})
    return found


def measured(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is worth knowing of a result of `gan-lab evaluate`, without the paths of the machine."""
    kept = (
        *("protocol", "num_fake", "num_real", "real", "extractor", "settings", "seed"),
        *("time", "device", "versions", "git_revision"),
    )
    metrics = [
        {key: metric.get(key) for key in ("key", "value", "uncertainty", "uncertainty_kind")}
        for metric in result["metrics"]
    ]
    drawn = {
        key: result["fake"].get(key)
        for key in ("weights", "truncation", "standing_statistics", "checkpoint_sha256")
    }
    rest = {key: result.get(key) for key in kept}
    return {"during": "evaluate", "metrics": metrics, "drawn": drawn, **without_places(rest)}


def best_of(state: Mapping[str, Any], kimg: float) -> dict[str, Any] | None:
    """Return the metric by which the checkpoint was chosen as the best one; None where it was not."""
    for name, saved in state.get("callbacks", {}).items():
        if name.startswith("Checkpointing") and saved.get("best_kimg") == kimg:
            key = str(saved["best_key"]).removeprefix("metrics/")
            return {"key": key, "value": saved["best_value"]}
    return None


def without_places(value: Any) -> Any:
    """Return plain containers in which no path tells of the machine: absolute ones keep their last part."""
    if isinstance(value, Mapping):
        return {key: without_places(inner) for key, inner in value.items() if key not in PLACES}
    if isinstance(value, list):
        return [without_places(inner) for inner in value]
    if isinstance(value, str):
        for kind in (PurePosixPath, PureWindowsPath):
            path = kind(value)
            if path.is_absolute():
                return path.name
    return value
