"""The search of a projection: Adam on latents and noise maps, many images side by side, none depending on others.

Karras et al. 2020 (StyleGAN2), section 5 and appendix D, https://arxiv.org/abs/1912.04958.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from typing import Protocol

import torch
from torch import Tensor

from gan_lab.console import progress_bar
from gan_lab.errors import InputError
from gan_lab.sampling.distances import Distance
from gan_lab.sampling.latents import is_finite_number
from gan_lab.sampling.spaces import NoiseMaps, Space
from gan_lab.seeding import derive_seed

_JITTER = 12  # stream of a seed


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a search goes; all shares are of its steps.

    Attributes:
        steps: of Adam.
        lr: largest learning rate, after a linear rise over the first twentieth and before a fall along a cosine over
            the last quarter.
        jitter: deviation of the noise on w at the beginning, as a share of w's; it falls with the square of the time
            left, to 0 after three quarters.
        noise_weight: of the penalty of noise maps that resemble themselves one pixel further.
        prior: weight of the penalty of unlikely z.

    Raises:
        InputError: for numbers out of range.
    """

    steps: int = 500
    lr: float = 0.1
    jitter: float = 0.05
    noise_weight: float = 1e5
    prior: float = 0.1

    def __post_init__(self) -> None:
        check_count("steps", self.steps)
        for name in ("lr", "jitter", "noise_weight", "prior"):
            check_amount(name, getattr(self, name))

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        rise = min(1.0, 20 * (step + 1) / self.steps)
        fall = 0.5 - 0.5 * cos(pi * min(1.0, 4 * (1 - step / self.steps)))
        return self.lr * rise * fall

    def jitter_at(self, step: int) -> float:
        """Return the noise's deviation at a step, as a share of w's."""
        return self.jitter * max(0.0, 1 - step / (0.75 * self.steps)) ** 2


@dataclass(kw_only=True, eq=False)
class Rows:
    """What is searched for, row by row.

    Attributes:
        targets: [N, C, H, W].
        values: latents [N, ...].
        labels: [N] or None.
        deviation: of w, [N].
        noise: maps, or None for the generator's constant ones.
    """

    targets: Tensor
    values: Tensor
    labels: Tensor | None
    deviation: Tensor
    noise: NoiseMaps | None

    def __getitem__(self, rows: Tensor) -> "Rows":
        return Rows(
            targets=self.targets[rows],
            values=self.values[rows],
            labels=None if self.labels is None else self.labels[rows],
            deviation=self.deviation[rows],
            noise=None if self.noise is None else self.noise[rows],
        )

    def images(self, space: Space, values: Tensor | None = None) -> Tensor:
        """Make images of the values, or of others."""
        noise = "const" if self.noise is None else self.noise.given_to(space.generator)
        return space.render(self.values if values is None else values, self.labels, noise)


class Witness(Protocol):
    """Something that is told of the way of a search.

    Attributes:
        count: images whose way it is told, from the first on.
    """

    count: int

    def wants(self, step: int) -> bool:
        """Whether to be shown a step; a KeyboardInterrupt ends the search, which keeps what it has found."""

    def add(self, step: int, first: int, images: Tensor) -> None:
        """Take the images [n, C, H, W] that images `first` to `first + n` have at a step."""


def find(
    space: Space,
    targets: Tensor,
    labels: Tensor | None,
    distance: Distance,
    schedule: Schedule,
    *,
    restarts: int,
    noise: bool,
    seed: int,
    batch_size: int,
    recording: Witness | None = None,
) -> tuple[Rows, bool]:
    """Search for every image and keep the best of its searches.

    Args:
        space: of latents.
        targets: [N, C, H, W] on the generator's device.
        labels: [N], or None to have them found where there are classes.
        distance: that is made small.
        schedule: of each search.
        restarts: searches for each image.
        noise: whether to search for noise maps, too.
        seed: of all draws.
        batch_size: images at a time.
        recording: to be told of the way.

    Returns:
        Rows of the images, in their order, and whether that went to its end: after Ctrl-C there are those only that
        had been begun.
    """
    found: list[Rows] = []
    starts = range(0, len(targets), batch_size)
    with progress_bar("projecting", schedule.steps * len(starts)) as advance:
        for done, start in enumerate(starts):
            part = slice(start, start + batch_size)
            rows = begin(
                *(space, targets[part], None if labels is None else labels[part]),
                restarts=restarts,
                noise=noise,
                seed=seed,
            )

            def seen(step: int, rows: Rows = rows, done: int = done, start: int = start) -> None:
                advance(done * schedule.steps + step)
                if recording is not None and recording.wants(step) and start < recording.count:
                    kept = best(space, rows, distance, restarts)
                    recording.add(step, start, kept.images(space))

            finished = search(space, rows, distance, schedule, seed=seed, seen=seen)
            found.append(best(space, rows, distance, restarts))
            if not finished:
                return joined(found), False
    return joined(found), True


def begin(
    space: Space,
    targets: Tensor,
    labels: Tensor | None,
    *,
    restarts: int,
    noise: bool,
    seed: int,
) -> Rows:
    """Return where searches for images begin, `restarts` rows for each."""
    starts = space.starts(targets, labels, restarts, seed)
    count = len(targets) * restarts
    return Rows(
        targets=targets.repeat_interleave(restarts, 0),
        values=starts.values.flatten(0, 1),
        labels=None if starts.labels is None else starts.labels.flatten(),
        deviation=starts.deviation.flatten(),
        noise=NoiseMaps.drawn(space.generator, count, seed=seed) if noise else None,
    )


def search(
    space: Space,
    rows: Rows,
    distance: Distance,
    schedule: Schedule,
    *,
    seed: int,
    seen: Callable[[int], None],
) -> bool:
    """Move values and noise, in place, so that the images come near the targets.

    Every row meets the same random numbers, and losses are summed, so that a row alone gives the same result.

    Args:
        space: of the values.
        rows: to be moved.
        distance: of images.
        schedule: how.
        seed: of the jitter.
        seen: gets the number of steps done, after each.

    Returns:
        Whether it went to its end; False after Ctrl-C.
    """
    unknowns = [rows.values, *([] if rows.noise is None else rows.noise.tensors())]
    optimizer = torch.optim.Adam([one.requires_grad_() for one in unknowns], lr=schedule.lr)
    source = torch.Generator().manual_seed(derive_seed(seed, _JITTER))
    deviation = rows.deviation.view(-1, *[1] * (rows.values.ndim - 1))
    try:
        for step in range(schedule.steps):
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate(step)
            drawn = torch.randn(1, *rows.values.shape[1:], generator=source).to(rows.values)
            moved = rows.values + drawn * deviation * schedule.jitter_at(step)
            loss = objective(space, rows, moved, distance, schedule)
            optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()
            optimizer.step()
            if rows.noise is not None:
                rows.noise.normalize()
            seen(step + 1)
    except KeyboardInterrupt:
        return False
    finally:
        for one in unknowns:
            one.requires_grad_(False)
    return True


def objective(
    space: Space, rows: Rows, values: Tensor, distance: Distance, schedule: Schedule
) -> Tensor:
    """Return what is made small, [N]."""
    loss = distance(rows.images(space, values), rows.targets)
    loss = loss + schedule.prior * space.penalty(values)
    if rows.noise is not None:
        loss = loss + schedule.noise_weight * rows.noise.penalty()
    return loss


@torch.no_grad()
def best(space: Space, rows: Rows, distance: Distance, restarts: int) -> Rows:
    """Return of each image's `restarts` rows, which stand together, the one with the nearest image."""
    if restarts == 1:
        return rows
    loss = distance(rows.images(space), rows.targets).view(-1, restarts)
    chosen = loss.argmin(1) + restarts * torch.arange(len(loss), device=loss.device)
    return rows[chosen]


def joined(parts: list[Rows]) -> Rows:
    """Return the rows of all parts."""
    first = parts[0]
    maps = None
    if first.noise is not None:
        each = [part.noise.maps for part in parts if part.noise is not None]
        maps = NoiseMaps({name: torch.cat([m[name] for m in each]) for name in each[0]})
    return Rows(
        targets=torch.cat([part.targets for part in parts]),
        values=torch.cat([part.values for part in parts]),
        labels=None
        if first.labels is None
        else torch.cat([part.labels for part in parts if part.labels is not None]),
        deviation=torch.cat([part.deviation for part in parts]),
        noise=maps,
    )


def check_count(name: str, value: object, least: int = 0) -> None:
    """Refuse what is no number of something.

    Raises:
        InputError: naming the setting.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name}={value!r} must be a whole number from {least}")


def check_amount(name: str, value: object) -> None:
    """Refuse what is negative or no number.

    Raises:
        InputError: naming the setting.
    """
    if not is_finite_number(value) or value < 0:  # type: ignore[operator]
        raise InputError(f"{name}={value!r} must be a number from 0")
