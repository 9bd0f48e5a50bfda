"""The search of a projection: Adam on latents and noise maps, for many images in a batch, independently.

Karras et al. 2020 (StyleGAN2), section 5 and appendix D, https://arxiv.org/abs/1912.04958.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from math import cos, pi
from typing import Protocol

import torch
from torch import Tensor

from gan_lab.console import progress_bar
from gan_lab.errors import InputError
from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.sampling.latents import Latents, is_finite_number
from gan_lab.sampling.sampler import Sampler
from gan_lab.sampling.spaces import NoiseMaps, Space, full_precision_copy
from gan_lab.sampling.targets import Distance, mean_squared_error
from gan_lab.seeding import Stream, derive_seed


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Schedule of a search.

    Attributes:
        steps: of Adam.
        lr: largest learning rate, after a linear rise over the first twentieth and before a fall along a cosine over
            the last quarter.
        jitter: initial deviation of the noise on w, as a share of w's; it falls quadratically to 0 after three
            quarters.
        noise_weight: of the penalty of noise maps with spatial correlation.
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
    """The variables of a search, one row per start.

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


class SearchObserver(Protocol):
    """Observer of a search.

    Attributes:
        count: number of images to observe, from the first.
    """

    count: int

    def wants(self, step: int) -> bool:
        """Whether to observe a step; a KeyboardInterrupt ends the search and keeps its results."""

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
    observer: SearchObserver | None = None,
) -> tuple[Rows, bool]:
    """Search for every image and keep the best of its restarts.

    Args:
        space: of latents.
        targets: [N, C, H, W] on the generator's device.
        labels: [N], or None to find them if there are classes.
        distance: that is made small.
        schedule: of each search.
        restarts: searches for each image.
        noise: whether to search for noise maps, too.
        seed: of all draws.
        batch_size: images at a time.
        observer: of the images during the search, or None.

    Returns:
        Rows of the images, in order, and whether the search finished: after Ctrl-C, only those that had been
        begun.
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
                if observer is not None and observer.wants(step) and start < observer.count:
                    kept = best(space, rows, distance, restarts)
                    observer.add(step, start, kept.images(space))

            finished = search(space, rows, distance, schedule, seed=seed, seen=seen)
            found.append(best(space, rows, distance, restarts))
            if not finished:
                return concatenate(found), False
    return concatenate(found), True


def begin(
    space: Space,
    targets: Tensor,
    labels: Tensor | None,
    *,
    restarts: int,
    noise: bool,
    seed: int,
) -> Rows:
    """Return the starts of the searches, `restarts` rows for each image."""
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
    """Optimize values and noise in place, so that images match the targets.

    All rows get the same random numbers, and losses are summed, so that results do not depend on the batch.

    Args:
        space: of the values.
        rows: to optimize.
        distance: of images.
        schedule: how.
        seed: of the jitter.
        seen: gets the number of steps done, after each.

    Returns:
        Whether it finished; False after Ctrl-C.
    """
    unknowns = [rows.values, *([] if rows.noise is None else rows.noise.tensors())]
    optimizer = torch.optim.Adam([one.requires_grad_() for one in unknowns], lr=schedule.lr)
    source = torch.Generator().manual_seed(derive_seed(seed, Stream.JITTER))
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
    """Return the objective [N]."""
    loss = distance(rows.images(space, values), rows.targets)
    loss = loss + schedule.prior * space.penalty(values)
    if rows.noise is not None:
        loss = loss + schedule.noise_weight * rows.noise.penalty()
    return loss


@torch.no_grad()
def best(space: Space, rows: Rows, distance: Distance, restarts: int) -> Rows:
    """Return the best of each image's `restarts` consecutive rows."""
    if restarts == 1:
        return rows
    loss = distance(rows.images(space), rows.targets).view(-1, restarts)
    chosen = loss.argmin(1) + restarts * torch.arange(len(loss), device=loss.device)
    return rows[chosen]


def concatenate(parts: list[Rows]) -> Rows:
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
    """Check a count.

    Raises:
        InputError: naming the setting.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name}={value!r} must be a whole number from {least}")


def check_amount(name: str, value: object) -> None:
    """Check that an amount is a non-negative number.

    Raises:
        InputError: naming the setting.
    """
    if not is_finite_number(value) or value < 0:  # type: ignore[operator]
        raise InputError(f"{name}={value!r} must be a number from 0")


# Pivotal tuning: fine-tune the generator so that the latents reproduce their images.
#
# Roich et al. 2021, https://arxiv.org/abs/2106.05744, section 3: latents (the pivots) are fixed, the synthesis
# network's weights are trained,
#
#     L = 1/N sum_i [ LPIPS(x_i, G(w_i)) + lambda_L2 |x_i - G(w_i)|^2 ] + lambda_R L_R
#
# and L_R compares the tuned generator with the original at w_r = w_p + alpha (w_z - w_p) / |w_z - w_p|, between a
# pivot and a random w_z, to preserve the rest of the space.


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Options of pivotal tuning.

    Attributes:
        steps: of Adam; 0 for no tuning. The paper takes 350.
        lr: its learning rate, the paper's.
        l2: weight of the mean squared error beside the distance.
        locality: weight of L_R, the paper's; 0 for none.
        radius: alpha, in deviations of w (or of z); the paper's 30 is in the units of one network.
    """

    steps: int = 0
    lr: float = 3e-4
    l2: float = 1.0
    locality: float = 0.1
    radius: float = 1.0

    def __post_init__(self) -> None:
        check_count("tune.steps", self.steps)
        for name in ("lr", "l2", "locality", "radius"):
            check_amount(f"tune.{name}", getattr(self, name))


def tune(
    space: Space,
    pivots: Rows,
    distance: Distance,
    tuning: Tuning,
    *,
    seed: int,
    batch_size: int,
    seen: Callable[[int], None],
) -> tuple[Sampler, bool]:
    """Return a tuned generator, and whether tuning finished (False after Ctrl-C).

    Args:
        space: of the pivots; its generator is changed.
        pivots: images and their latents, without noise maps.
        distance: of images.
        tuning: how.
        seed: of the random w_z.
        batch_size: images per step, in turn.
        seen: gets the number of steps done, after each.

    Noise inputs are the constant ones, so that latents alone give the images.
    """
    gan = space.gan
    before = full_precision_copy(gan.generator).requires_grad_(False)
    tuned = space.generator
    trained = tuned.get_submodule("synthesis") if gan.has_styles else tuned
    parameters = list(trained.parameters())
    trained.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters, lr=tuning.lr)
    source = torch.Generator().manual_seed(derive_seed(seed, Stream.LOCALITY))
    finished = True
    try:
        with progress_bar("tuning", tuning.steps) as advance:
            for step in range(tuning.steps):
                rows = torch.arange(len(pivots.targets)).roll(-step * batch_size)[:batch_size]
                loss = fit(space, pivots, rows, distance, tuning)
                if tuning.locality:
                    changed = locality(space, before, pivots, rows, distance, tuning, source)
                    loss = loss + tuning.locality * changed
                optimizer.zero_grad(set_to_none=True)
                loss.mean().backward()
                optimizer.step()
                advance(step + 1)
                seen(step + 1)
    except KeyboardInterrupt:
        finished = False
    trained.requires_grad_(False)
    found = deepcopy(gan.generator)
    found.load_state_dict(tuned.state_dict())
    return gan.with_generator(found), finished


def fit(space: Space, pivots: Rows, rows: Tensor, distance: Distance, tuning: Tuning) -> Tensor:
    """Return the loss of the pivots' images, [n]."""
    some = pivots[rows]
    images = some.images(space)
    return distance(images, some.targets) + tuning.l2 * mean_squared_error(images, some.targets)


def locality(
    space: Space,
    before: GeneratorNetwork,
    pivots: Rows,
    rows: Tensor,
    distance: Distance,
    tuning: Tuning,
    source: torch.Generator,
) -> Tensor:
    """Return L_R: the change of images near the pivots, [n]."""
    some = pivots[rows]
    values, labels = some.values, some.labels
    z = torch.randn(len(rows), space.gan.z_dim, generator=source)
    drawn = space.gan.as_latents(Latents(z=z, labels=labels), space=space.name[0])
    other = drawn.values.to(values.device)[:, : values.shape[1]]
    difference = other - values
    size = difference.flatten(1).norm(dim=1) / (values[0].numel() / values.shape[-1]) ** 0.5
    share = tuning.radius * some.deviation / size.clamp(min=1e-8)
    beside = values + difference * share.view(-1, *[1] * (values.ndim - 1))
    with torch.no_grad():
        expected = space.render(beside, labels, "const", generator=before)
    images = space.render(beside, labels, "const")
    return distance(images, expected) + tuning.l2 * mean_squared_error(images, expected)
