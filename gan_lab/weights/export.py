"""An exported generator: its description and model card, from a run or an earlier export, and a Space of the hub."""

import html
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
import yaml
from jinja2 import Environment, StrictUndefined, Template
from torch import Tensor, nn

from gan_lab.config import take
from gan_lab.console import in_a_line
from gan_lab.data.high_bit_depth import HighBitDepthImage
from gan_lab.data.images import ImageKind
from gan_lab.data.media import grid
from gan_lab.errors import InputError
from gan_lab.metrics.features import file_sha256
from gan_lab.run import git_revision, read_results, write
from gan_lab.sampling.gan import Gan
from gan_lab.training.checkpoint import CONFIG_FILE, checkpoint_path, read, read_config
from gan_lab.training.loggers.files import read_metrics
from gan_lab.version import __version__
from gan_lab.weights import exported
from gan_lab.weights.exported import CARD, DESCRIPTION, GRID, PROGRAMS, WEIGHTS
from gan_lab.weights.loading import as_gan, player

# config keys that only say where the run is
PATH_KEYS = ("run_dir", "runs_dir", "init_from")


@dataclass(frozen=True, kw_only=True)
class Material:
    """A generator to export and its description.

    Attributes:
        gan: on the CPU.
        discriminator: None for an export without.
        description: content of `model.json` that is known before files are written.
    """

    gan: Gan
    discriminator: nn.Module | None
    description: dict[str, Any]


def of_run(
    run: Path,
    *,
    checkpoint: str | None,
    weights: str | None,
    discriminator: bool,
    trust: Sequence[str],
) -> Material:
    """Read the material of an export from a run folder.

    Args:
        run: the folder, or one of its checkpoints.
        checkpoint: "best", "last" or "previous"; None for the best where there is one.
        weights: "ema" or "raw"; None for "ema".
        discriminator: whether to include it.
        trust: packages besides gan_lab whose classes the run may name.

    Raises:
        InputError: when the run is missing, damaged or names untrusted code.
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
    discriminator_network = None
    if discriminator:
        check_discriminator(config, folder)
        discriminator_network = player(
            "discriminator", config, state, average=False, origin=path, trust=trust
        )
    description = describe_run(path, config, state, gan, weights=weights) | {
        "generator": {"network": config["model"]["generator"], "weights": weights},
        "discriminator": None
        if discriminator_network is None
        else {"network": config["model"]["discriminator"]},
    }
    return Material(gan=gan, discriminator=discriminator_network, description=description)


def describe_run(
    path: Path, config: Mapping[str, Any], state: Mapping[str, Any], gan: Gan, *, weights: str
) -> dict[str, Any]:
    """Return what `model.json` says of a run besides its networks.

    Args:
        path: of the checkpoint.
        config: of the run.
        state: of the checkpoint.
        gan: that was loaded from it.
        weights: "ema" or "raw".
    """
    folder, sha256 = path.parent.parent, file_sha256(path)
    return {
        "format": exported.FORMAT,
        "name": folder.resolve().name,
        "gan_lab": __version__,
        "git_revision": git_revision(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "license": None,
        "sample": gan.spec.as_dict(),
        "z_dim": gan.generator.z_dim,
        "kimg": gan.kimg,
        "truncation": truncation_of(gan),
        "standing_statistics": None,
        "source": {"run": folder.name, "checkpoint": path.name, "sha256": sha256},
        "metrics": metrics_of(folder, sha256, gan.kimg, weights, config),
        "best": best_of(state, gan.kimg) if weights == "ema" else None,
        "recipe": without_paths(config),
    }


def of_export(
    folder: Path, *, weights: str | None, discriminator: bool, trust: Sequence[str]
) -> Material:
    """Read the material of an export from an exported model.

    Raises:
        InputError: when it is damaged, names untrusted code, or lacks the requested weights or discriminator.
    """
    description = exported.read_about(folder)
    gan = exported.load(folder, weights=weights, trust=trust)
    discriminator_network = None
    if description.get("discriminator"):
        discriminator_network = exported.network(folder, description, "discriminator", trust=trust)
    elif discriminator:
        raise InputError(f"with_discriminator=true: {folder} has none; export its run again")
    return Material(gan=gan, discriminator=discriminator_network, description=description)


def check_discriminator(config: Mapping[str, Any], folder: Path) -> None:
    """Check that the run's discriminator can be rebuilt from its arguments.

    Raises:
        InputError: naming the run.
    """
    model = take(config, "model", dict[str, Any], origin=folder / CONFIG_FILE)
    if model.get("discriminator") is None:
        raise InputError(f"with_discriminator=true: {folder} has none; leave it out")
    if model.get("discriminator_spectral_norm"):
        raise InputError(
            "with_discriminator=true: model.discriminator_spectral_norm=true was set, which "
            "its arguments do not contain; leave it out"
        )


def truncation_of(gan: Gan) -> dict[str, Any]:
    """Describe the kind of truncation that a generator supports."""
    if gan.has_styles:
        return {
            "kind": "psi",
            "center": "mapping.w_avg",
            "layers": gan.generator.truncation_cutoff,
        }
    return {"kind": "threshold" if gan.generator.supports_z_truncation else None}


def metrics_of(
    folder: Path, sha256: str, kimg: float, weights: str, config: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the metrics of this checkpoint and these weights, with their settings.

    They are from `evaluation.json`, or else from the end of training.
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
        how = without_paths(config.get("metrics"))
        found.append({"during": "training", "metrics": left, "config": how})
    return found


def measured(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result of `gan-lab evaluate` without absolute paths."""
    kept = (
        *("protocol", "num_fake", "num_real", "real", "extractor", "settings", "seed"),
        *("time", "device", "versions", "git_revision"),
    )
    metrics = [
        {
            **{key: metric.get(key) for key in ("key", "value", "uncertainty", "uncertainty_kind")},
            "verdict": (metric.get("detail") or {}).get("text"),
        }
        for metric in result["metrics"]
    ]
    drawn = {
        key: result["fake"].get(key)
        for key in ("weights", "truncation", "standing_statistics", "checkpoint_sha256")
    }
    rest = {key: result.get(key) for key in kept}
    return {"during": "evaluate", "metrics": metrics, "drawn": drawn, **without_paths(rest)}


def best_of(state: Mapping[str, Any], kimg: float) -> dict[str, Any] | None:
    """Return the metric by which the checkpoint was chosen as best; None if it was not."""
    for name, saved in state.get("callbacks", {}).items():
        if name.startswith("Checkpointing") and saved.get("best_kimg") == kimg:
            key = str(saved["best_key"]).removeprefix("metrics/")
            return {"key": key, "value": saved["best_value"]}
    return None


def without_paths(value: Any) -> Any:
    """Return plain containers in which absolute paths are reduced to their last part."""
    if isinstance(value, Mapping):
        return {key: without_paths(inner) for key, inner in value.items() if key not in PATH_KEYS}
    if isinstance(value, list):
        return [without_paths(inner) for inner in value]
    if isinstance(value, str):
        for kind in (PurePosixPath, PureWindowsPath):
            path = kind(value)
            if path.is_absolute():
                return path.name
    return value


# The model card: Markdown with the front matter that the Hugging Face hub reads, and a sample grid.
#
# https://huggingface.co/docs/hub/model-cards


COLUMNS = 8
CLASSES_IN_ROWS = 12
SHOWN_SIDE = 64  # smallest size of an image in the grid, in pixels
# the hub's identifiers of common licenses; others are "other", by name
LICENSES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "wtfpl", "zlib"),
    *("gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "epl-2.0", "eupl-1.2"),
    *("cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nd-4.0"),
    *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0"),
    *("cc-by-nc-sa-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
    *("openrail", "openrail++", "creativeml-openrail-m", "bigscience-openrail-m", "pddl"),
)


def card(description: Mapping[str, Any], *, caption: str, repository: str | None) -> str:
    """Render the model card, Markdown with front matter.

    Args:
        description: of `model.json`.
        caption: a sentence on what its sample grid shows.
        repository: "user/name" on the hub; None for a folder.
    """
    network = str(description["generator"]["network"]["_target_"])
    keys = [one["key"] for result in description["metrics"] for one in result["metrics"]]
    return template().render(
        d=description,
        front_matter=front_matter(description),
        is_image=is_image(description),
        samples=samples(description),
        architecture=network.split(".")[-2],
        nvidia_class=(description.get("nvidia") or {}).get("class", ""),
        has_encoder=network == "gan_lab.models.bigan.Generator",
        grid=GRID,
        caption=caption,
        source=f"hf://{repository}" if repository else None,
        recipe=list(recipe(description)),
        metrics=[row for result in description["metrics"] for row in metric_rows(result)],
        memorization=any("memor" in key for key in keys),
        verdicts=list(verdicts(description)),
        levels=levels(description),
    )


def verdicts(description: Mapping[str, Any]) -> Iterator[str]:
    """Yield the verdicts of memorization tests, as sentences."""
    for result in description["metrics"]:
        yield from filter(None, (metric.get("verdict") for metric in result["metrics"]))


def levels(description: Mapping[str, Any]) -> str | None:
    """Describe the levels of images with more than 8 bits in a sentence; None for others."""
    kind = description["sample"]["kind"]
    if kind["_target_"] != f"{HighBitDepthImage.__module__}.{HighBitDepthImage.__name__}":
        return None
    low, high = (f"{end:g}" for end in kind["window"])
    stored = "16 bits" if kind["bits"] == 16 else "floating-point values"
    spacing = kind.get("spacing")
    size = "not known" if spacing is None else f"{spacing[0]:g} x {spacing[1]:g} mm"
    return (
        f"Levels have {stored}; the model sees the window from {low} to {high} and makes nothing beyond it. "
        f"Size of a pixel: {size}."
    )


def is_image(description: Mapping[str, Any]) -> bool:
    """Whether samples are 8-bit images."""
    kind = description["sample"]["kind"]["_target_"]
    return bool(kind == f"{ImageKind.__module__}.{ImageKind.__name__}")


def samples(description: Mapping[str, Any]) -> str:
    """Describe the samples in a few words."""
    shape = description["sample"]["shape"]
    if levels(description) is not None:
        bits = description["sample"]["kind"]["bits"]
        return f"{describe_images(shape)} with {bits} bits"
    if not is_image(description):
        kind = description["sample"]["kind"]["_target_"].split(".")[-1]
        return f"samples of shape {shape} ({kind})"
    return describe_images(shape)


def describe_images(shape: Sequence[int]) -> str:
    """Describe images of a shape in a few words."""
    channels, height, width = shape
    color = {1: "gray", 3: "RGB", 4: "RGBA"}.get(channels, f"{channels}-channel")
    return f"{width} x {height} {color} images"


def template() -> Template:
    """Return the card's template."""
    text = files("gan_lab.weights").joinpath("card.md.jinja").read_text(encoding="utf-8")
    environment = Environment(
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    environment.filters |= {"in_a_cell": in_a_cell, "code": code}
    return environment.from_string(text, globals={"programs": PROGRAMS})


def in_a_cell(name: object) -> str:
    """Escape an untrusted name for a cell of a Markdown table."""
    line = html.escape(in_a_line(str(name)), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", line)


def front_matter(description: Mapping[str, Any]) -> str:
    """Return the YAML that the hub reads."""
    architecture = str(description["generator"]["network"]["_target_"]).split(".")[-2]
    tags = ["gan", "generative-adversarial-network", architecture]
    tags += ["image-generation"] if is_image(description) else []
    tags += ["class-conditional"] if description["sample"]["num_classes"] else []
    tags += ["onnx"] if "onnx" in description["programs"] else []
    fields = {
        **license_fields(description),
        "library_name": "gan_lab",
        **({"pipeline_tag": "unconditional-image-generation"} if is_image(description) else {}),
        "tags": tags,
    }
    text: str = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    return text


def license_fields(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the license as the hub names it, for front matter."""
    given = description["license"]
    known = given is not None and given.lower() in LICENSES
    identifier = given.lower() if known else "other" if given else "unknown"
    return {"license": identifier, **({"license_name": given} if identifier == "other" else {})}


def recipe(description: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield (setting, value) rows of the training recipe; none for imported weights."""
    config = description["recipe"]
    if config.get("provenance"):
        return
    model = config["model"]
    rows = [
        ("model", code(model.get("_target_"))),
        ("loss", format_node(model.get("loss"))),
        ("regularizers", format_nodes(model.get("regularizers"))),
        ("augmentations", format_nodes(model.get("augmentations"))),
        ("generator's optimizer", format_node(model.get("generator_optimizer"))),
        ("discriminator's optimizer", format_node(model.get("discriminator_optimizer"))),
        ("moving average", format_node(model.get("ema"))),
        ("batch size", config.get("batch_size")),
        (
            "length",
            f"{config['total_kimg']:g} kimg, of which these weights saw {description['kimg']:g}",
        ),
        ("seed", config.get("seed")),
        ("precision", (config.get("trainer") or {}).get("precision")),
        ("exported at commit", code(description["git_revision"])),
    ]
    yield from ((name, value) for name, value in rows if value not in (None, ""))


def metric_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the table rows of a result's metrics."""
    extractor = result.get("extractor") or {}
    digest = str(extractor.get("extractor_sha256", ""))[:12]
    by = "during training"
    counts = ""
    if result["during"] == "evaluate":
        psi = result["drawn"].get("truncation")
        by = code(result["protocol"]) + ("" if psi is None else f", truncation {psi:g}")
        counts = f"{result['num_fake']:,} / {result['num_real']:,}"
    features = " ".join(filter(None, [extractor.get("extractor"), code(digest)]))
    return [
        (code(metric["key"]), with_spread(metric), by, counts, features)
        for metric in result["metrics"]
    ]


def with_spread(metric: Mapping[str, Any]) -> str:
    """Format a metric's value and its uncertainty."""
    text = f"{metric['value']:.4g}"
    if metric.get("uncertainty") is None:
        return text
    return f"{text} ± {metric['uncertainty']:.2g} ({metric['uncertainty_kind']})"


def format_nodes(nodes: Mapping[str, Any] | None) -> str:
    """Format a config group in one line."""
    return ", ".join(format_node(node) for node in (nodes or {}).values()) or "none"


def format_node(node: Mapping[str, Any] | None) -> str:
    """Format a config node in one line: `R1(weight=0.1, interval=1)`."""
    if not node:
        return ""
    settings = ", ".join(
        f"{key}={value}"
        for key, value in node.items()
        if not key.startswith("_") and not isinstance(value, Mapping)
    )
    return code(f"{str(node.get('_target_', '')).split('.')[-1]}({settings})")


def code(text: object) -> str:
    """Format text as Markdown code, which ends at a backquote."""
    line = in_a_line(str(text)).replace("`", "'")
    return f"`{line}`" if text else ""


def sample_grid(gan: Gan, *, seed: int, truncation: float | None) -> tuple[Tensor, str]:
    """Draw a sample grid, with one row per class if there are few, and describe it.

    Returns:
        (uint8 image [C, H, W], a sentence).
    """
    in_rows = 0 < gan.num_classes <= CLASSES_IN_ROWS and not gan.spec.attributes
    rows = gan.num_classes if in_rows else COLUMNS
    labels = None
    of = "classes as in the data" if gan.num_classes else ""
    if in_rows:
        labels = torch.arange(gan.num_classes).repeat_interleave(COLUMNS)
        of = "one class a row"
    images = gan.spec.preview(
        gan.sample(rows * COLUMNS, labels=labels, seed=seed, truncation=truncation)
    )
    factor = -(-SHOWN_SIDE // min(images.shape[2:]))
    large = images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    facts = [
        f"The first {rows * COLUMNS} images of seed {seed}, none left out",
        *([of] if of else []),
        "no truncation" if truncation is None else f"truncation {truncation:g}",
        *([f"shown {factor} times as large"] if factor > 1 else []),
    ]
    return grid(large, COLUMNS), ", ".join(facts) + "."


# A Space of the Hugging Face hub: the explore page of the model, as a container.


PORT = 7860
CPUS = 2  # of the hub's free machine, where torch would count those of its host
MODEL_FOLDER = "model"
# what a Space holds; other files in the folder, such as a wheel of gan_lab, are kept
SPACE_FILES = ("README.md", "Dockerfile", "requirements.txt", MODEL_FOLDER)
# of the exported model
TAKEN = (DESCRIPTION, CARD, GRID, WEIGHTS["generator"], WEIGHTS["representation"])

REQUIREMENTS = f"gan-laboratory[explore]=={__version__}\n"

# the hub shows a Space in a frame of its own page, and runs it as the user 1000
DOCKERFILE = f"""\
FROM python:3.12-slim
RUN useradd --create-home --uid 1000 user
WORKDIR /app
COPY --chown=user . .
# a wheel that lies here is taken in place of the package index's
RUN pip install --no-cache-dir -f . -r requirements.txt
USER user
EXPOSE {PORT}
CMD ["gan-lab", "explore", "run={MODEL_FOLDER}", "host=0.0.0.0", "port={PORT}", "threads={CPUS}", \
"frame_ancestors=[https://huggingface.co]"]
"""

SPACE_README = """\
# {name}

An explore page of one generator, of gan_lab: seeds, truncation, mixing, directions. {model}

The same on any machine: `docker build -t explore . && docker run -p {port}:{port} explore`, or without a container
`pip install -r requirements.txt && gan-lab explore run={folder}`.

A wheel of gan-laboratory {version} that lies in this folder is installed in place of the package index's.
"""


def is_space(folder: Path) -> bool:
    """Whether a folder holds a Space that `fill_space` wrote."""
    return (folder / "Dockerfile").is_file() and (folder / MODEL_FOLDER / DESCRIPTION).is_file()


def fill_space(
    folder: Path, model: Path, description: Mapping[str, Any], *, repository: str | None
) -> None:
    """Write the files of a Space.

    Args:
        folder: where to.
        model: the exported model, of which a copy is taken.
        description: its `model.json`.
        repository: "user/name" of the model on the hub, or None.
    """
    (folder / MODEL_FOLDER).mkdir()
    for name in TAKEN:
        if (model / name).is_file():
            shutil.copy2(model / name, folder / MODEL_FOLDER / name)
    write(folder / "Dockerfile", DOCKERFILE)
    write(folder / "requirements.txt", REQUIREMENTS)
    fields = {
        "title": description["name"],
        "sdk": "docker",
        "app_port": PORT,
        **license_fields(description),
        **({"models": [repository]} if repository else {}),
    }
    front = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    text = SPACE_README.format(
        name=description["name"],
        model=f"The model: [{repository}](https://huggingface.co/{repository})."
        if repository
        else f"The model is in `{MODEL_FOLDER}`, with its card.",
        port=PORT,
        folder=MODEL_FOLDER,
        version=__version__,
    )
    write(folder / "README.md", f"---\n{front}---\n\n{text}")


def space_files(folder: Path) -> Sequence[str]:
    """Return the files of a Space, and the wheels in it, which its container installs."""
    inside = [f"{MODEL_FOLDER}/{path.name}" for path in sorted((folder / MODEL_FOLDER).iterdir())]
    wheels = sorted(path.name for path in folder.glob("*.whl"))
    return [*(name for name in SPACE_FILES if name != MODEL_FOLDER), *inside, *wheels]
