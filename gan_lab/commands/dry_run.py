"""gan-lab train ... dry_run=true: estimate a run's time, memory and disk space."""

import shutil
from pathlib import Path
from socket import gethostname
from typing import Any

import torch
from lightning import seed_everything
from omegaconf import DictConfig
from rich.box import SIMPLE
from rich.table import Table
from torch.distributed import all_gather_object, get_world_size

from gan_lab.bench.dry_run import CheckpointSize, DryRun, Found, device_gib, times_due
from gan_lab.bench.steps import GIB, times_per_step
from gan_lab.config import build, resolved
from gan_lab.console import say, warn
from gan_lab.data.datamodule import DataModule
from gan_lab.distributed.processes import world_size
from gan_lab.errors import InputError, counted
from gan_lab.layers.collectives import several_ranks
from gan_lab.metrics import NoMetrics
from gan_lab.metrics.base import Metrics
from gan_lab.training.building import (
    bare_trainer,
    build_callbacks,
    build_data,
    build_model,
    compiled,
    sample_spec,
)
from gan_lab.training.callbacks.samples import fixed_samples
from gan_lab.training.checkpoint import LAST, read
from gan_lab.training.checks import CheckSameConfig, check_batch_per_process
from gan_lab.training.module import AdversarialModule
from gan_lab.weights.loading import open_origin

KEPT = 3  # checkpoints of a run: last, previous and best
NEARLY_ALL = 0.9  # of a device's memory: drivers and other programs use some


def dry_run(config: DictConfig) -> None:
    """Run the most expensive steps and an evaluation, and report the cost. Nothing is written to the run folder.

    Raises:
        InputError: as `gan-lab train`; when out of memory; when training is finished.
    """
    begin = shown_before(Path(config.run_dir))
    build_callbacks(config)  # for their checks
    if config.init_from and not begin:
        open_origin(config.init_from)
    data = build_data(config)
    spec = sample_spec(config, data)
    seed_everything(config.seed, verbose=False)
    module = build_model(config, spec)
    sync_batchnorm = bool(config.trainer.get("sync_batchnorm"))
    check_batch_per_process(module, world_size(config.trainer), sync_batchnorm=sync_batchnorm)
    if begin >= module.total_images:
        raise InputError(
            f"{config.run_dir} is trained: it has seen {begin / 1000:g} kimg; set total_kimg= above that"
        )
    costs = costs_of(config, data, begin)
    same_config = CheckSameConfig(config=resolved(config))
    trainer = bare_trainer(config, callbacks=[same_config, costs], checkpoints=costs.sizes)
    compiled(config, module, trainer.strategy.root_device)
    try:
        trainer.fit(module, datamodule=data)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not says_out_of_memory(error):
            raise
        raise InputError(does_not_fit(config, error)) from error
    report(config, module, gathered(costs.found), begin)


def shown_before(run_dir: Path) -> int:
    """Return the real images that a run has been shown, 0 where there is none."""
    last = run_dir / "checkpoints" / LAST
    return int(read(last)["clock"]["images_seen"]) if last.exists() else 0


def costs_of(config: DictConfig, data: DataModule, begin: int) -> DryRun:
    """Return the callback that measures the costs."""
    samples, evaluation = (config.callbacks.get(name) for name in ("samples", "evaluation"))

    def draw_grid(module: AdversarialModule) -> object:
        return fixed_samples(
            module,
            data.spec,
            rows=samples.rows,
            columns=samples.columns,
            seed=0,
            sources=data.sources,
        )

    return DryRun(
        metrics=None if measures_nothing(config) else build(config.metrics, Metrics),
        seed=evaluation.get("seed", 0) if evaluation else 0,
        draw_grid=draw_grid if samples else None,
        sizes=CheckpointSize(),
        begin=begin,
    )


def measures_nothing(config: DictConfig) -> bool:
    """Whether a run has no evaluations."""
    nothing = f"{NoMetrics.__module__}.{NoMetrics.__qualname__}"
    return not config.callbacks.get("evaluation") or config.metrics._target_ == nothing


def says_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error means out of memory (CPU allocators raise plain RuntimeErrors)."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def does_not_fit(config: DictConfig, error: Exception) -> str:
    """Return the out-of-memory error with what to do."""
    size = config.micro_batch_size or config.batch_size
    reason = str(error).partition("\n")[0]
    return (
        f"out of memory in the most expensive step ({reason}): {size} images pass through the networks at once; set "
        f"micro_batch_size={max(size // 2, 1)} or less, or trainer.precision=bf16-mixed"
    )


def gathered(found: Found) -> dict[str, list[Found]]:
    """Gather the results of all processes, by machine."""
    if not several_ranks():
        return {gethostname(): [found]}
    parcels: list[Any] = [None] * get_world_size()
    all_gather_object(parcels, (gethostname(), found))
    machines: dict[str, list[Found]] = {}
    for machine, one in parcels:
        machines.setdefault(machine, []).append(one)
    return machines


def report(
    config: DictConfig, module: AdversarialModule, machines: dict[str, list[Found]], begin: int
) -> None:
    """Print the cost of the run, and warn about limits."""
    all_found = [found for on_one in machines.values() for found in on_one]
    first = all_found[0]
    images = module.batch_size * module.d_steps
    # processes wait for each other: the slowest one counts
    seconds = max(found.seconds for found in all_found)
    left = (module.total_images - begin) / 1000
    training = left * 1000 / images * seconds
    extra = {
        "evaluation": first.evaluation_seconds * due(config, "evaluation", module, begin),
        "grids": first.grid_seconds * due(config, "samples", module, begin),
    }
    whole = training + sum(extra.values()) + first.preparation_seconds
    table = Table(title="dry run", title_justify="left", show_header=False, box=SIMPLE)
    table.add_row("on", describe_device(module, machines))
    table.add_row("peak memory", memory(first, all_found))
    table.add_row("a training step", steps(module, first))
    table.add_row("1 kimg", f"{seconds / images * 1000:.3g} s ({rate(images / seconds)})")
    table.add_row("reading samples", reading(first, images))
    if "evaluation" in config.callbacks and first.evaluation_seconds:
        times = counted(due(config, "evaluation", module, begin), "time")
        table.add_row(
            "an evaluation",
            f"{duration(first.evaluation_seconds)}, {times}: {extra['evaluation'] / whole:.1%} of the time; "
            f"{duration(first.preparation_seconds)} once before",
        )
    table.add_row(
        "a checkpoint", f"{first.checkpoint_bytes / 2**20:.4g} MiB, of which {KEPT} are kept"
    )
    table.add_row(
        "to the end",
        f"{duration(whole)} for {left:g} kimg, evaluations and grids of samples included",
    )
    say(table)
    warn_of_limits(config, module, machines, first)
    say(f"dry run: nothing was written to {config.run_dir}")


def due(config: DictConfig, callback: str, module: AdversarialModule, begin: int) -> int:
    """Return how often a callback runs until the end of training."""
    if callback not in config.callbacks:
        return 0
    return times_due(begin, module.total_images, config.callbacks[callback].every_kimg)


def describe_device(module: AdversarialModule, machines: dict[str, list[Found]]) -> str:
    """Describe the device and the processes."""
    device = module.trainer.strategy.root_device.type
    processes = counted(sum(map(len, machines.values())), "process")
    over = f" on {len(machines)} machines" if len(machines) > 1 else ""
    if device != "cpu":
        return f"{device}, {processes}{over}"
    return f"{device}, {processes}{over} with {counted(torch.get_num_threads(), 'thread')}"


def memory(first: Found, all_found: list[Found]) -> str:
    """Return the peak memory of a process, and where."""
    step, evaluation = (
        max(getattr(found, name) for found in all_found) for name in ("step_gib", "evaluation_gib")
    )
    each = " each" if len(all_found) > 1 else ""
    evaluating = f", {evaluation:.3g} GiB in an evaluation" if first.evaluation_seconds else ""
    return f"{step:.3g} GiB{each} in the most expensive step{evaluating}; {first.memory_kind}"


def steps(module: AdversarialModule, found: Found) -> str:
    """Return the time of a training step, now and at the end of training, and its phases at the end."""
    begin, end = f"{found.step_seconds[0]:.3g} s", f"{found.step_seconds[-1]:.3g} s"
    parts = ", ".join(
        f"{name} {cost.seconds:.3g} s x {times_per_step(name, module):.3g}"
        for name, cost in found.phases[-1].items()
    )
    return f"{end if begin == end else f'{begin} at first, {end} at the end'} ({parts})"


def reading(found: Found, images: int) -> str:
    """Return the loading rate."""
    if not found.loading_seconds:
        return "too few of them to measure"
    kind = "ahead, by worker processes" if found.ahead else "between the steps"
    return f"{rate(images / found.loading_seconds)}, {kind}"


def warn_of_limits(
    config: DictConfig, module: AdversarialModule, machines: dict[str, list[Found]], first: Found
) -> None:
    """Warn about limits of device and disk, and about a loader that is slower than training."""
    device = module.trainer.strategy.root_device
    there = device_gib(device)
    for machine, on_one in machines.items():
        used = [max(found.step_gib, found.evaluation_gib) for found in on_one]
        wanted = sum(used) if device.type == "cpu" else max(used)
        if wanted > NEARLY_ALL * there:
            warn(
                f"{wanted:.3g} GiB are nearly all or more than the {there:.3g} GiB of {machine}'s {device.type}; lower "
                "micro_batch_size= (null is the whole batch), or set trainer.precision=bf16-mixed"
            )
    run_dir = Path(config.run_dir).absolute()
    folder = next(path for path in (run_dir, *run_dir.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if KEPT * first.checkpoint_bytes > free:
        warn(
            f"{KEPT} checkpoints take {KEPT * first.checkpoint_bytes / GIB:.3g} GiB, and {folder} has {free / GIB:.3g} "
            "GiB left; choose another runs_dir="
        )
    if first.ahead and first.loading_seconds > first.step_seconds[-1]:
        warn(
            "reading samples takes longer than training on them: set num_workers= higher, or pack them with gan-lab "
            "prepare-data"
        )


def rate(images: float) -> str:
    """Format images a second with three digits, without exponent."""
    return f"{images:,.0f} img/s" if images >= 100 else f"{images:.3g} img/s"


def duration(seconds: float) -> str:
    """Format a duration in seconds, minutes, hours or days."""
    if seconds < 0.01:
        return "below 0.01 s"
    if seconds < 90:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    return f"{hours} h" if hours < 72 else f"{hours / 24:.1f} days"
