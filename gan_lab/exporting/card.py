"""The model card: what the model is, what it was made of, what it can do, and how to use it.

The front matter is what the Hugging Face hub reads, https://huggingface.co/docs/hub/model-cards.
"""

from collections.abc import Mapping
from typing import Any

import yaml  # type: ignore[import-untyped]

from gan_lab.exported import GRID
from gan_lab.exporting.examples import examples
from gan_lab.exporting.sections import data, figures, recipe

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
