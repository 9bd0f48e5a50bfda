"""Memorization: whether generated samples are copies of training samples; protocol=memorization.

Distances alone do not show that a sample is a copy: smooth and typical ones are close to everything. So a
sample counts as copied if it is closer to its nearest training sample than the closest 1 % of held-out samples are to
theirs, both in absolute distance and relative to its mean distance to the 50 next ones (Carlini et al. 2023,
https://arxiv.org/abs/2301.13188, section 5.1). Held-out samples were not trained on, so about 1 % of the samples of a
generator that copies nothing count as copied, too.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, norm, rankdata
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.metrics.feature_metrics import MetricContext, MetricValue, ProtocolMetric, in_thousands
from gan_lab.metrics.feature_set import FeatureSet, Needs
from gan_lab.metrics.image_metrics import blocks, held_out_images, real_images
from gan_lab.metrics.sources import DatasetImages, GanImages, ImageSource

CLOSEST = 0.01  # share of held-out samples that determines what is close
NEIGHBORS = 50  # next samples, whose mean distance is the unit of relative distances
KNOWN = 0.6  # AUC of a membership test above which training samples count as recognized
_SURE = 0.99  # confidence of the bounds of a verdict
_INTERVAL = 0.95  # confidence of an AUC's interval

_SIDE = 64  # largest side of compared images, in pixels
_SHIFTED_SIDE = 32  # and of shifted copies
_SHIFTS = 16  # copies are shifted by up to side / _SHIFTS pixels
_BLOCK = 512  # training images compared at a time
_MOST_HELD_OUT = 1000  # held-out images compared with all training images
_SHOWN = 16  # pairs of a sheet
# names of the comparisons, in messages
_COMPARISONS = {
    "pixels": "pixels",
    "shifted": "mirrored and shifted pixels",
    "features": "features",
}


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


class Neighbors:
    """Nearest neighbors of samples among training samples, which are added in parts, and the reverse.

    Attributes:
        squared: [Q, k], ascending.
        which: numbers of the training samples, int64 [Q, k].
        reached: squared distance of each training sample to the nearest of the first `num_first` samples.

    Args:
        num: samples, Q.
        num_first: of these, the first ones.
        k: neighbors.
    """

    def __init__(self, *, num: int, num_first: int, k: int) -> None:
        self.squared = torch.empty(num, 0)
        self.which = torch.empty(num, 0, dtype=torch.int64)
        self._reached: list[Tensor] = []
        self._num_first, self._k, self._seen = num_first, k, 0

    def add(self, squared: Tensor) -> None:
        """Add squared distances [Q, n] to further training samples."""
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
    """Share of generated samples that are copies.

    Attributes:
        copied: share that is close in absolute and relative distance.
        closer: share that is close in absolute distance.
        at_least: lower bound of `copied`, 99 %.
        by_chance: share that may be as close without copying, upper bound for this number of held-out samples, 99 %.
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
    # distance 0 counts as a copy, although the relative distance is then 0 for all
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
    """How well a score separates training samples from held-out ones.

    Attributes:
        auc: probability that it is larger for a training sample than for a held-out one; 0.5 is chance.
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
        """Whether it recognizes training samples, with 99 %."""
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
    centered = values - values.mean()
    if groups is None:
        sums = centered
    else:
        _, number = np.unique(np.asarray(groups), return_inverse=True)
        sums = np.bincount(number, weights=centered)
    count = len(sums)
    return float(np.square(sums).sum() / len(values) ** 2 * count / max(count - 1, 1))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Verdict of distances and tests.

    Attributes:
        answer: "yes" for signs of memorization, else "no".
        text: the verdict in sentences.
    """

    answer: str
    text: str


def verdict_of(
    shares: Mapping[str, CopiedShare],
    known: Mapping[str, Membership],
    discriminator: Membership | None,
    *,
    num_held_out: int,
) -> Verdict:
    """Return the verdict of all comparisons.

    Args:
        shares: by name of the comparison, such as "pixels".
        known: membership tests by the distance to the nearest generated sample, by the same names.
        discriminator: the test by its logit, if any.
        num_held_out: number of held-out samples.
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
        text = f"memorization: yes. {'; '.join(reasons)}."
    else:
        name, worst = max(shares.items(), key=lambda item: item[1].copied)
        text = (
            f"memorization: no sign of it. By {name}, the largest share, {_percent(worst.copied)} of the generated "
            f"images are as close to a training image as the closest 1 % of {num_held_out:,} held-out ones (by chance "
            f"at most {_percent(worst.by_chance)})."
        )
        if tests := ", ".join(f"{_auc(test)} by {name}" for name, test in known.items()):
            text += (
                " Their distance to generated images separates training images from held-out ones with an AUC of "
                f"{tests}."
            )
    if discriminator is not None:
        text += f" The discriminator separates them with an AUC of {_auc(discriminator)}"
        text += (
            ": it recognizes its training images, so do not give it away."
            if discriminator.is_sure
            else "."
        )
    return Verdict(answer="yes" if reasons else "no", text=text)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _auc(test: Membership) -> str:
    low, high = test.interval
    return f"{test.auc:.2f} ({low:.2f} to {high:.2f})"


# protocol=memorization


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Results of one comparison.

    Attributes:
        generated: distances [Q, k] to training images.
        held_out: the same of held-out images, [H, k].
        which: number of the nearest training image of each generated one, [Q].
        known: distance of each training image [N], and of each held-out one [H], to the nearest generated one.
    """

    generated: Tensor
    held_out: Tensor
    which: Tensor
    known: tuple[Tensor, Tensor]


class TrainingCopies(ProtocolMetric):
    """Share of generated images that are copies of training images, membership tests, and a verdict in sentences.

    Images are compared by pixels (in 8 bits, at most 64x64), by pixels among mirrored copies that are shifted by up to
    a sixteenth (at most 32x32), and by features. Membership tests try to separate training from held-out images by
    their distance to the nearest generated image and, for a run, by the discriminator's logit.

    Args:
        output: of the extractor; None compares by pixels alone.
    """

    kind, short = "copies", "copies"
    needs_discriminator = True

    def __init__(self, *, output: str | None = "features") -> None:
        super().__init__(output=output or "")
        needs: Needs = {output: "features"} if output else {}
        self.real = self.fake = needs

    def key(self, context: MetricContext) -> str:
        return f"memorization_{in_thousands(context.num_fake)}"

    def check(self, context: MetricContext) -> None:
        super().check(context)
        if context.fake is None:
            return
        real, held_out = real_images(context, self.kind), held_out_images(context, self.kind)
        for images in (context.fake, real, held_out):
            if len(images.shape) != 3:
                raise InputError(
                    f"metrics.copies is of images, and {images.name} have the shape {list(images.shape)}"
                )
        if context.fake.shape != real.shape:
            raise InputError(
                f"metrics.copies: {context.fake.name} have the shape {list(context.fake.shape)} and {real.name} "
                f"{list(real.shape)}; compare images of one shape"
            )
        if not context.all_real or context.num_real_features < context.num_real:
            raise InputError(
                "metrics.copies needs all training images; set protocol.num_real=null and "
                "protocol.num_real_features=null"
            )
        if context.num_real < 2 or held_out.count is None or held_out.count < 2:
            raise InputError(
                f"metrics.copies: {context.num_real} training and {held_out.count} held-out images; give two of each"
            )

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, context: MetricContext
    ) -> list[MetricValue]:
        training, held_out = real_images(context, self.kind), held_out_images(context, self.kind)
        assert held_out.count is not None
        some = _some(held_out, _MOST_HELD_OUT)
        found = _by_pixels(context, fake.source, training, held_out, some, fake.device)
        if self.output:
            assert real is not None
            made = torch.cat(
                [
                    context.extractor(held_out.read(start, stop), [self.output])[self.output]
                    for start, stop in blocks(held_out.count)
                ]
            )[some]
            features = (fake.on_device(self.output), made.to(fake.device))
            found["features"] = _by_features(*features, real.on_device(self.output))
        shares = {name: copied_share(one.generated, one.held_out) for name, one in found.items()}
        groups = _groups(training), _rows(_groups(held_out), some)
        known = {
            name: membership(-one.known[0], -one.known[1], groups=groups)
            for name, one in found.items()
        }
        by_discriminator = _by_discriminator(fake.source, training, held_out)
        verdict = verdict_of(
            {_COMPARISONS[name]: share for name, share in shares.items()},
            {_COMPARISONS[name]: test for name, test in known.items()},
            by_discriminator,
            num_held_out=len(some),
        )
        number = in_thousands(context.num_fake)
        return [
            MetricValue(
                key=self.key(context),
                value=max(share.copied for share in shares.values()),
                detail={"verdict": verdict.answer, "text": verdict.text},
            ),
            *(_as_value(f"copies_{name}_{number}", shares[name], found[name]) for name in found),
            *(_as_test(f"membership_{name}_{number}", test) for name, test in known.items()),
            *(
                []
                if by_discriminator is None
                else [_as_test("membership_discriminator", by_discriminator)]
            ),
        ]


def _as_value(key: str, share: CopiedShare, found: _Found) -> MetricValue:
    relative = relative_distances(found.generated)
    # copies first, then what comes next to them
    order = (relative + (~share.found) * (relative.max() + 1)).argsort()[:_SHOWN].tolist()
    return MetricValue(
        key=key,
        value=share.copied,
        uncertainty=(share.copied * (1 - share.copied) / len(relative)) ** 0.5,
        uncertainty_kind="se",
        detail={
            "closer_than_closest_held_out": share.closer,
            "copied_at_least": share.at_least,
            "by_chance_at_most": share.by_chance,
            "threshold": share.threshold,
            "median_distance": found.generated[:, 0].median().item(),
            "median_distance_held_out": found.held_out[:, 0].median().item(),
            "nearest": [
                {
                    "generated": i,
                    "real": int(found.which[i]),
                    "distance": found.generated[i, 0].item(),
                    "relative_distance": relative[i].item(),
                    "copied": bool(share.found[i]),
                }
                for i in order
            ],
        },
    )


def _as_test(key: str, test: Membership) -> MetricValue:
    return MetricValue(
        key=key,
        value=test.auc,
        uncertainty=test.error,
        uncertainty_kind="se",
        detail={"interval": list(test.interval)},
    )


def _some(images: ImageSource, most: int) -> Tensor:
    """Return the indices of at most `most` images, a fixed random choice, in order."""
    assert images.count is not None
    chosen = torch.randperm(images.count, generator=torch.Generator().manual_seed(0))[:most]
    return chosen.sort().values


def _groups(images: ImageSource) -> list[str] | None:
    return images.dataset.groups if isinstance(images, DatasetImages) else None


def _rows(groups: list[str] | None, rows: Tensor) -> ArrayLike | None:
    return None if groups is None else [groups[row] for row in rows.tolist()]


# By pixels: each view makes vectors of images and of their copies.


def _reduced(images: Tensor, side: int) -> Tensor:
    """Images [N, C, H, W] in [-1, 1] and averaged down so that no side is longer than `side`."""
    values = images.float() / 127.5 - 1
    height, width = values.shape[2:]
    factor = side / max(height, width, side)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return values if factor == 1 else F.adaptive_avg_pool2d(values, size)


def _most_shifted(images: Tensor) -> int:
    return max(1, min(images.shape[2:]) // _SHIFTS)


def _shifted_copies(images: Tensor) -> Iterator[Tensor]:
    """Vectors [N, D] of all windows of images, mirrored and not, that lie within `_most_shifted` of the middle."""
    most = _most_shifted(images)
    height, width = (side - 2 * most for side in images.shape[2:])
    for copy in (images, images.flip(3)):
        for top in range(2 * most + 1):
            for left in range(2 * most + 1):
                yield copy[:, :, top : top + height, left : left + width].flatten(1)


def _middle(images: Tensor) -> Tensor:
    """Vectors [N, D] of pixels further than `_most_shifted` from the edges."""
    most = _most_shifted(images)
    height, width = images.shape[2:]
    return images[:, :, most : height - most, most : width - most].flatten(1)


def _by_pixels(
    context: MetricContext,
    fake: ImageSource,
    training: ImageSource,
    held_out: ImageSource,
    some: Tensor,
    device: torch.device,
) -> dict[str, _Found]:
    """Compare all generated and `some` held-out images with all training images, in two views."""
    made = torch.cat([fake.read(*bounds).cpu() for bounds in blocks(context.num_fake)])
    kept = torch.cat([held_out.read(i, i + 1).cpu() for i in some.tolist()])
    together = torch.cat([made, kept]).to(device)
    large, small = _reduced(together, _SIDE), _reduced(together, _SHIFTED_SIDE)

    def squared(images: Tensor, name: str) -> Tensor:
        if name == "pixels":
            return squared_to_nearest_copy([large.flatten(1)], _reduced(images, _SIDE).flatten(1))
        # copies are made again each time: all together would not fit into memory
        base = _middle(_reduced(images, _SHIFTED_SIDE))
        return squared_to_nearest_copy(_shifted_copies(small), base)

    near = {
        name: Neighbors(num=len(together), num_first=len(made), k=NEIGHBORS + 1)
        for name in ("pixels", "shifted")
    }
    assert training.count is not None
    for bounds in blocks(training.count, _BLOCK):
        images = training.read(*bounds).to(device)
        for name, neighbors in near.items():
            neighbors.add(squared(images, name))
    reached = {
        name: squared(kept.to(device), name)[: len(made)].min(0).values.cpu() for name in near
    }
    return {name: _found(one, len(made), reached[name]) for name, one in near.items()}


def _by_features(made: Tensor, kept: Tensor, training: Tensor) -> _Found:
    """Compare features of generated and held-out images with those of all training images."""
    center = training.mean(0)
    together = torch.cat([made, kept]) - center
    neighbors = Neighbors(num=len(together), num_first=len(made), k=NEIGHBORS + 1)
    for part in (training - center).split(_BLOCK):
        neighbors.add(squared_to_nearest_copy([together], part))
    reached = squared_to_nearest_copy([made - center], kept - center).min(0).values
    return _found(neighbors, len(made), reached.cpu())


def _found(neighbors: Neighbors, num: int, reached: Tensor) -> _Found:
    distances = neighbors.squared.sqrt()
    return _Found(
        generated=distances[:num],
        held_out=distances[num:],
        which=neighbors.which[:num, 0],
        known=(neighbors.reached.sqrt(), reached.sqrt()),
    )


def _by_discriminator(
    fake: ImageSource, training: ImageSource, held_out: ImageSource
) -> Membership | None:
    """Separate training from held-out images by the discriminator's logits; None without a discriminator."""
    if not isinstance(fake, GanImages) or fake.discriminate is None:
        return None
    sides = []
    for images in (training, held_out):
        assert images.count is not None
        parts = [
            fake.discriminate(images.stored(*bounds), images.labels(*bounds))
            for bounds in blocks(images.count)
        ]
        sides.append(torch.cat(parts).cpu())
    return membership(sides[0], sides[1], groups=(_groups(training), _groups(held_out)))
