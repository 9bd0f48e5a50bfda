"""How to use an exported model: code for its card that runs as it stands."""

from collections.abc import Iterator, Mapping
from typing import Any

from gan_lab.exported import PROGRAMS


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
        f'    "z": np.random.default_rng(0).standard_normal((4, {description["latent_dim"]}), dtype=np.float32),'
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
    arguments = [f"z=torch.randn(4, {description['latent_dim']})"]
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
