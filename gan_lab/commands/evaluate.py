"""gan-lab evaluate: the figures of a trained run."""

import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from gan_lab import __version__
from gan_lab.checkpoint import CONFIG_FILE, checkpoint_path, load, read_config
from gan_lab.commands.generate import measure_statistics, pick_device
from gan_lab.config import build, check_targets
from gan_lab.console import say
from gan_lab.data.datamodule import ImageDataModule
from gan_lab.errors import InputError
from gan_lab.seeding import check_seed


def run(config: DictConfig) -> None:
    """Measure a run, print a table and write `evaluation.json` into its folder.

    Raises:
        InputError: for a run, its data or metrics that cannot be used.
    """
    check_seed(config.seed)
    source = checkpoint_path(Path(config.run), config.checkpoint)
    run_dir = source.parent.parent
    trained = read_config(run_dir)
    metrics_node = config.metrics if config.get("metrics") else trained.metrics
    data_node = OmegaConf.merge(trained.data, config.data)
    for node in (trained.data, trained.metrics):
        check_targets(node, trust=config.trust, origin=run_dir / CONFIG_FILE)
    device = pick_device(config.device)
    gan = load(
        config.run,
        checkpoint=config.checkpoint,
        weights=config.weights,
        device=device,
        trust=config.trust,
    )
    gan.check_truncation(config.truncation)
    measure_statistics(gan, config)
    metrics = build(metrics_node)
    metrics.prepare(open_data(data_node, trained))
    begin = time.perf_counter()
    figures = metrics.compute(
        lambda count: gan.batches(
            count,
            seed=config.seed,
            batch_size=config.batch_size,
            truncation=config.truncation,
        )
    )
    if not figures:
        raise InputError(
            f"nothing of {run_dir} could be measured: mend what the warning above says, if there is one, or choose "
            "other metrics: metrics=digits, metrics=fid"
        )
    result = {
        "figures": figures,
        "run": str(run_dir),
        "checkpoint": source.name,
        "kimg": gan.kimg,
        "weights": config.weights,
        "seed": config.seed,
        "truncation": config.truncation,
        "standing_statistics": config.standing_statistics,
        "protocol": dict(metrics.protocol),
        "metrics": OmegaConf.to_container(metrics_node, resolve=True),
        "data": OmegaConf.to_container(data_node, resolve=True),
        "seconds": time.perf_counter() - begin,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {
            "gan_lab": __version__,
            "torch": version("torch"),
            "torchmetrics": version("torchmetrics"),
        },
    }
    say(as_table(result))
    write(result, run_dir / "evaluation.json")
    say(f"wrote {run_dir / 'evaluation.json'}")


def open_data(node: Any, trained: DictConfig) -> ImageDataModule:
    """Open the data of a trained run again."""
    return ImageDataModule(
        dataset=build(node),
        batch_size=trained.batch_size,
        d_steps=trained.d_steps,
        total_images=1,
        seed=trained.seed,
        num_workers=trained.num_workers,
    )


def as_table(result: dict[str, Any]) -> Table:
    """Return the figures as a table."""
    title = (
        f"{result['run']} ({result['checkpoint']}, {result['kimg']:g} kimg, {result['weights']})"
    )
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in result["figures"].items():
        table.add_row(name, f"{value:.4f}")
    return table


def write(result: dict[str, Any], path: Path) -> None:
    """Write JSON, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=2) + "\n")
    os.replace(temporary, path)
