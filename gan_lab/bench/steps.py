"""What a model's training step costs: seconds, memory and operations of each player's step and of each penalty."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from math import prod
from statistics import median
from typing import Any, NamedTuple

import torch
from lightning import Trainer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import flop_registry, shape_wrapper

from gan_lab.data.datamodule import DataModule
from gan_lab.data.sample import Batch
from gan_lab.distributed.processes import forget_resident_peak, resident_peak
from gan_lab.training.module import AdversarialModule
from gan_lab.training.player import Player
from gan_lab.training.regularizers import Regularizer

GIB = 2**30
REST = "rest"
Costs = dict[str, "Cost"]
Shape = list[int]


def synchronize(device: torch.device) -> None:
    """Wait for the device's work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class Stopwatch:
    """Seconds, with the device's work included."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.begin = 0.0

    def start(self) -> None:
        """Begin."""
        synchronize(self.device)
        self.begin = time.perf_counter()

    def stop(self) -> float:
        """Return the seconds since `start`."""
        synchronize(self.device)
        return time.perf_counter() - self.begin


class MemoryPeak:
    """Peak memory since this was created.

    On a GPU, memory allocated by torch. On a CPU, the process's resident set, including Python and libraries; where
    the system cannot reset the peak (Linux can), since the start of the process.

    Attributes:
        kind: which of the three.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.kind = "allocated on the device"
        elif forget_resident_peak():
            self.kind = "resident"
        else:
            self.kind = "resident, since the process began"

    def gib(self) -> float:
        """Return the peak in GiB."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / GIB
        return resident_peak() / GIB


class FlopCounter(TorchDispatchMode):
    """Counts floating-point operations: forward, backward and second derivatives.

    Two operations a multiplication with its addition, in matrix products, convolutions and attention; nothing for
    elementwise operations. The formulas are torch's, except for the backward pass of convolutions, where torch
    2.15 ignores groups. Its FlopCounterMode cannot be used: it follows modules with hooks that fail when a loss
    differentiates with respect to a leaf.

    Attributes:
        total: operations so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        backward = {torch.ops.aten.convolution_backward: shape_wrapper(convolution_backward_flops)}
        self._formulas = flop_registry | backward

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def convolution_backward_flops(
    gradient: Shape,
    x: Shape,
    weight: Shape,
    bias: Shape | None,
    stride: Shape,
    padding: Shape,
    dilation: Shape,
    transposed: bool,
    output_padding: Shape,
    groups: int,
    output_mask: list[bool],
    **settings: Any,
) -> int:
    """Return the operations of a convolution's backward pass: for each gradient those of the forward pass."""
    pixels = x[2:] if transposed else gradient[2:]
    return 2 * x[0] * prod(pixels) * prod(weight) * sum(output_mask[:2])


def matmul_peak(
    device: torch.device, dtype: torch.dtype, *, seconds: float = 1.0
) -> tuple[float, float]:
    """Return the operations a second of large matrix products on a device.

    Args:
        device: with the threads that torch has now.
        dtype: of the matrices.
        seconds: how long to try; the fastest product counts.

    Returns:
        Operations a second and operations a second of CPU time.
    """
    size = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    end = time.perf_counter() + seconds
    taken = [seconds_of_product(a, b)]
    while time.perf_counter() < end:
        taken.append(seconds_of_product(a, b))
    fastest, cheapest = (min(column) for column in zip(*taken, strict=True))
    return 2 * size**3 / fastest, 2 * size**3 / cheapest


def seconds_of_product(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Return the seconds and CPU seconds of one matrix product."""
    synchronize(a.device)
    begin = time.perf_counter(), time.process_time()
    torch.mm(a, b)
    synchronize(a.device)
    return time.perf_counter() - begin[0], time.process_time() - begin[1]


class Cost(NamedTuple):
    """Seconds, memory and operations of a piece of work.

    Attributes:
        seconds: by the clock on the wall.
        cpu_seconds: of all threads of this process.
        flops: counted operations; 0 where they are not counted.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    flops: float = 0

    def plus(self, other: "Cost", times: float = 1) -> "Cost":
        """Return the sum with `times` the other."""
        return Cost(*(a + times * b for a, b in zip(self, other, strict=True)))


class Meter:
    """Reads elapsed time and operations."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.flops: FlopCounter | None = None

    def read(self) -> Cost:
        """Return the cost until now, with the device's work included."""
        synchronize(self.device)
        counted = 0 if self.flops is None else self.flops.total
        return Cost(time.perf_counter(), time.process_time(), counted)


class Phases:
    """Sums the costs of a module's phases in the course of a training step.

    A phase is one optimizer step of a player. It is named "generator" or "discriminator", or by the regularizer where
    that has its own step. The remaining cost of a training step (mostly the moving average) is the rest.

    Args:
        module: whose phases they are; its method `_step` is wrapped for good.
        meter: reads the clocks.
    """

    def __init__(self, module: AdversarialModule, meter: Meter) -> None:
        self._costs: Costs = {}
        self._counts: dict[str, int] = {}
        self._meter = meter
        self._step_began = Cost()
        take_step = module._step

        def step(player: Player, batch: Batch, lazy: str | None = None) -> None:
            before = meter.read()
            take_step(player, batch, lazy)
            self._add(lazy or player.name, meter.read().plus(before, -1))

        module._step = step  # type: ignore[method-assign]

    def start_step(self) -> None:
        """Begin a training step."""
        self._costs, self._counts = {}, {}
        self._step_began = self._meter.read()

    def end_step(self) -> Costs:
        """Return the mean cost of each phase since `start_step`, and the rest's."""
        rest = self._meter.read().plus(self._step_began, -1)
        for cost in self._costs.values():
            rest = rest.plus(cost, -1)
        means = {
            name: Cost().plus(cost, 1 / self._counts[name]) for name, cost in self._costs.items()
        }
        return means | {REST: rest}

    def _add(self, name: str, cost: Cost) -> None:
        self._costs[name] = self._costs.get(name, Cost()).plus(cost)
        self._counts[name] = self._counts.get(name, 0) + 1


EVERYTHING = ""  # the name of a step with all penalties


@dataclass
class Rounds:
    """Measured training steps.

    A round is one step with everything, with every lazy penalty due, then one without each penalty of every step, so
    that the cost of a penalty is the difference of two neighboring steps. The last round counts operations. That
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
        module: a new one, not usable afterwards.
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
    """Return the median of repeated times, with the counted operations."""
    return Cost(median(c.seconds for c in costs), median(c.cpu_seconds for c in costs), flops)


def against_peak(summary: dict[str, Any], device: torch.device, dtype: torch.dtype) -> None:
    """Add operations a second, and their share of what matrix products of `dtype` reach on the device now.

    Convolutions may use another library than matrix products, so a share can exceed 1. On a CPU there is also the share
    by CPU time, which other work on the machine changes less.
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
