"""gan-lab bench: the costs of training, part by part, on this machine."""

import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from omegaconf import DictConfig
from rich.box import SIMPLE
from rich.table import Table

from gan_lab.bench.rates import beyond_plain, compare, compare_ranks, data_rate, metric_rates
from gan_lab.bench.steps import against_peak, measure, summarize
from gan_lab.config import build
from gan_lab.console import say, warn
from gan_lab.data.datamodule import DataModule
from gan_lab.data.sample import SampleSpec
from gan_lab.metrics.base import Metrics
from gan_lab.run import check_writable, write_json
from gan_lab.sampling.gan import Gan
from gan_lab.training.auto import decide_by_data
from gan_lab.training.building import (
    backend_of,
    bare_trainer,
    build_data,
    build_model,
    compiled,
    quiet,
    sample_spec,
)
from gan_lab.training.checks import check_trainer
from gan_lab.version import __version__

Result = dict[str, Any]


def run(config: DictConfig) -> None:
    """Measure the chosen parts, print them and write them to `out` where it is given.

    Raises:
        InputError: for a config that cannot be trained, and for unknown parts.
    """
    quiet()
    check_trainer(config.trainer)
    if config.out:
        check_writable(Path(config.out))
    if config.threads:
        torch.set_num_threads(config.threads)
    decide_by_data(config)
    data = build_data(config)
    parts: dict[str, Callable[[DictConfig, DataModule], Result]] = {
        "steps": steps_part,
        "loop": loop_part,
        "data": data_part,
        "metrics": metrics_part,
        "ranks": ranks_part,
    }
    result = circumstances(config, sample_spec(config, data))
    for name, measure_part in parts.items():
        if name in config.parts:
            result[name] = measure_part(config, data)
    report(result)
    if config.out:
        write_json(Path(config.out), result)


def circumstances(config: DictConfig, spec: SampleSpec) -> Result:
    """Return the environment: model, batch, device, versions."""
    device = bare_trainer(config, callbacks=[]).strategy.root_device
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "overrides": sys.argv[1:],
        "model": config.model._target_,
        "sample": list(spec.shape),
        "num_classes": spec.label_width,
        "batch_size": config.batch_size,
        "d_steps": config.d_steps,
        "micro_batch_size": config.micro_batch_size,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "precision": str(config.trainer.precision),
        "compile": backend_of(config.compile),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        # other work on the machine slows everything
        "load_average": os.getloadavg()[0],
        "versions": {
            "gan_lab": __version__,
            "python": platform.python_version(),
            "torch": version("torch"),
            "lightning": version("lightning"),
        },
    }


def device_name(device: torch.device) -> str:
    """Return the device's name."""
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return f"{device}: {cpu_name()}"


def cpu_name() -> str:
    """Return the processor's name, or its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def steps_part(config: DictConfig, data: DataModule) -> Result:
    """Measure the phases of training steps."""
    module, trainer = (
        build_model(config, sample_spec(config, data)),
        bare_trainer(config, callbacks=[]),
    )
    device = trainer.strategy.root_device
    compiled(config, module, device)
    say(f"steps: {config.warmup} + {config.rounds} rounds on {device}")
    rounds = measure(
        module,
        data,
        trainer,
        warmup=config.warmup,
        rounds=config.rounds,
        at_kimg=config.at_kimg,
    )
    summary = summarize(rounds, module)
    summary["parameters"] = {
        player: sum(p.numel() for p in getattr(module, player).parameters())
        for player in ("generator", "discriminator")
    }
    half = str(config.trainer.precision) == "bf16-mixed"
    against_peak(summary, device, torch.bfloat16 if half else torch.float32)
    return summary


def loop_part(config: DictConfig, data: DataModule) -> Result:
    """Compare the loop with a plain PyTorch loop."""
    beyond = beyond_plain(
        build_model(config, sample_spec(config, data)), str(config.trainer.precision)
    )
    if beyond:
        warn(f"loop: left out, as the plain loop has no {', '.join(beyond)}")
        return {"left_out_for": beyond}
    steps = config.total_kimg * 1000 / (config.batch_size * config.d_steps)
    say(f"loop: 1 + {config.rounds} rounds of {steps:g} steps in turn")

    def make_trainer() -> Trainer:
        return bare_trainer(config, callbacks=[build(config.callbacks.training_log, Callback)])

    return compare(
        lambda: build_model(config, sample_spec(config, data)),
        make_trainer,
        data,
        rounds=config.rounds,
    )


def data_part(config: DictConfig, data: DataModule) -> Result:
    """Measure the loader."""
    return {"img_per_s": data_rate(data)}


def metrics_part(config: DictConfig, data: DataModule) -> Result:
    """Measure an evaluation."""
    module = build_model(config, sample_spec(config, data)).to(
        bare_trainer(config, callbacks=[]).strategy.root_device
    )
    gan = Gan(module.generator_ema, spec=data.spec, sources=data.sources)
    return dict(metric_rates(build(config.metrics, Metrics), data, gan))


def ranks_part(config: DictConfig, data: DataModule) -> Result:
    """Compare several processes with one."""
    return dict(compare_ranks(config, ranks=config.ranks, rounds=config.rounds))


def report(result: Result) -> None:
    """Print the metrics."""
    if "steps" in result:
        say(phase_table(result["steps"]))
    say(other_metrics(result))


def phase_table(steps: Result) -> Table:
    """Return what each phase costs."""
    table = Table(title="a training step", title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    headings = ("times", "s", "CPU s", "GFLOP", "GFLOP/s", "of peak", "(CPU)")
    table.add_column("phase", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, cost in (*steps["phases"].items(), ("in all", steps["step"])):
        part_of = cost.get("part_of")
        table.add_row(
            f"  {name}" if part_of else name,
            f"in {part_of[0].upper()}" if part_of else f"{cost.get('times_per_step', 1):.4g}",
            f"{cost['seconds']:.4f}",
            f"{cost['cpu_seconds']:.4f}",
            f"{cost['flops'] / 1e9:.4g}",
            f"{cost['flops_per_s'] / 1e9:.4g}" if "flops_per_s" in cost else "",
            *(
                f"{cost[key]:.1%}" if key in cost else ""
                for key in ("share_of_peak", "share_of_peak_by_cpu_time")
            ),
        )
    return table


def compiled_by(result: Result) -> str:
    """Return the backend of torch.compile as text, or nothing."""
    return f"compiled by {result['compile']}, " if result["compile"] else ""


def other_metrics(result: Result) -> Table:
    """Return a table of everything but the phases, environment first."""
    table = Table(title="bench", title_justify="left", show_header=False)
    shape = "x".join(str(side) for side in result["sample"])
    table.add_row("model", f"{result['model']}, {shape}, batches of {result['batch_size']}")
    table.add_row(
        "on",
        f"{result['device']}, {result['threads']} threads, {result['precision']}, "
        f"{compiled_by(result)}load average {result['load_average']:.2g} at the start",
    )
    steps = result.get("steps")
    if steps is not None:
        table.add_row("images a second", f"{steps['img_per_s']:.4g}")
        table.add_row("images a second of CPU time", f"{steps['img_per_cpu_s']:.4g}")
        table.add_row(
            "peak memory", f"{steps['peak_memory_gib']:.3g} GiB {steps['peak_memory_of']}"
        )
        peak = steps["peak"]
        table.add_row(
            "matrix products", f"{peak['flops_per_s'] / 1e9:.4g} GFLOP/s in {peak['dtype']}"
        )
    for part in ("loop", "data", "metrics", "ranks"):
        for name, value in result.get(part, {}).items():
            text = f"{value:.4g}" if isinstance(value, float) else ", ".join(value)
            table.add_row(f"{part}: {name.replace('_', ' ')}", text)
    return table
