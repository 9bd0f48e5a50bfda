"""gan-lab export: a trained generator as a folder to share: weights, description, programs, model card."""

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from gan_lab.commands.options import chosen_formats, pick_device
from gan_lab.console import say
from gan_lab.data.images import save_png
from gan_lab.errors import InputError
from gan_lab.metrics.features import file_sha256
from gan_lab.run import (
    naming,
    publish,
    remove_leftovers,
    replacing,
    temporary_path,
    write,
    write_json,
)
from gan_lab.training.checkpoint import checkpoint_path
from gan_lab.weights import exported, hub, stylegan
from gan_lab.weights.export import (
    SPACE_FILES,
    Material,
    card,
    fill_space,
    is_space,
    of_export,
    of_run,
    sample_grid,
    space_files,
)
from gan_lab.weights.loading import local
from gan_lab.weights.programs import onnx_packages, write_program

# files of an exported model; other files in the folder are kept
FILES = (
    *(exported.DESCRIPTION, exported.CARD, exported.GRID),
    *exported.WEIGHTS.values(),
    *exported.PROGRAMS.values(),
    *exported.NVIDIA.values(),
    f"{exported.PROGRAMS['onnx']}.data",
)


def run(config: DictConfig) -> None:
    """Export, and upload where requested.

    Raises:
        InputError: for an unknown run, format or account, and when an exported program gives other images.
    """
    if config.push is not None:
        hub.check_push(config.push)
    pick_device(config.device)
    source = local(config.run)
    material = gather(config, source)
    description = material.description
    kept = [*description.get("programs", {}), *(["nvidia"] if description.get("nvidia") else [])]
    chosen = kept if config.format is None else chosen_formats(config.format)
    formats = [name for name in (*exported.PROGRAMS, "nvidia") if name in chosen]
    if "onnx" in formats:
        onnx_packages()
    if "nvidia" in formats:
        nvidia_arguments(material)
    out = Path(config.out).expanduser() if config.out else default_out(source, config)
    check_out(out, material, source, overwrite=config.overwrite)
    if config.space is not None:
        check_space(Path(config.space).expanduser(), out)
    prepare(config, material)
    name = type(material.gan.generator).__module__.rpartition(".")[2]
    say(
        f"{name} of {source} ({material.gan.kimg:g} kimg, {description['generator']['weights']} weights)"
    )
    with staged(out) as folder:
        fill(folder, material, formats, config)
    for file in written(out):
        say(f"wrote {out / file}")
    if description["license"] is None:
        say("the model card states no license; set one, such as license=cc-by-4.0")
    if config.space is not None:
        write_space(Path(config.space).expanduser(), out, description, repository=config.push)
    if config.push is not None:
        say(f"pushed {hub.push(out, config.push, files=written(out), private=config.private)}")
    if config.push is not None and config.space is not None:
        folder = Path(config.space).expanduser()
        files = space_files(folder)
        at = hub.push(folder, config.push, files=files, private=config.private, space=True)
        say(f"pushed the Space {at}")


def write_space(
    folder: Path, model: Path, description: Mapping[str, Any], *, repository: str | None
) -> None:
    """Write a Space's folder, in place of an earlier one."""
    with staged(folder, files=SPACE_FILES) as temporary:
        fill_space(temporary, model, description, repository=repository)
    say(f"wrote {folder}: a Space, which runs the explore page of this model in a container")


def gather(config: DictConfig, source: Path) -> Material:
    """Load what to export, from a run or an earlier export."""
    if exported.is_export(source):
        if config.checkpoint is not None:
            raise InputError(
                f"checkpoint={config.checkpoint}: {source} is an exported model, which has no checkpoints; leave it out"
            )
        material = of_export(
            source,
            weights=config.weights,
            discriminator=config.with_discriminator,
            trust=config.trust,
        )
    else:
        material = of_run(
            source,
            checkpoint=config.checkpoint,
            weights=config.weights,
            discriminator=config.with_discriminator,
            trust=config.trust,
        )
    if config.source is not None:
        material = replace(material, gan=material.gan.with_sources(config.source))
    if config.name is not None:
        material.description["name"] = str(config.name)
    if config.license is not None:
        material.description["license"] = str(config.license)
    return material


def prepare(config: DictConfig, material: Material) -> None:
    """Check the truncation of the images, and measure standing statistics where requested.

    Raises:
        InputError: for a truncation or statistics that the generator does not support.
    """
    count, gan = config.standing_statistics, material.gan
    gan.check_truncation(config.truncation)
    if count is None:
        return
    gan.generator.to(pick_device(config.device))
    gan.measure_statistics(count, seed=config.seed, truncation=config.truncation)
    gan.generator.cpu()  # where programs are written and compared
    material.description["standing_statistics"] = {
        "images": count,
        "seed": config.seed,
        "truncation": config.truncation,
    }
    # metrics are of other images
    material.description["metrics"], material.description["best"] = [], None


def default_out(source: Path, config: DictConfig) -> Path:
    """Return the output folder: in the run's folder; an exported model is updated in place."""
    if exported.is_export(source):
        return source
    path = checkpoint_path(source, config.checkpoint)
    return path.parent.parent / "exported" / f"{path.stem}_{config.weights or 'ema'}"


def check_out(out: Path, material: Material, source: Path, *, overwrite: bool) -> None:
    """Check that the output folder is empty or an earlier export of this model.

    Raises:
        InputError: with what to do.
    """
    if out.is_file():
        raise InputError(f"out={out} is a file; give a folder")
    if not out.exists() or not any(out.iterdir()) or out.resolve() == source.resolve():
        return
    if not exported.is_export(out):
        raise InputError(f"out={out} holds other files than an exported model's; give another out=")
    if overwrite:
        return
    ours = material.description
    try:
        theirs = exported.read_about(out)
    except InputError as error:
        raise InputError(
            f"out={out}: {error}; give another out=, or overwrite=true to replace it"
        ) from error
    same = all(
        ours[part].get(key) == theirs[part].get(key)
        for part, key in (("source", "sha256"), ("generator", "weights"))
    )
    if not same:
        raise InputError(
            f"out={out} holds another model, {theirs['name']} of {theirs['kimg']:g} kimg; give another out=, or "
            "overwrite=true to replace it"
        )


def check_space(folder: Path, out: Path) -> None:
    """Check that a Space's folder is new, empty or an earlier Space.

    Raises:
        InputError: with what to do.
    """
    if folder.resolve() == out.resolve():
        raise InputError(f"space={folder} is the folder of the model; give another for the Space")
    if folder.is_file() or (folder.exists() and any(folder.iterdir()) and not is_space(folder)):
        raise InputError(f"space={folder} holds other files than a Space's; give another folder")


@contextmanager
def staged(out: Path, *, files: Collection[str] = FILES) -> Iterator[Path]:
    """Yield a temporary folder that replaces `out`'s `files` on success and is removed on failure.

    After a kill, the next export to the same folder cleans up.
    """
    folder, before = temporary_path(out), out.with_name(f".{out.name}.before")
    with naming(out):
        remove_leftovers(out.parent)
        if before.exists() and not out.exists():
            os.replace(before, out)
        keep_others(before, out, files)
        folder.mkdir(parents=True)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder)
        raise
    with naming(out):
        if out.exists():
            os.replace(out, before)
        publish(folder, out)
        keep_others(before, out, files)


def keep_others(before: Path, out: Path, files: Collection[str]) -> None:
    """Move other files, such as generated images, out of the replaced folder and remove it."""
    if before.exists():
        for entry in before.iterdir():
            if entry.name not in files:
                os.replace(entry, out / entry.name)
        shutil.rmtree(before)


def fill(folder: Path, material: Material, formats: Sequence[str], config: DictConfig) -> None:
    """Write all files of an exported model."""
    description, gan = material.description, material.gan
    description["generator"] |= write_weights(
        gan.generator.state_dict(), folder / exported.WEIGHTS["generator"]
    )
    description["generator"]["parameters"] = sum(p.numel() for p in gan.generator.parameters())
    if material.discriminator is not None:
        description["discriminator"] |= write_weights(
            material.discriminator.state_dict(), folder / exported.WEIGHTS["discriminator"]
        )
    if representation := gan.spec.representation.state_dict():
        description["representation"] = write_weights(
            representation, folder / exported.WEIGHTS["representation"]
        )
    description["programs"] = {
        kind: write_program(kind, gan, folder) for kind in exported.PROGRAMS if kind in formats
    }
    description["nvidia"] = write_nvidia(material, folder) if "nvidia" in formats else None
    grid, caption = sample_grid(gan, seed=config.seed, truncation=config.truncation)
    save_png(grid, folder / exported.GRID)
    text = card(description, caption=caption, repository=config.push)
    write(folder / exported.CARD, text)
    write_json(folder / exported.DESCRIPTION, description)


def nvidia_arguments(material: Material) -> dict[str, Any]:
    """Return what `nvidia.json` holds: which classes of NVIDIA's, and their constructors' arguments.

    Raises:
        InputError: for networks that NVIDIA's code does not have.
    """
    arguments: dict[str, Any] = {"source": "", "classes": {}}
    for player, network in networks_of(material).items():
        kind = type(network)
        arguments[player] = stylegan.published_arguments(
            kind, material.description[player]["network"]
        )
        arguments["classes"][player] = stylegan.CLASSES[kind]
        arguments["source"] = arguments["source"] or stylegan.SOURCES[kind]
    return arguments


def networks_of(material: Material) -> dict[str, nn.Module]:
    """Return the generator, and the discriminator if it is exported."""
    found: dict[str, nn.Module] = {"generator": material.gan.generator}
    if material.discriminator is not None:
        found["discriminator"] = material.discriminator
    return found


def write_nvidia(material: Material, folder: Path) -> dict[str, str]:
    """Write weights and arguments for NVIDIA's classes, and return the files' names and the generator's class."""
    arguments = nvidia_arguments(material)
    names = {
        "arguments": exported.NVIDIA["arguments"],
        "class": arguments["classes"]["generator"],
    }
    write_json(folder / names["arguments"], arguments)
    for player, network in networks_of(material).items():
        names[player] = exported.NVIDIA[player]
        weights = {
            name: value.detach().clone().contiguous()
            for name, value in stylegan.published_weights(network).items()
        }
        with replacing(folder / names[player]) as temporary:
            torch.save(weights, temporary)
    return names


def write_weights(state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Write weights and return their entry in `model.json`."""
    # copies: safetensors does not allow shared memory
    with replacing(path) as temporary:
        save_file({name: t.detach().clone().contiguous() for name, t in state.items()}, temporary)
        temporary.chmod(0o644)  # safetensors writes files readable by their owner only
    return {"file": path.name, "sha256": file_sha256(path)}


def written(out: Path) -> list[str]:
    """Return the existing files of an exported model."""
    return [name for name in FILES if (out / name).is_file()]
