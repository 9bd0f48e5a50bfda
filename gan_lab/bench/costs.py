"""Measuring time, memory and floating-point operations, also of the phases of a training step."""

import resource
import sys
import time
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

from gan_lab.data.sample import Batch
from gan_lab.training.module import AdversarialModule
from gan_lab.training.player import Player

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


def forget_resident_peak() -> bool:
    """Reset the peak of resident memory, if the system allows it; return whether it did."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5)
    except OSError:
        return False
    return True


def resident_peak() -> int:
    """Return the peak of the resident set in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


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
    """Return the operations of a convolution's backward pass: as many as forward for each gradient."""
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
        """Return what was spent until now, with the device's work included."""
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
