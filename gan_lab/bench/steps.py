"""What a model's training step costs: seconds, operations and memory of each player's step and of each penalty."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from lightning import Trainer
from torch.utils.data import DataLoader, Dataset

from gan_lab.bench.costs import (
    REST,
    Cost,
    Costs,
    FlopCounter,
    MemoryPeak,
    Meter,
    Phases,
    matmul_peak,
)
from gan_lab.data.datamodule import DataModule
from gan_lab.data.sample import Batch
from gan_lab.training.module import AdversarialModule
from gan_lab.training.regularizers import Regularizer

EVERYTHING = ""  # the name of a step with all penalties


@dataclass
class Rounds:
    """Measured training steps.

    A round is one step with everything, with every lazy penalty due, then one without each penalty of every step, so
    that the cost of a penalty is the difference of two neighbouring steps. The last round counts operations. That
    slows it, so its times are left out.

    Attributes:
        timed: costs of the phases in each round, by what was left out of the step.
        counted: likewise, of the round that counts operations.
        memory_gib: peak during the timed rounds.
        memory_kind: of what.
    """

    timed: list[dict[str, Costs]] = field(default_factory=list)
    counted: dict[str, Costs] = field(default_factory=dict)
    memory_gib: float = 0.0
    memory_kind: str = ""


def measure(
    module: AdversarialModule,
    data: DataModule,
    trainer: Trainer,
    *,
    warmup: int,
    rounds: int,
    at_kimg: float,
) -> Rounds:
    """Let a Trainer take steps of a module, always on the same images, and measure them.

    Args:
        module: a fresh one, not usable afterwards.
        data: whose first batch is shown.
        trainer: with one epoch and no loggers.
        warmup: rounds before the measured ones.
        rounds: measured ones.
        at_kimg: where schedules and growing networks stand.
    """
    data.trainer = None
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    module.images_seen = round(at_kimg * 1000)
    made = Rounds()
    steps = take_rounds(module, trainer.strategy.root_device, made, warmup=warmup, rounds=rounds)
    trainer.fit(module, train_dataloaders=DataLoader(Repeated(batch, steps), batch_size=None))
    return made


class Repeated(Dataset[Batch]):
    """A dataset that repeats one batch."""

    def __init__(self, batch: Batch, times: int) -> None:
        self.batch = batch
        self.times = times

    def __len__(self) -> int:
        return self.times

    def __getitem__(self, index: int) -> Batch:
        return self.batch


def take_rounds(
    module: AdversarialModule, device: torch.device, made: Rounds, *, warmup: int, rounds: int
) -> int:
    """Replace a module's training step by one that measures into `made`; return how many steps that takes."""
    meter = Meter(device)
    phases = Phases(module, meter)
    plain_step = module.training_step
    in_loss = [name for player in module.players.values() for name in player.penalties()]
    left_out = [EVERYTHING, *in_loss]
    counting = (warmup + rounds) * len(left_out)  # the first of the steps whose operations count
    memory: list[MemoryPeak] = []

    def training_step(batch: Any, batch_idx: int) -> None:
        without = left_out[batch_idx % len(left_out)]
        if batch_idx == warmup * len(left_out):
            memory.append(MemoryPeak(device))
        if batch_idx == counting:
            made.memory_gib, made.memory_kind = memory[0].gib(), memory[0].kind
        for player in module.players.values():
            # lazy penalties are due at the steps that their interval divides
            player.steps_taken = 0 if without == EVERYTHING else 1
        with leaving_out(module, without), counting_into(meter, batch_idx >= counting):
            phases.start_step()
            plain_step(batch, batch_idx)
            costs = phases.end_step()
        if batch_idx >= counting:
            made.counted[without] = costs
        elif batch_idx >= warmup * len(left_out):
            if without == EVERYTHING:
                made.timed.append({})
            made.timed[-1][without] = costs

    module.training_step = training_step  # type: ignore[method-assign]
    return counting + len(left_out)


@contextmanager
def leaving_out(module: AdversarialModule, name: str) -> Iterator[None]:
    """Train without the regularizer of that name."""
    everything = {player: dict(player.regularizers) for player in module.players.values()}
    for player in everything:
        player.regularizers.pop(name, None)
    try:
        yield
    finally:
        for player, regularizers in everything.items():
            player.regularizers = regularizers


@contextmanager
def counting_into(meter: Meter, count: bool) -> Iterator[None]:
    """Count operations on uncompiled passes (compiled code reports none)."""
    mode = FlopCounter() if count else None
    uncompiled = torch.compiler.set_stance("force_eager") if count else nullcontext()
    with uncompiled, mode or nullcontext():
        meter.flops = mode
        yield
    meter.flops = None


def summarize(rounds: Rounds, module: AdversarialModule) -> dict[str, Any]:
    """Return the cost of each phase and of a whole training step, in which a phase has its weight.

    A lazy penalty's weight is its player's over its interval. A penalty of every step is part of its player's phase;
    its cost is that with it minus that without it, and it has no weight.
    """
    phases: dict[str, dict[str, Any]] = {}
    for name in rounds.counted[EVERYTHING]:
        cost = typical(
            [r[EVERYTHING][name] for r in rounds.timed], rounds.counted[EVERYTHING][name].flops
        )
        phases[name] = cost._asdict() | {"times_per_step": times_per_step(name, module)}
    whole = Cost()
    for phase in phases.values():
        cost = Cost(phase["seconds"], phase["cpu_seconds"], phase["flops"])
        whole = whole.plus(cost, phase["times_per_step"])
    for name in rounds.counted:
        if name != EVERYTHING:
            player = regularizer_of(name, module).player
            phases[name] = share(rounds, name, player)._asdict() | {"part_of": player}
    images = module.batch_size * module.d_steps
    return {
        "phases": phases,
        "step": whole._asdict(),
        "img_per_s": images / whole.seconds,
        "img_per_cpu_s": images / whole.cpu_seconds,
        "peak_memory_gib": rounds.memory_gib,
        "peak_memory_of": rounds.memory_kind,
    }


def times_per_step(name: str, module: AdversarialModule) -> float:
    """Return how often a phase runs in a training step, on average."""
    of_player = {"generator": 1, "discriminator": module.d_steps, REST: 1}
    if name in of_player:
        return of_player[name]
    regularizer = regularizer_of(name, module)
    return of_player[regularizer.player] / regularizer.interval


def regularizer_of(name: str, module: AdversarialModule) -> Regularizer:
    """Return a module's regularizer of that name."""
    found = module.regularizers[name]
    assert isinstance(found, Regularizer)
    return found


def share(rounds: Rounds, name: str, player: str) -> Cost:
    """Return what a penalty of every step adds to its player's phase."""
    differences = [r[EVERYTHING][player].plus(r[name][player], -1) for r in rounds.timed]
    flops = rounds.counted[EVERYTHING][player].flops - rounds.counted[name][player].flops
    return typical(differences, flops)


def typical(costs: list[Cost], flops: float) -> Cost:
    """Return the median times of what was measured again and again, and the operations of what was counted."""
    return Cost(median(c.seconds for c in costs), median(c.cpu_seconds for c in costs), flops)


def against_peak(summary: dict[str, Any], device: torch.device, dtype: torch.dtype) -> None:
    """Add operations a second, and their share of what matrix products of `dtype` reach on the device now.

    Convolutions need not come from the same library as matrix products, so that a share can exceed 1. That by CPU
    time is there for a CPU: other work on the machine changes it less.
    """
    peak, cpu_peak = matmul_peak(device, dtype)
    summary["peak"] = {"flops_per_s": peak, "dtype": str(dtype).removeprefix("torch.")}
    for cost in (*summary["phases"].values(), summary["step"]):
        # a share is a difference of two times, which noise can make zero or less
        if min(cost["seconds"], cost["cpu_seconds"]) <= 0:
            continue
        cost["flops_per_s"] = cost["flops"] / cost["seconds"]
        cost["share_of_peak"] = cost["flops_per_s"] / peak
        if device.type == "cpu":
            cost["share_of_peak_by_cpu_time"] = cost["flops"] / cost["cpu_seconds"] / cpu_peak
