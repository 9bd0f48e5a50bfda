"""Whether generated samples are copies of training samples: distances, membership tests and a verdict, as functions.

Nobody can see from distances alone that a sample is a copy: smooth and typical ones lie close to everything. So a
sample counts as copied if it is closer to its nearest training sample than the closest 1 % of held-out samples are to
theirs, both in itself and in units of its mean distance to the 50 next ones (Carlini et al. 2023,
https://arxiv.org/abs/2301.13188, section 5.1). Held-out samples were not trained on, so that about 1 % of an honest
generator's are so, too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, norm, rankdata
from torch import Tensor

from gan_lab.errors import InputError

CLOSEST = 0.01  # share of held-out samples that says what is close
NEIGHBOURS = 50  # whose mean distance a sample's nearest one is measured by
KNOWN = 0.6  # AUC of a membership test above which training samples count as known
_SURE = 0.99  # of the bounds that a verdict needs
_INTERVAL = 0.95  # of an AUC


def squared_to_nearest_copy(copies: Iterable[Tensor], base: Tensor) -> Tensor:
    """Squared distances [Q, N], of the copy that is nearest.

    Args:
        copies: the same samples, changed in different ways, [Q, D] each.
        base: [N, D].
    """
    squares = base.square().sum(1)
    found: Tensor | None = None
    for one in copies:
        squared = torch.addmm(squares, one, base.T, alpha=-2)
        squared += one.square().sum(1, keepdim=True)
        found = squared if found is None else torch.minimum(found, squared)
    assert found is not None
    return found.clamp(min=0)


class Neighbours:
    """The nearest of many training samples, which come in parts, and the nearest of some samples to each of these.

    Attributes:
        squared: [Q, k], ascending.
        which: numbers of the training samples, int64 [Q, k].
        reached: squared distance of each training sample to the nearest of the first `num_first` samples.

    Args:
        num: samples, Q.
        num_first: of these, the first ones.
        k: neighbours.
    """

    def __init__(self, *, num: int, num_first: int, k: int) -> None:
        self.squared = torch.empty(num, 0)
        self.which = torch.empty(num, 0, dtype=torch.int64)
        self._reached: list[Tensor] = []
        self._num_first, self._k, self._seen = num_first, k, 0

    def add(self, squared: Tensor) -> None:
        """Take in squared distances [Q, n] to further training samples."""
        self._reached.append(squared[: self._num_first].min(0).values.cpu())
        numbers = torch.arange(self._seen, self._seen + squared.shape[1]).expand(len(squared), -1)
        together = torch.cat([self.squared, squared.cpu()], 1)
        found = together.topk(min(self._k, together.shape[1]), dim=1, largest=False)
        self.squared = found.values
        self.which = torch.cat([self.which, numbers], 1).gather(1, found.indices)
        self._seen += squared.shape[1]

    @property
    def reached(self) -> Tensor:
        return torch.cat(self._reached)


def relative_distances(distances: Tensor) -> Tensor:
    """Distance [Q] to the nearest sample in units of the mean distance to the next ones; 0 where it is the same sample.

    Args:
        distances: [Q, k], ascending, k >= 2.
    """
    nearest, others = distances[:, 0], distances[:, 1:].mean(1)
    return torch.where(nearest > 0, nearest / others.clamp(min=1e-12), 0)


@dataclass(frozen=True, kw_only=True)
class CopiedShare:
    """How many generated samples are copies.

    Attributes:
        copied: share that is close in itself and in units of the next ones.
        closer: share that is close in itself.
        at_least: lower bound of `copied`, 99 %.
        by_chance: share that may be as close without any copying, as far as so few held-out samples tell, 99 %.
        threshold: distance below which a sample is close.
        found: bool [Q], the copies.
    """

    copied: float
    closer: float
    at_least: float
    by_chance: float
    threshold: float
    found: Tensor

    @property
    def is_sure(self) -> bool:
        """Whether there are more copies than chance allows."""
        return self.at_least > self.by_chance


def copied_share(generated: Tensor, held_out: Tensor) -> CopiedShare:
    """Compare distances of generated samples [Q, k] to training samples with those of held-out samples [H, k].

    Raises:
        InputError: for fewer than 2 training samples or none that is held out.
    """
    if generated.shape[1] < 2 or not len(held_out) or not len(generated):
        raise InputError(
            f"copies are looked for among {generated.shape[1]} training samples with {len(held_out)} held-out ones; "
            "give at least 2 and 1"
        )
    rank = ceil(CLOSEST * len(held_out))  # of the sample whose distance is the threshold
    relative, held_relative = relative_distances(generated), relative_distances(held_out)
    threshold = held_out[:, 0].kthvalue(rank).values
    close = generated[:, 0] < threshold
    found = close & (relative < held_relative.kthvalue(rank).values)
    # a generator that repeats itself where nothing is nearer than nothing
    found |= (generated[:, 0] == 0) & (threshold > 0)
    count, total = int(found.sum()), len(found)
    return CopiedShare(
        copied=count / total,
        closer=close.double().mean().item(),
        at_least=float(beta.ppf(1 - _SURE, count, total - count + 1)) if count else 0.0,
        # the share of all held-out samples below the rank-th of n of them is distributed so
        by_chance=float(beta.ppf(_SURE, rank, len(held_out) - rank + 1)),
        threshold=threshold.item(),
        found=found,
    )


@dataclass(frozen=True, kw_only=True)
class Membership:
    """How well a number tells training samples from held-out ones.

    Attributes:
        auc: chance that it is larger for a training sample than for a held-out one; 0.5 where it tells nothing.
        error: standard error.
    """

    auc: float
    error: float

    @property
    def interval(self) -> tuple[float, float]:
        """Of 95 %."""
        half = float(norm.ppf((1 + _INTERVAL) / 2)) * self.error
        return max(0.0, self.auc - half), min(1.0, self.auc + half)

    @property
    def is_sure(self) -> bool:
        """Whether it knows training samples, with 99 %."""
        return self.auc - float(norm.ppf(_SURE)) * self.error > KNOWN


def membership(
    training: Tensor,
    held_out: Tensor,
    *,
    groups: tuple[ArrayLike | None, ArrayLike | None] = (None, None),
) -> Membership:
    """Area under the ROC curve of numbers of training [M] and held-out samples [H], with its standard error.

    DeLong et al. 1988, https://doi.org/10.2307/2531595; samples of one group, such as a patient's slices, count as one
    cluster, as in Obuchowski 1997, https://doi.org/10.2307/2533958 (no group is on both sides).

    Args:
        training: larger for what is taken for a training sample.
        held_out: the same.
        groups: of both, or None where samples are independent.

    Raises:
        InputError: for fewer than two of each.
    """
    if min(len(training), len(held_out)) < 2:
        raise InputError(
            f"a membership test of {len(training)} training and {len(held_out)} held-out samples; give two of each"
        )
    values = [side.double().cpu().numpy() for side in (training, held_out)]
    ranks = rankdata(np.concatenate(values))
    split = len(values[0])
    # how many of the other side lie below each sample
    below = (ranks[:split] - rankdata(values[0])) / len(values[1])
    above = 1 - (ranks[split:] - rankdata(values[1])) / len(values[0])
    auc = float(below.mean())
    variance = sum(
        _variance_of_mean(placements, group)
        for placements, group in zip((below, above), groups, strict=True)
    )
    return Membership(auc=auc, error=sqrt(variance))


def _variance_of_mean(values: NDArray[np.float64], groups: ArrayLike | None) -> float:
    """Variance of the mean of values [N], those of a group together."""
    centred = values - values.mean()
    if groups is None:
        sums = centred
    else:
        _, number = np.unique(np.asarray(groups), return_inverse=True)
        sums = np.bincount(number, weights=centred)
    count = len(sums)
    return float(np.square(sums).sum() / len(values) ** 2 * count / max(count - 1, 1))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What distances and tests say.

    Attributes:
        answer: "yes" where training samples come out, else "no".
        words: for people.
    """

    answer: str
    words: str


def judge(
    shares: Mapping[str, CopiedShare],
    known: Mapping[str, Membership],
    discriminator: Membership | None,
    *,
    num_held_out: int,
) -> Verdict:
    """Put together what was found.

    Args:
        shares: by what samples were compared by, such as "pixels".
        known: membership tests by the distance to the nearest generated sample, likewise.
        discriminator: the test by its logit, where there is one.
        num_held_out: samples that were compared with.
    """
    reasons = [
        f"{_percent(share.copied)} of the generated images are copies of training images by {name} (by chance at most "
        f"{_percent(share.by_chance)})"
        for name, share in shares.items()
        if share.is_sure
    ]
    reasons += [
        f"by {name} generated images lie closer to training images than to held-out ones (AUC {_auc(test)})"
        for name, test in known.items()
        if test.is_sure
    ]
    if reasons:
        words = f"memorization: yes. {'; '.join(reasons)}."
    else:
        name, worst = max(shares.items(), key=lambda item: item[1].copied)
        words = (
            f"memorization: no sign of it. By {name}, where it is most, {_percent(worst.copied)} of the generated "
            f"images are as close to a training image as the closest 1 % of {num_held_out:,} held-out ones (by chance "
            f"at most {_percent(worst.by_chance)})."
        )
        if tests := ", ".join(f"{_auc(test)} by {name}" for name, test in known.items()):
            words += (
                " Their distance to generated images tells training images from held-out ones with an AUC of "
                f"{tests}."
            )
    if discriminator is not None:
        words += f" The discriminator tells them apart with an AUC of {_auc(discriminator)}"
        words += (
            ": it knows its training images, so do not give it away."
            if discriminator.is_sure
            else "."
        )
    return Verdict(answer="yes" if reasons else "no", words=words)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _auc(test: Membership) -> str:
    low, high = test.interval
    return f"{test.auc:.2f} ({low:.2f} to {high:.2f})"
