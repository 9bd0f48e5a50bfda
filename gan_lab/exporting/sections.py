"""Parts of a model card that tell where the weights are from: data, recipe, figures."""

from collections.abc import Mapping, Sequence
from typing import Any

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
