"""protocol=memorization: whether a generator gives its training images away."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.metrics.copies import (
    NEIGHBOURS,
    CopiedShare,
    Membership,
    Neighbours,
    copied_share,
    judge,
    membership,
    relative_distances,
    squared_to_nearest_copy,
)
from gan_lab.metrics.feature_metrics import MetricContext, MetricValue, ProtocolMetric, in_thousands
from gan_lab.metrics.feature_set import FeatureSet, Needs
from gan_lab.metrics.image_metrics import blocks, held_out_images, real_images
from gan_lab.metrics.images import DatasetImages, GanImages, ImageSource

_SIDE = 64  # pixels that images have at most where they are compared
_SHIFTED_SIDE = 32  # and where their shifted copies are
_SHIFTS = 16  # by up to a pixel in so many
_BLOCK = 512  # training images that are compared at a time
_MOST_HELD_OUT = 1000  # that are compared with all training images
_SHOWN = 16  # pairs of a sheet
# ways to compare, in words
_WAYS = {
    "pixels": "pixels",
    "shifted": "mirrored and shifted pixels",
    "features": "features",
}


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What is known of one way to compare images.

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
    """Share of generated images that are copies of training images, membership tests, and a verdict in words.

    Images are compared by pixels (in 8 bits, at most 64x64), by pixels among mirrored copies that are shifted by up to
    a sixteenth (at most 32x32), and by features. See `gan_lab.metrics.copies` for what counts as a copy, and for the
    verdict. Membership tests ask whether training images can be told from held-out ones by their distance to the
    nearest generated image, and by the discriminator's logit, where a run is measured.

    Args:
        output: of the extractor; None compares by pixels alone.
    """

    kind, short = "copies", "copies"
    needs_discriminator = True

    def __init__(self, *, output: str | None = "features") -> None:
        super().__init__(output=output or "")
        needs: Needs = {output: "features"} if output else {}
        self.real = self.fake = needs

    def key(self, setting: MetricContext) -> str:
        return f"memorization_{in_thousands(setting.num_fake)}"

    def check(self, setting: MetricContext) -> None:
        super().check(setting)
        if setting.fake is None:
            return
        real, held_out = real_images(setting, self.kind), held_out_images(setting, self.kind)
        for images in (setting.fake, real, held_out):
            if len(images.shape) != 3:
                raise InputError(
                    f"metrics.copies is of images, and {images.name} have the shape {list(images.shape)}"
                )
        if setting.fake.shape != real.shape:
            raise InputError(
                f"metrics.copies: {setting.fake.name} have the shape {list(setting.fake.shape)} and {real.name} "
                f"{list(real.shape)}; compare images of one shape"
            )
        if not setting.all_real or setting.num_real_features < setting.num_real:
            raise InputError(
                "metrics.copies looks at all training images; set protocol.num_real=null and "
                "protocol.num_real_features=null"
            )
        if setting.num_real < 2 or held_out.count is None or held_out.count < 2:
            raise InputError(
                f"metrics.copies: {setting.num_real} training and {held_out.count} held-out images; give two of each"
            )

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, setting: MetricContext
    ) -> list[MetricValue]:
        training, held_out = real_images(setting, self.kind), held_out_images(setting, self.kind)
        assert held_out.count is not None
        some = _some(held_out, _MOST_HELD_OUT)
        found = _by_pixels(setting, fake.source, training, held_out, some, fake.device)
        if self.output:
            assert real is not None
            made = torch.cat(
                [
                    setting.extractor(held_out.read(start, stop), [self.output])[self.output]
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
        verdict = judge(
            {_WAYS[name]: share for name, share in shares.items()},
            {_WAYS[name]: test for name, test in known.items()},
            by_discriminator,
            num_held_out=len(some),
        )
        number = in_thousands(setting.num_fake)
        return [
            MetricValue(
                key=self.key(setting),
                value=max(share.copied for share in shares.values()),
                detail={"verdict": verdict.answer, "words": verdict.words},
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
    """Numbers of at most so many images, a random choice, always the same one, in order."""
    assert images.count is not None
    chosen = torch.randperm(images.count, generator=torch.Generator().manual_seed(0))[:most]
    return chosen.sort().values


def _groups(images: ImageSource) -> list[str] | None:
    return images.dataset.groups if isinstance(images, DatasetImages) else None


def _rows(groups: list[str] | None, rows: Tensor) -> ArrayLike | None:
    return None if groups is None else [groups[row] for row in rows.tolist()]


# By pixels: each view is a way to make vectors of images, and of the copies of those that are looked for.


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
    """Vectors [N, D] of what lies further than `_most_shifted` from the edges."""
    most = _most_shifted(images)
    height, width = images.shape[2:]
    return images[:, :, most : height - most, most : width - most].flatten(1)


def _by_pixels(
    setting: MetricContext,
    fake: ImageSource,
    training: ImageSource,
    held_out: ImageSource,
    some: Tensor,
    device: torch.device,
) -> dict[str, _Found]:
    """Compare all generated and `some` held-out images with all training images, in two views."""
    made = torch.cat([fake.read(*bounds).cpu() for bounds in blocks(setting.num_fake)])
    kept = torch.cat([held_out.read(i, i + 1).cpu() for i in some.tolist()])
    together = torch.cat([made, kept]).to(device)
    large, small = _reduced(together, _SIDE), _reduced(together, _SHIFTED_SIDE)

    def squared(images: Tensor, name: str) -> Tensor:
        if name == "pixels":
            return squared_to_nearest_copy([large.flatten(1)], _reduced(images, _SIDE).flatten(1))
        # copies are made anew each time: all of them together would fill the memory
        base = _middle(_reduced(images, _SHIFTED_SIDE))
        return squared_to_nearest_copy(_shifted_copies(small), base)

    near = {
        name: Neighbours(num=len(together), num_first=len(made), k=NEIGHBOURS + 1)
        for name in ("pixels", "shifted")
    }
    assert training.count is not None
    for bounds in blocks(training.count, _BLOCK):
        images = training.read(*bounds).to(device)
        for name, neighbours in near.items():
            neighbours.add(squared(images, name))
    reached = {
        name: squared(kept.to(device), name)[: len(made)].min(0).values.cpu() for name in near
    }
    return {name: _found(one, len(made), reached[name]) for name, one in near.items()}


def _by_features(made: Tensor, kept: Tensor, training: Tensor) -> _Found:
    """Compare features of generated and held-out images with those of all training images."""
    centre = training.mean(0)
    together = torch.cat([made, kept]) - centre
    neighbours = Neighbours(num=len(together), num_first=len(made), k=NEIGHBOURS + 1)
    for part in (training - centre).split(_BLOCK):
        neighbours.add(squared_to_nearest_copy([together], part))
    reached = squared_to_nearest_copy([made - centre], kept - centre).min(0).values
    return _found(neighbours, len(made), reached.cpu())


def _found(neighbours: Neighbours, num: int, reached: Tensor) -> _Found:
    distances = neighbours.squared.sqrt()
    return _Found(
        generated=distances[:num],
        held_out=distances[num:],
        which=neighbours.which[:num, 0],
        known=(neighbours.reached.sqrt(), reached.sqrt()),
    )


def _by_discriminator(
    fake: ImageSource, training: ImageSource, held_out: ImageSource
) -> Membership | None:
    """Tell training images from held-out ones by the discriminator's logits; None where there is none."""
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
