"""gan-lab directions: directions in a latent space, and images along them."""

from omegaconf import DictConfig
from rich.table import Table

from gan_lab.commands.options import (
    check_image,
    check_output,
    check_sampling_options,
    layers_text,
    load_gan,
    output_folder,
    parse_classes,
    parse_layers,
    parse_seeds,
)
from gan_lab.console import say
from gan_lab.data.images import save_pil
from gan_lab.sampling.directions import (
    Directions,
    along,
    check_amounts,
    direction_sheets,
    directions,
)
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.latents import SUFFIX, Latents
from gan_lab.sampling.writers import class_suffix, slug


def run(config: DictConfig) -> None:
    """Find directions, write them, and draw sheets.

    Raises:
        InputError: for an unknown run, method, layer or class, or numbers out of range.
    """
    amounts = check_amounts(list(config.amounts))
    seeds = parse_seeds(config.seeds)
    gan = check_image(load_gan(config), "directions")
    check_output(config, gan)
    check_sampling_options(config, gan)
    classes = parse_classes(config.classes, gan)
    layers = parse_layers(config.layers)
    found = directions(
        gan,
        config.method,
        layers=layers,
        count=config.count,
        labels=classes,
        within=config.within,
        samples=config.samples,
        seed=config.seed,
    )
    labels = None if classes is None else [classes[i % len(classes)] for i in range(len(seeds))]
    latents = gan.as_latents(
        seeds,
        labels=labels,
        truncation=config.truncation,
        truncation_center=config.truncation_center,
    )
    images = along(gan, found, latents, amounts, noise=config.noise)
    part = [] if found.space == "z" else [slug(layers_text(layers))]
    folder = output_folder(config, gan, [found.method, *part])
    say(as_table(found))
    say(f"wrote {found.save(folder / f'directions{SUFFIX}')}")
    whole, each = direction_sheets(images, found, amounts, names_of(latents, seeds, gan))
    save_pil(whole, folder / "directions.png")
    for k, sheet in enumerate(each):
        save_pil(sheet, folder / f"direction_{k:02d}.png")
    say(f"wrote {folder / 'directions.png'}")
    say(f"wrote {folder}/direction_*.png ({len(each)})")


def names_of(latents: Latents, seeds: list[int], gan: Gan) -> list[str]:
    """Return the names of latents in a sheet."""
    if latents.labels is None:
        return [f"seed {seed}" for seed in seeds]
    suffixes = [class_suffix(int(label), gan) for label in latents.labels]
    classes = [suffix.removeprefix("_class").rpartition("_")[2] for suffix in suffixes]
    return [f"seed {seed}, {name}" for seed, name in zip(seeds, classes, strict=True)]


def as_table(found: Directions) -> Table:
    """Return shares and scales of all directions."""
    of = "variance" if found.method == "ganspace" else "A^T A"
    where = f"w, layers {list(found.layers)}" if found.layers is not None else "z"
    table = Table(title=f"{found.method} in {where}", title_justify="left")
    for name in ("direction", f"share of {of}", "deviation"):
        table.add_column(name, justify="right")
    for k, (share, scale) in enumerate(
        zip(found.shares.tolist(), found.scales.tolist(), strict=True)
    ):
        table.add_row(str(k), f"{share:.2%}", f"{scale:.3f}")
    return table
