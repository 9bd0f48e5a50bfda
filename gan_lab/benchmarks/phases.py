"""Where the time and the operations of a training step go: the loop's own phases, told apart while it runs."""

import time
from typing import NamedTuple

import torch

from gan_lab.benchmarks.clock import synchronize
from gan_lab.benchmarks.flops import FlopCounter
from gan_lab.data.sample import Batch
from gan_lab.training.module import AdversarialModule
from gan_lab.training.player import Player

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

    A phase is one optimizer step of a player. It is named "generator" or "discriminator", or by the regularizer where
    that has a step of its own. What a training step costs beside these (the moving average above all) is the rest.

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
