"""gan-lab ema: a run's metrics with post-hoc averages of other lengths."""

import time

from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from gan_lab.commands.evaluate import as_result, fake_store, measure, open_run, open_task, out_of
from gan_lab.commands.options import pick_device
from gan_lab.config import conf_dir
from gan_lab.console import say
from gan_lab.metrics.sources import GanImages
from gan_lab.run import add_result, check_writable


def run(config: DictConfig) -> None:
    """Evaluate the run's own weights and averages of each length, add the results to the JSON, and print a table.

    Raises:
        InputError: for a run without saved averages, and as `gan-lab evaluate`.
    """
    whole = as_evaluation(config)
    task = open_task(whole)
    protocol, real = task.protocol, task.real
    out = out_of(whole, task.path, task.is_run)
    check_writable(out)
    lengths = sorted(set(config.lengths))
    sources = {}
    for length in lengths:  # check everything before the first evaluation
        at = whole.copy()
        at.weights, at.ema = None, length
        sources[f"{length:g}"] = open_run(at, task.path, protocol)
    assert isinstance(task.fake, GanImages)
    sources = {f"its own ({task.fake.description['weights']})": task.fake, **sources}
    protocol.load(pick_device(config.device))
    found = {}
    for name, fake in sources.items():
        fake.use_data(task.fake.gan.sources, task.fake.gan.label_rows)
        begin = time.perf_counter()
        _, metrics = measure(protocol, fake, real, None)
        real = None  # once is enough
        result = as_result(protocol, fake, metrics)
        result |= {"seed": config.seed, "seconds": time.perf_counter() - begin}
        add_result(result, out)
        fake_store(protocol, fake).clear()
        found[name] = {metric.key: metric.value for metric in metrics}
    say(f"{config.run}, protocol {protocol.name}, by length of the EMA")
    say(as_table(found))
    if protocol.best is not None:
        values = {name: metrics[protocol.best] for name, metrics in found.items()}
        best = (max if protocol.mode == "max" else min)(values, key=lambda name: values[name])
        say(f"best {protocol.best}: {values[best]:.4g} with {best}")
    say(f"wrote {out}")


def as_evaluation(config: DictConfig) -> DictConfig:
    """Return the `gan-lab evaluate` config for the run's own weights."""
    base = OmegaConf.load(conf_dir() / "evaluate.yaml")
    assert isinstance(base, DictConfig)
    for key in ("defaults", "hydra"):
        del base[key]
    own = {key: value for key, value in config.items() if key not in ("lengths", "hydra")}
    merged = OmegaConf.merge(base, own)
    assert isinstance(merged, DictConfig)
    return merged


def as_table(found: dict[str, dict[str, float]]) -> Table:
    """Return metrics as a table, a row for each average."""
    keys = list(next(iter(found.values())))
    table = Table("length", *keys)
    for name, metrics in found.items():
        table.add_row(name, *(f"{metrics[key]:.4g}" for key in keys))
    return table
