"""Pivotal tuning: the generator itself is trained a little, so that found latents give their images exactly.

Roich et al. 2021, https://arxiv.org/abs/2106.05744, section 3: latents stay where they are (the pivots), the
synthesis network's weights move,

    L = 1/N sum_i [ LPIPS(x_i, G(w_i)) + lambda_L2 |x_i - G(w_i)|^2 ] + lambda_R L_R

and L_R compares the tuned generator with the untouched one at w_r = w_p + alpha (w_z - w_p) / |w_z - w_p|, styles on
the way from a pivot to a drawn one, so that the rest of the space stays as it was.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from gan_lab.console import progress_bar
from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.sampling.distances import Distance, mean_squared_error
from gan_lab.sampling.latents import Latents
from gan_lab.sampling.sampler import Sampler
from gan_lab.sampling.search import Rows, check_amount, check_count
from gan_lab.sampling.spaces import Space, full_precision
from gan_lab.seeding import derive_seed

_LOCALITY = 13  # stream of a seed


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a generator is tuned.

    Attributes:
        steps: of Adam; 0 for no tuning. The paper takes 350.
        lr: its learning rate, the paper's.
        l2: weight of the mean squared error beside the distance.
        locality: weight of L_R, the paper's; 0 leaves it out.
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
    """Return a tuned generator, and whether it went to its end (False after Ctrl-C).

    Args:
        space: of the pivots; its generator is changed.
        pivots: images and where they were found, without noise maps.
        distance: of images.
        tuning: how.
        seed: of the draws beside the pivots.
        batch_size: images that a step sees, in turn.
        seen: gets the number of steps done, after each.

    Noise inputs are the constant ones, so that latents alone give the images.
    """
    gan = space.gan
    before = full_precision(gan.generator).requires_grad_(False)
    tuned = space.generator
    trained = tuned.get_submodule("synthesis") if gan.has_styles else tuned
    parameters = list(trained.parameters())
    trained.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters, lr=tuning.lr)
    source = torch.Generator().manual_seed(derive_seed(seed, _LOCALITY))
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
    """Return how far the pivots' images are from their targets, [n]."""
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
    """Return how far images beside the pivots have moved, [n]."""
    some = pivots[rows]
    values, labels = some.values, some.labels
    z = torch.randn(len(rows), space.gan.z_dim, generator=source)
    drawn = space.gan.as_latents(Latents(z=z, labels=labels), space=space.name[0])
    other = drawn.values.to(values.device)[:, : values.shape[1]]
    way = other - values
    size = way.flatten(1).norm(dim=1) / (values[0].numel() / values.shape[-1]) ** 0.5
    share = tuning.radius * some.deviation / size.clamp(min=1e-8)
    beside = values + way * share.view(-1, *[1] * (values.ndim - 1))
    with torch.no_grad():
        expected = space.render(beside, labels, "const", generator=before)
    images = space.render(beside, labels, "const")
    return distance(images, expected) + tuning.l2 * mean_squared_error(images, expected)
