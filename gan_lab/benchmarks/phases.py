"""Where the time and the operations of a training step go: the loop's own phases, told apart while it runs."""

import time
from typing import Any, NamedTuple

import torch

from gan_lab.benchmarks.clock import synchronize
from gan_lab.benchmarks.flops import FlopCounter
from gan_lab.training.module import AdversarialModule

REST = "rest"
Costs = dict[str, "Cost"]


class Cost(NamedTuple):
    """What something took.

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
    """Reads the clocks, and the operations while they are counted."""

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

    A phase lasts from where the loop clears a player's gradient to where it has stepped its optimizer. It is named
    "generator" or "discriminator", or by the regularizer where that has a step of its own. What a step costs beside
    these (the moving average above all) is the rest.

    Args:
        module: whose phases they are; its methods are wrapped for good.
        meter: reads the clocks.
    """

    def __init__(self, module: AdversarialModule, meter: Meter) -> None:
        self._costs: Costs = {}
        self._counts: dict[str, int] = {}
        self._meter = meter
        self._began = self._step_began = Cost()
        self._penalty = ""
        methods = {name: getattr(module, name) for name in ("_begin", "_finish", "_penalty")}

        def begin(*arguments: Any) -> Any:
            self._began = meter.read()
            return methods["_begin"](*arguments)

        def penalty(name: str, *arguments: Any) -> Any:
            self._penalty = name
            return methods["_penalty"](name, *arguments)

        def finish(player: str, optimizer: Any, *, lazy: bool = False) -> None:
            methods["_finish"](player, optimizer, lazy=lazy)
            self._add(self._penalty if lazy else player)

        for name, method in {"_begin": begin, "_penalty": penalty, "_finish": finish}.items():
            setattr(module, name, method)

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

    def _add(self, name: str) -> None:
        cost = self._meter.read().plus(self._began, -1)
        self._costs[name] = self._costs.get(name, Cost()).plus(cost)
        self._counts[name] = self._counts.get(name, 0) + 1
