"""What pictures are made from, as people give it: seeds, latents, styles or points of a file."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gan_lab.editing.points import Points
from gan_lab.errors import InputError
from gan_lab.labels import Labels, check_labels
from gan_lab.latents import Seeds
from gan_lab.sampling import Gan

Source = Points | Seeds | Tensor


def as_points(
    gan: Gan, source: Source, *, labels: Labels | None = None, truncation: float | None = None
) -> Points:
    """Return points of seeds, latents or styles.

    Args:
        gan: what the points are of.
        source: a seed or several, of each of which the first latent is taken; z [N, Z]; w [N, L, D]; or points.
        labels: of the points, in place of those that they have; as many as points, or one for all. One point is taken
            with each of several labels. None takes those of the points, and those that seeds draw.
        truncation: of generators without styles, the threshold of latents of seeds. Not psi.

    Raises:
        InputError: for points that do not fit the generator, and labels that do not fit the points.
    """
    points = _unlabelled(gan, source, truncation)
    if labels is not None:
        count = max(len(points), _number(labels))
        chosen = check_labels(labels, count, gan.num_classes)
        if len(points) == 1:
            points = points.repeated(count)
        points = Points(z=points.z, w=points.w, labels=chosen, metadata=points.metadata)
    elif points.labels is None and not isinstance(source, Points | Tensor):
        drawn = gan.labels(len(points), seed=_seeds(source))
        points = Points(z=points.z, w=points.w, labels=drawn, metadata=points.metadata)
    points.check(gan)
    return points


def _unlabelled(gan: Gan, source: Source, truncation: float | None) -> Points:
    if isinstance(source, Points):
        return source
    if isinstance(source, Tensor) and source.is_floating_point():
        if source.ndim not in (2, 3):
            raise InputError(
                f"latents have shape {list(source.shape)}; give z [N, Z] or styles w [N, L, D]"
            )
        return Points(z=source) if source.ndim == 2 else Points(w=source)
    seeds = _seeds(source)
    if not seeds:
        raise InputError("no seeds were given")
    threshold = None if gan.has_styles else truncation
    return Points(z=gan.latents(len(seeds), seed=seeds, truncation=threshold))


def _seeds(source: Seeds | Tensor) -> list[int]:
    if isinstance(source, Tensor):
        return [int(seed) for seed in source.flatten()]
    return [source] if isinstance(source, int) else list(source)


def _number(labels: Labels) -> int:
    if isinstance(labels, int) or (isinstance(labels, Tensor) and labels.ndim == 0):
        return 1
    return len(labels) if isinstance(labels, Sequence) else int(torch.as_tensor(labels).shape[0])
