"""gan-lab project: project images into the latent space of a generator."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.table import Table
from safetensors.torch import save
from torch import Tensor

from gan_lab.commands.evaluate import open_data
from gan_lab.commands.export import staged, write_weights
from gan_lab.commands.options import (
    check_image,
    check_output,
    is_run,
    load_gan,
    output_folder,
    parse_classes,
    parse_seeds,
    source_of,
    weights_of,
)
from gan_lab.console import in_a_line, say
from gan_lab.data.images import save_pil, save_png, to_float, to_uint8
from gan_lab.data.media import labeled_sheet, on_white, stacked
from gan_lab.errors import InputError, counted
from gan_lab.metrics.features.vgg16 import choose_distance
from gan_lab.run import write, write_json
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.latents import SUFFIX
from gan_lab.sampling.projection import ProjectionResult, default_steps, image_shape, project
from gan_lab.sampling.sampler import Sampler
from gan_lab.sampling.search import Schedule, Tuning
from gan_lab.sampling.spaces import choose_space
from gan_lab.sampling.targets import Targets, read_targets
from gan_lab.sampling.video import check_video, readable_scale, write_video
from gan_lab.sampling.writers import slug
from gan_lab.training.checkpoint import read_config
from gan_lab.weights import exported
from gan_lab.weights.export import of_export, of_run
from gan_lab.weights.loading import local

_ACROSS = 8  # images in a row of the sheet

_LISTED = 24  # rows of the table

_NOTED = 10


def run(config: DictConfig) -> None:
    """Project images and write the results.

    Raises:
        InputError: for invalid images, run, classes or options.
    """
    if config.video is not None:
        check_video(f"projection.{config.video}", config.fps)
    tuning = Tuning(**OmegaConf.to_container(config.tune))  # type: ignore[arg-type]
    gan = check_image(load_gan(config), "project")
    if gan.spec.encoded_shape != gan.spec.shape:
        raise InputError(
            f"gan-lab project compares pixels, and {gan.kind} makes latents {list(gan.spec.encoded_shape)}; use a "
            "model of images"
        )
    check_output(config, gan)
    schedule = open_schedule(config, gan)
    targets = open_targets(config, gan)
    for note in [*targets.notes[:_NOTED], *(["..."] if len(targets.notes) > _NOTED else [])]:
        say(note)
    found = project(
        gan,
        targets,
        labels=open_labels(config, gan, targets),
        space=config.space,
        steps=schedule,
        restarts=config.restarts,
        noise=config.noise,
        distance=choose_distance(
            config.distance,
            channels=image_shape(gan)[0],
            device=gan.device,
            weights=config.vgg16,
        ),
        tuning=tuning,
        seed=config.seed,
        batch_size=config.batch_size,
        record=config.video is not None,
    )
    folder = output_folder(config, gan, ["project", found.space, slug(title(found.names))])
    say(as_table(found))
    for line in summary(found):
        say(line)
    for path in write_results(found, targets, folder, config):
        say(f"wrote {path}")
    if not found.finished:
        say(
            f"stopped: {len(found.names)} of {counted(len(targets), 'image')}, at their current state"
        )
        raise KeyboardInterrupt


def open_schedule(config: DictConfig, gan: Gan) -> Schedule:
    """Return the schedule of the search.

    Raises:
        InputError: for numbers out of range, or a space that the generator lacks.
    """
    steps = default_steps(choose_space(gan, config.space)) if config.steps is None else config.steps
    return Schedule(
        steps=steps,
        lr=config.lr,
        jitter=config.jitter,
        prior=config.prior,
        noise_weight=config.noise_weight,
    )


def open_targets(config: DictConfig, gan: Gan) -> Targets:
    """Return the images of `images` or `dataset_indices`.

    Raises:
        InputError: when neither or both are given, or they cannot be read.
    """
    if (config.images is None) == (config.dataset_indices is None):
        raise InputError(
            "give images=, a file, a folder or a list of them, or dataset_indices=, numbers of the run's data; not both"
        )
    channels, height, width = image_shape(gan)
    if config.dataset_indices is not None:
        return dataset_indices(config)
    given = list(config.images) if isinstance(config.images, ListConfig) else [config.images]
    return read_targets([str(one) for one in given], size=(height, width), channels=channels)


def dataset_indices(config: DictConfig) -> Targets:
    """Return images of the data that a run was trained on, or of its held-out part.

    Raises:
        InputError: without a run, for an unknown split, and indices out of range.
    """
    numbers = parse_seeds(config.dataset_indices, "dataset_indices")
    source = Path(str(config.run)).expanduser()
    if not is_run(source):
        raise InputError(
            f"dataset_indices={config.dataset_indices}: {source} is not a run folder; give images="
        )
    folder = source.parent.parent if source.is_file() else source
    data = open_data(config, read_config(folder), source)
    dataset = {"train": data.train, "val": data.val}.get(config.split)
    if dataset is None:
        raise InputError(f"split={config.split}: the data have no such part; choose train or val")
    if max(numbers) >= len(dataset):
        raise InputError(
            f"dataset_indices={config.dataset_indices}: {config.split} has {counted(len(dataset), 'image')}, "
            f"0 to {len(dataset) - 1}"
        )
    batch = dataset.__getitems__(numbers)
    return Targets(
        images=to_float(batch.real),
        names=[f"{config.split} {i}" for i in numbers],
        labels=batch.labels,
    )


def open_labels(config: DictConfig, gan: Gan, targets: Targets) -> Tensor | list[int] | int | None:
    """Return the images' classes, or None to search for them.

    Raises:
        InputError: for unknown classes.
    """
    if config.classes == "data":
        if targets.labels is None or not gan.num_classes:
            raise InputError("classes=data needs dataset_indices= and a model with classes")
        return targets.labels
    found = parse_classes(config.classes, gan)
    return found[0] if found is not None and len(found) == 1 else found


def write_results(
    found: ProjectionResult, targets: Targets, folder: Path, config: DictConfig
) -> list[Path]:
    """Write latents, images, errors and videos; return the files."""
    written = [found.latents.save(folder / f"latents{SUFFIX}")]
    if found.noise is not None:
        written.append(folder / f"noise{SUFFIX}")
        write(written[-1], save({n: m.contiguous() for n, m in found.noise.maps.items()}))
    save_pil(comparison_sheet(found), folder / "projection.png")
    for i, (name, image) in enumerate(zip(found.names, to_uint8(found.images), strict=True)):
        save_png(image, folder / "images" / f"{i:04d}_{slug(Path(name).stem)}.png")
    write_json(folder / "projection.json", as_json(found, targets, config))
    written += [folder / "projection.png", folder / "images", folder / "projection.json"]
    if found.before_tuning is not None:
        written.append(save_tuned(found.gan, config, folder / "tuned", names=found.names))
    if found.frames is not None and len(found.frames):
        frames = map(on_white, found.frames.frames(hold=int(config.fps)))
        scale = min(readable_scale(*found.targets.shape[2:], at_least=96), 8)
        written.append(
            write_video(folder / f"projection.{config.video}", frames, config.fps, scale)
        )
    return written


def comparison_sheet(found: ProjectionResult) -> Any:
    """Return a sheet with projections below their targets."""
    rows = {"target": found.targets}
    rows["before tuning" if found.before_tuning is not None else found.space] = (
        found.images if found.before_tuning is None else found.before_tuning
    )
    if found.before_tuning is not None:
        rows["tuned"] = found.images
    bands = []
    for start in range(0, len(found.names), _ACROSS):
        part = [to_uint8(images[start : start + _ACROSS]) for images in rows.values()]
        errors = [f"MSE {mse:.4f}" for mse in found.mse[start : start + _ACROSS].tolist()]
        cells = on_white(torch.stack(part))
        bands.append(labeled_sheet(cells, rows=list(rows), columns=errors))
    return stacked(bands)


def as_json(found: ProjectionResult, targets: Targets, config: DictConfig) -> dict[str, Any]:
    """Return the results and the settings."""
    run, checkpoint = source_of(config)
    settings = ("lr", "jitter", "prior", "noise_weight", "restarts", "seed", "tune")
    return {
        "run": run,
        "checkpoint": checkpoint,
        "weights": weights_of(config),
        "kimg": found.gan.kimg,
        "space": found.space,
        "steps": found.steps,
        "distance": found.distance,
        "why": found.why,
        "noise": found.noise is not None,
        **{key: OmegaConf.to_container(config)[key] for key in settings},  # type: ignore[index,call-overload]
        "mse": float(found.mse.mean()),
        "seconds": round(found.seconds, 2),
        "finished": found.finished,
        "notes": targets.notes,
        "images": found.results(),
    }


def as_table(found: ProjectionResult) -> Table:
    """Return the errors of each image."""
    results = found.results()
    table = Table()
    for name in results[0]:
        table.add_column(name, justify="left" if name == "name" else "right")
    for row in results[:_LISTED]:
        table.add_row(
            *(f"{v:.4g}" if isinstance(v, float) else in_a_line(str(v)) for v in row.values())
        )
    return table


def summary(found: ProjectionResult) -> list[str]:
    """Summarize the projection in two or three lines."""
    count = len(found.names)
    lines = [
        f"{count} image{'s' * (count > 1)} in {found.space}, {found.steps} steps, {found.seconds:.1f} s; "
        f"MSE {found.mse.mean():.4g} on average, {found.mse.max():.4g} at most",
        f"distance: {found.distance} ({found.why})",
    ]
    if found.noise is not None:
        lines.append(
            "mse is with the noise maps that were found, mse_const_noise that of the latents alone"
        )
    return lines


def title(names: list[str]) -> str:
    """Return a folder name for these images."""
    first = Path(names[0]).stem
    return first if len(names) == 1 else f"{first}-and-{len(names) - 1}-more"


# A tuned generator is exported, and commands take it like a run.

_NAMED = 5


def save_tuned(gan: Sampler, config: DictConfig, out: Path, *, names: Sequence[str]) -> Path:
    """Write a tuned generator as an exported model; an earlier export there is replaced.

    Args:
        gan: the tuned generator.
        config: of `gan-lab project`.
        out: folder.
        names: of the images.

    Returns:
        The folder.
    """
    description = describe(config)
    images = ", ".join(names[:_NAMED])
    images += f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    description["name"] = f"{description['name']}, tuned"
    description["tuned"] = {"to": list(names), "how": OmegaConf.to_container(config.tune)}
    # metrics are of the untuned generator
    description["metrics"], description["best"] = [], None
    description["discriminator"], description["programs"], description["nvidia"] = None, {}, None
    with staged(out) as folder:
        path = folder / exported.WEIGHTS["generator"]
        description["generator"] |= write_weights(gan.generator.state_dict(), path)
        write_json(folder / exported.DESCRIPTION, description)
        write(
            folder / exported.CARD,
            f"# {description['name']}\n\nThe generator of {config.run} after pivotal tuning (Roich et al. 2021, "
            f"https://arxiv.org/abs/2106.05744) to these images: {images}. `gan-lab generate run={out} "
            f"latents={out.parent / 'latents.safetensors'}` draws them.\n",
        )
    return out


def describe(config: DictConfig) -> dict[str, Any]:
    """Return the description of the untuned generator."""
    source = local(config.run)
    if exported.is_export(source):
        made = of_export(source, weights=None, discriminator=False, trust=config.trust)
        return made.description
    return of_run(
        source,
        checkpoint=config.checkpoint,
        weights=config.weights or "ema",
        discriminator=False,
        trust=config.trust,
    ).description
