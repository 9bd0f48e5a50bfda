"""The model card: what the model is, what it was made of, what it can do, and how to use it.

The front matter is what the Hugging Face hub reads, https://huggingface.co/docs/hub/model-cards.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import yaml  # type: ignore[import-untyped]
from torch import Tensor

from gan_lab.data.images import grid, to_uint8
from gan_lab.sampling.gan import Gan
from gan_lab.weights.exported import GRID, PROGRAMS

# identifiers of the hub that a licence of weights is likely to have; others are "other", by name
LICENCES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "wtfpl", "zlib"),
    *("gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "epl-2.0", "eupl-1.2"),
    *("cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nd-4.0"),
    *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0"),
    *("cc-by-nc-sa-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
    *("openrail", "openrail++", "creativeml-openrail-m", "bigscience-openrail-m", "pddl"),
)

CHANNELS = {1: "grey", 3: "RGB", 4: "RGBA"}


def card(description: Mapping[str, Any], *, picture: str, repository: str | None) -> str:
    """Return the card, Markdown with front matter.

    Args:
        description: of `model.json`.
        picture: what its sample grid shows, a sentence.
        repository: "user/name" on the hub; None for a folder.
    """
    parts = [
        front_matter(description),
        f"# {description['name']}",
        introduction(description),
        f"![Generated images]({GRID})\n\n{picture}",
        "## How to use it",
        *examples(description, repository=repository),
        "## Data",
        data(description),
        "## Recipe",
        recipe(description),
        "## Figures",
        figures(description),
        "## Intended use and limits",
        limits(description),
        "## Licence",
        licence(description),
    ]
    return "\n\n".join(parts) + "\n"


def front_matter(description: Mapping[str, Any]) -> str:
    """Return what the hub reads."""
    given = description["licence"]
    known = given is not None and given.lower() in LICENCES
    identifier = given.lower() if known else "other" if given else "unknown"
    fields: dict[str, Any] = {"license": identifier}
    if identifier == "other":
        fields["license_name"] = given
    tags = ["gan", "generative-adversarial-network", "image-generation", architecture(description)]
    if description["classes"]["conditional"]:
        tags.append("class-conditional")
    if "onnx" in description["programs"]:
        tags.append("onnx")
    fields |= {
        "library_name": "gan_lab",
        "pipeline_tag": "unconditional-image-generation",
        "tags": tags,
    }
    text: str = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---"


def introduction(description: Mapping[str, Any]) -> str:
    """Return what the model is, in a sentence or two."""
    height, width = description["image_size"]
    channels = CHANNELS.get(description["channels"], f"{description['channels']}-channel")
    generator = description["generator"]
    kind = {
        "ema": "The weights are the moving average (EMA) of those that were trained.",
        "raw": "The weights are those that were trained, without a moving average.",
    }
    text = (
        f"A generator of {width} x {height} {channels} images: `{architecture(description)}` with "
        f"{generator['parameters']:,} parameters"
    )
    if description["kimg"]:
        text += f", trained for {description['kimg']:g} kimg, thousands of real images shown"
    text += (
        f". Exported by gan_lab {description['gan_lab']} from `{description['source']['checkpoint']}`. "
        f"{kind[generator['weights']]}"
    )
    standing = description["standing_statistics"]
    if standing:
        at = "" if standing["truncation"] is None else f" at truncation {standing['truncation']:g}"
        text += (
            f" Batch norm's statistics are those of {standing['images']:,} generated images{at}."
        )
    return text


def architecture(description: Mapping[str, Any]) -> str:
    """Return the name of the architecture's file."""
    return str(description["generator"]["network"]["_target_"]).split(".")[-2]


def limits(description: Mapping[str, Any]) -> str:
    """Return what it is for and what not."""
    height, width = description["image_size"]
    keys = [figure["key"] for result in description["figures"] for figure in result["figures"]]
    copied = any("memor" in key or "authentic" in key for key in keys)
    lines = [
        "For drawing images of the kind of its data, for studying how such models work, and to begin other training "
        "from (`init_from=`).",
        f"It draws images of {width} x {height} pixels and nothing else. It has the proportions and the gaps of its "
        "data: what is rare there is rare here, what is absent there is absent here.",
        f"Whether it repeats images of its data {'is among the figures above' if copied else 'was not measured'}.",
        "Its images are made up. They are no evidence of anything.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def licence(description: Mapping[str, Any]) -> str:
    """Return the licence, or that it is not known."""
    if description["licence"]:
        return (
            f"{description['licence']}, for the weights. It says nothing of rights in the data that they were trained "
            "on."
        )
    return (
        "Not stated. Ask whoever made the weights under which licence they are before you use them for anything that "
        "needs one, and mind the rights in the data that they were trained on."
    )


# Parts of a model card that tell where the weights are from: data, recipe, figures.

CLASSES_IN_FULL = 20


def data(description: Mapping[str, Any]) -> str:
    """Return what it was trained on."""
    provenance = description["recipe"].get("provenance")
    if provenance:
        return imported(provenance)
    settings = description["recipe"].get("data") or {}
    height, width = description["image_size"]
    classes = description["classes"]
    counts = classes["counts"]
    facts = [
        code(settings.get("_target_", "unknown")),
        *([f"from {code(settings['root'])}"] if settings.get("root") else []),
        f"{sum(counts):,} images for training",
        f"{width} x {height} pixels",
        *([f"resampled by {settings['resample']}"] if settings.get("resample") else []),
        *([f"cropped: {settings['crop']}"] if settings.get("crop") not in (None, "none") else []),
        *(["mirrored at random"] if settings.get("flip") else []),
    ]
    text = ", ".join(facts) + "."
    if not classes["conditional"]:
        return f"{text} The model has no classes."
    if len(counts) > CLASSES_IN_FULL:
        fewest, most = min(counts), max(counts)
        return f"{text} {len(counts):,} classes, {fewest:,} to {most:,} images each; `model.json` lists them."
    pairs = zip(classes["names"], counts, strict=True)
    rows = [(label, cell(name), f"{count:,}") for label, (name, count) in enumerate(pairs)]
    return f"{text}\n\n{table(('label', 'class', 'images'), rows)}"


def imported(provenance: Mapping[str, Any]) -> str:
    """Return where imported weights are from."""
    called = provenance.get("data")
    known = f"its file calls the data {called!r}" if called else "its file names no data"
    files = [f"- `{name}`, SHA-256 `{digest}`" for name, digest in provenance["files"].items()]
    text = f"Not trained by gan_lab but imported: {provenance['source']}; {known}."
    return "\n".join([text, "", *files])


def recipe(description: Mapping[str, Any]) -> str:
    """Return how it was trained."""
    config = description["recipe"]
    if config.get("provenance"):
        return "Not known: the weights were imported."
    model = config["model"]
    seen = f"{config['total_kimg']:g} kimg, of which these weights saw {description['kimg']:g}"
    rows = [
        ("model", code(model.get("_target_"))),
        ("loss", named(model.get("loss"))),
        ("regularizers", listed(model.get("regularizers"))),
        ("augmentations", listed(model.get("augmentations"))),
        ("generator's optimizer", named(model.get("generator_optimizer"))),
        ("discriminator's optimizer", named(model.get("discriminator_optimizer"))),
        ("moving average", named(model.get("ema"))),
        ("batch size", config.get("batch_size")),
        ("length", seen),
        ("seed", config.get("seed")),
        ("precision", (config.get("trainer") or {}).get("precision")),
        ("exported at commit", code(description["git_revision"])),
    ]
    shown = [(name, value) for name, value in rows if value not in (None, "")]
    return f"{table(('setting', 'value'), shown)}\n\nThe whole configuration is `recipe` in `model.json`."


def figures(description: Mapping[str, Any]) -> str:
    """Return every figure with how it was made."""
    rows = [row for result in description["figures"] for row in figure_rows(result)]
    if not rows:
        return "None were measured on these weights."
    header = ("figure", "value", "protocol", "generated / real images", "extractor, SHA-256")
    parts = [table(header, rows)]
    best = description["best"]
    if best:
        parts.append(
            f"This checkpoint was chosen among those of its run by `{best['key']}` ({best['value']:.4g}): another draw "
            "of images will be a little worse."
        )
    parts.append(
        "`figures` in `model.json` has the rest: seeds, versions, the real images. Figures compare only where "
        "protocol, numbers and extractor are the same."
    )
    return "\n\n".join(parts)


def figure_rows(result: Mapping[str, Any]) -> list[Sequence[object]]:
    """Return a row for each figure of a result."""
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
        (code(figure["key"]), with_spread(figure), by, counts, features)
        for figure in result["figures"]
    ]


def with_spread(figure: Mapping[str, Any]) -> str:
    """Return a figure's value and how far it may be off."""
    text = f"{figure['value']:.4g}"
    if figure.get("uncertainty") is None:
        return text
    return f"{text} ± {figure['uncertainty']:.2g} ({figure['uncertainty_kind']})"


def listed(nodes: Mapping[str, Any] | None) -> str:
    """Return a group of the configuration in a line."""
    return ", ".join(named(node) for node in (nodes or {}).values()) or "none"


def named(node: Mapping[str, Any] | None) -> str:
    """Return a class and its settings in a line: `R1(weight=0.1, interval=1)`."""
    if not node:
        return ""
    settings = ", ".join(
        f"{key}={value}"
        for key, value in node.items()
        if not key.startswith("_") and not isinstance(value, Mapping)
    )
    return code(f"{str(node.get('_target_', '')).split('.')[-1]}({settings})")


def code(text: object) -> str:
    """Return text as code, nothing for nothing."""
    return f"`{text}`" if text else ""


def cell(text: object) -> str:
    """Return text that stays within a cell of a table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(value) for value in line)} |" for line in lines)


# How to use an exported model: code for its card that runs as it stands.


def examples(description: Mapping[str, Any], *, repository: str | None) -> Iterator[str]:
    """Yield paragraphs and code.

    Args:
        description: of `model.json`.
        repository: "user/name" on the hub; None for a folder, which is the current one then.
    """
    yield with_gan_lab(description, repository)
    programs = description["programs"]
    if "onnx" in programs:
        yield f"`{PROGRAMS['onnx']}` needs onnxruntime alone (and Pillow, for the file):"
        yield fenced(with_onnx(description))
    if "torch" in programs:
        yield f"`{PROGRAMS['torch']}` needs torch alone:"
        yield fenced(with_torch(description))
    if programs:
        yield (
            "Programs take any number of images; their noise, where there is any, is the constant one. They were "
            "compared with the generator when they were written; the largest difference of a pixel, of images in "
            "[-1, 1], was "
            + " and ".join(
                f"{made['largest_difference']:.1g} ({kind})" for kind, made in programs.items()
            )
            + "."
        )
    yield truncation(description)


def with_gan_lab(description: Mapping[str, Any], repository: str | None) -> str:
    """Return the way with gan_lab."""
    source = f"hf://{repository}" if repository else "."
    label = "labels=0, " if description["classes"]["conditional"] else ""
    settings = {"psi": ", truncation=0.7", "threshold": ", truncation=0.5"}
    more = settings.get(str(description["truncation"]["kind"]), "")
    lines = [
        "import gan_lab",
        "",
        f'gan = gan_lab.load("{source}")' + ("" if repository else "  # this folder"),
        f"images = gan.sample(16, {label}seed=0{more})  # {shape(description, 16)} in about [-1, 1]",
    ]
    if encodes(description):
        lines.append("codes = gan.generator.encode(images)  # the encoder: images to latents")
    place = source if repository else "FOLDER"
    command = f"`gan-lab generate run={place} num_images=64 seed=0`"
    code = fenced("\n".join(lines))
    return (
        f"With gan_lab, which needs neither Lightning nor Hydra for it:\n\n{code}\n\nor {command}."
    )


def with_onnx(description: Mapping[str, Any]) -> str:
    """Return code for onnxruntime."""
    inputs = [
        f'    "z": np.random.default_rng(0).standard_normal((4, {description["z_dim"]}), dtype=np.float32),'
    ]
    if description["classes"]["conditional"]:
        inputs.append(f'    "labels": np.arange(4) % {len(description["classes"]["counts"])},')
    if description["truncation"]["kind"] == "psi":
        inputs.append('    "truncation": np.array(0.7, dtype=np.float32),')
    picture = {
        1: "Image.fromarray(pixels[0, 0])",
    }.get(description["channels"], "Image.fromarray(pixels[0].transpose(1, 2, 0))")
    return "\n".join(
        [
            "import numpy as np",
            "import onnxruntime",
            "from PIL import Image",
            "",
            f'session = onnxruntime.InferenceSession("{PROGRAMS["onnx"]}")',
            "inputs = {",
            *inputs,
            "}",
            f"(images,) = session.run(None, inputs)  # {shape(description, 4)} in about [-1, 1]",
            "pixels = ((images + 1) * 127.5).round().clip(0, 255).astype(np.uint8)",
            f'{picture}.save("image.png")',
        ]
    )


def with_torch(description: Mapping[str, Any]) -> str:
    """Return code for torch."""
    arguments = [f"z=torch.randn(4, {description['z_dim']})"]
    if description["classes"]["conditional"]:
        arguments.append(f"labels=torch.arange(4) % {len(description['classes']['counts'])}")
    if description["truncation"]["kind"] == "psi":
        arguments.append("truncation=torch.tensor(0.7)")
    return "\n".join(
        [
            "import torch",
            "",
            f'program = torch.export.load("{PROGRAMS["torch"]}").module()',
            f"images = program({', '.join(arguments)})  # {shape(description, 4)}",
        ]
    )


def truncation(description: Mapping[str, Any]) -> str:
    """Return what truncation means to this model."""
    kind = description["truncation"]["kind"]
    if kind == "psi":
        return (
            "`truncation` is psi: styles are drawn towards their mean; 1 changes nothing, 0 gives the mean image, "
            "values between trade variety for quality."
        )
    if kind == "threshold":
        return (
            "`truncation` is a threshold: components of z beyond it are drawn again, which trades variety for quality; "
            "2 is mild, 0.5 is strong. Programs take z as it is."
        )
    return "Truncation means nothing to this model, which scales every z to one length."


def encodes(description: Mapping[str, Any]) -> bool:
    """Whether an encoder is a part of the generator."""
    return str(description["generator"]["network"]["_target_"]) == "gan_lab.models.bigan.Generator"


def shape(description: Mapping[str, Any], count: int) -> str:
    """Return the shape of so many images."""
    height, width = description["image_size"]
    return f"[{count}, {description['channels']}, {height}, {width}]"


def fenced(code: str) -> str:
    """Return Python code as Markdown."""
    return f"```python\n{code}\n```"


# The sample grid of a model card.

COLUMNS = 8

CLASSES_IN_ROWS = 12

SHOWN_SIDE = 64  # pixels that an image has in the grid at least


def sample_grid(gan: Gan, *, seed: int, truncation: float | None) -> tuple[Tensor, str]:
    """Draw a grid, a class a row where they are few, and say what it shows.

    Returns:
        (uint8 image [C, H, W], a sentence).
    """
    rows = gan.num_classes if 0 < gan.num_classes <= CLASSES_IN_ROWS else COLUMNS
    labels = None
    of = "classes as in the data" if gan.num_classes else ""
    if 0 < gan.num_classes <= CLASSES_IN_ROWS:
        labels = torch.arange(gan.num_classes).repeat_interleave(COLUMNS)
        of = "one class a row"
    images = to_uint8(gan.sample(rows * COLUMNS, labels=labels, seed=seed, truncation=truncation))
    factor = -(-SHOWN_SIDE // min(images.shape[2:]))
    large = images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    facts = [
        f"The first {rows * COLUMNS} images of seed {seed}, none left out",
        *([of] if of else []),
        "no truncation" if truncation is None else f"truncation {truncation:g}",
        *([f"shown {factor} times as large"] if factor > 1 else []),
    ]
    return grid(large, COLUMNS), ", ".join(facts) + "."
