"""Projection: find the latents whose image is nearest to a given one.

Generators with styles are inverted as in Karras et al. 2020 (StyleGAN2), section 5 and appendix D,
https://arxiv.org/abs/1912.04958; BiGAN by its encoder (Donahue et al. 2017, https://arxiv.org/abs/1605.09782); all
others by gradient in z from several starts. Pivotal tuning: Roich et al. 2021, https://arxiv.org/abs/2106.05744.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from gan_lab.data.images import Images, to_uint8
from gan_lab.data.media import grid
from gan_lab.errors import InputError, counted
from gan_lab.sampling.latents import Latents, check_labels
from gan_lab.sampling.sampler import BATCH_SIZE, Sampler
from gan_lab.sampling.search import Rows, Schedule, Tuning, check_count, find, tune
from gan_lab.sampling.spaces import NoiseMaps, Space, choose_space
from gan_lab.sampling.targets import (
    Distance,
    Given,
    PyramidDistance,
    Targets,
    mean_squared_error,
    psnr,
    read_targets,
)
from gan_lab.seeding import check_seed

MOST_SHOWN = 8  # images in a video

_LARGEST = 256  # pixels in a side of each

_FRAMES = 180  # of a whole search: 6 seconds at 30 fps

_PAIRS_ACROSS = 4


class VideoFrames:
    """Frames of a video of a projection: the first eight images, in 8 bits and of at most 256 pixels a side.

    Attributes:
        count: of these images.
        every: how many steps lie between two frames.

    Args:
        targets: [N, C, H, W] in [-1, 1].
        steps: of the search.
    """

    def __init__(self, targets: Tensor, steps: int) -> None:
        self.every = max(1, steps // _FRAMES)
        self.steps = steps
        self.count = min(len(targets), MOST_SHOWN)
        self._targets = small(targets[: self.count])
        self._frames: dict[int, dict[int, Tensor]] = {}

    def wants(self, step: int) -> bool:
        """Whether to show a step."""
        return step % self.every == 0 or step == self.steps

    def add(self, step: int, first: int, images: Tensor) -> None:
        """Keep the images [n, C, H, W] that images `first` to `first + n` have at a step."""
        for i, image in enumerate(small(images), start=first):
            if i < self.count:
                self._frames.setdefault(step, {})[i] = image

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self, *, hold: int = 30) -> Iterator[Tensor]:
        """Yield frames uint8 [C, H', W'], the last one `hold` times more; a missing image keeps its last one."""
        current = torch.full_like(self._targets, 255)
        frame = None
        for step in sorted(self._frames):
            for i, image in self._frames[step].items():
                current[i] = image
            pairs = torch.stack([self._targets, current], dim=1).flatten(0, 1)
            frame = grid(pairs, 2 * min(_PAIRS_ACROSS, self.count))
            yield frame
        if frame is not None:
            yield from [frame] * hold


def small(images: Tensor) -> Tensor:
    """Return images as uint8 on the CPU, the longer side at most 256 pixels."""
    longest = max(images.shape[2:])
    if longest > _LARGEST:
        images = interpolate(
            images, scale_factor=_LARGEST / longest, mode="bilinear", antialias=True
        )
    return to_uint8(images.detach()).cpu()


# Result


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ProjectionResult:
    """Images and their latents; tensors are on the CPU.

    Attributes:
        gan: that makes `images`: the given one, or the tuned one.
        targets: [N, C, H, W], as the generator makes images.
        images: [N, C, H, W], the nearest ones found: of `latents` and, if set, `noise`.
        latents: of the images.
        noise: maps found along with w; None for constant noise.
        images_const_noise: images [N, C, H, W] of `latents` with constant noise.
        before_tuning: `images` as they were before the generator was tuned, or None.
        loss: distance [N] of `images`.
        names: of the images.
        space: "w", "w+" or "z".
        distance: that was minimized.
        why: it was chosen.
        steps: of each search.
        tuned: steps of the tuning.
        seconds: that it took.
        finished: False after Ctrl-C.
        frames: of the search, or None.
    """

    gan: Sampler
    targets: Images
    images: Images
    latents: Latents
    noise: NoiseMaps | None
    images_const_noise: Images
    before_tuning: Images | None
    loss: Tensor
    names: list[str]
    space: str
    distance: str
    why: str
    steps: int
    tuned: int
    seconds: float
    finished: bool
    frames: VideoFrames | None

    @property
    def mse(self) -> Tensor:
        """Mean squared error [N] of images in [-1, 1]."""
        return mean_squared_error(self.images, self.targets)

    def results(self) -> list[dict[str, Any]]:
        """Return the errors of each image: `mse` and `psnr` (dB) of images in [-1, 1], `loss` the distance.

        `mse_const_noise` is that of the latents alone, with the constant noise.
        """
        columns = {
            "name": self.names,
            "label": None if self.latents.labels is None else self.latents.labels.tolist(),
            "mse": self.mse.tolist(),
            "psnr": psnr(self.mse).tolist(),
            "loss": self.loss.tolist(),
            "mse_const_noise": mean_squared_error(self.images_const_noise, self.targets).tolist(),
        }
        there = {name: column for name, column in columns.items() if column is not None}
        return [dict(zip(there, row, strict=True)) for row in zip(*there.values(), strict=True)]

    def __repr__(self) -> str:
        """Summarize the result in a line."""
        tuned = f", generator tuned for {self.tuned}" if self.tuned else ""
        return (
            f"ProjectionResult({counted(len(self.names), 'image')} in {self.space}, mean squared error "
            f"{self.mse.mean().item():.4g}, {self.steps} steps{tuned}, {self.seconds:.1f} s)"
        )

    def _repr_png_(self) -> bytes | None:
        pairs = torch.stack([self.targets, self.images], dim=1).flatten(0, 1)
        return Images(pairs)._repr_png_()


STEPS = 500

RESTARTS = 4  # in z, where a search may end in a poor local minimum


def project(
    gan: Sampler,
    images: Given | Sequence[Given] | Targets,
    *,
    labels: int | Sequence[int] | Tensor | None = None,
    space: str = "auto",
    steps: int | Schedule | None = None,
    restarts: int | None = None,
    noise: bool | None = None,
    distance: Distance | None = None,
    tuning: Tuning | int = 0,
    seed: int = 0,
    batch_size: int = 8,
    record: bool = False,
) -> ProjectionResult:
    """Find latents whose images are nearest to given ones.

        found = gan.project("photo.png")
        found.mse, found.latents.w, found.images
        tuned = gan.project("photo.png", tuning=350).gan

    Args:
        gan: a trained generator.
        images: files, folders, Pillow images, tensors of the generator's shape, or several of these.
        labels: class of each image, or one for all; None finds it by the nearest of some images of each class.
        space: "w" (one style for all layers), "w+" (one for each: nearer, and less like the generator's own images),
            "z", or "auto": w where there are styles, else z.
        steps: of the search, or its `Schedule`; None takes 500 steps, and none after BiGAN's encoder.
        restarts: searches for each image, of which the best counts; None takes 4 in z and 1 in w.
        noise: whether to search for noise maps, too; None: where the generator has noise inputs, in w and w+.
        distance: of images; None for `PyramidDistance`.
        tuning: of the generator afterwards: a `Tuning`, or a number of steps; 0 for none.
        seed: of all draws.
        batch_size: images searched for at a time; one alone gives the same as among others, to rounding.
        record: whether to record the search for a video.

    Raises:
        InputError: for unreadable images, unknown classes, and options out of range.
    """
    if gan.attributes:
        raise InputError(
            f"{gan.kind} has attributes ({', '.join(gan.attributes)}), and project looks for a class; it takes models "
            "with classes or without labels"
        )
    chosen = choose_space(gan, space)
    check_seed(seed)
    check_count("batch_size", batch_size, 1)
    if not isinstance(steps, Schedule):
        steps = Schedule(steps=default_steps(chosen) if steps is None else steps)
    tuning = tuning if isinstance(tuning, Tuning) else Tuning(steps=tuning)
    restarts, noise = count_restarts(restarts, chosen), wants_noise(noise, chosen)
    targets = as_targets(images, gan)
    classes = None if labels is None else class_labels(labels, len(targets), gan)
    frames = VideoFrames(targets.images, steps.steps + tuning.steps) if record else None
    return find_and_tune(
        *(chosen, targets, classes, distance or PyramidDistance(), steps, tuning, frames),
        restarts=restarts,
        noise=noise,
        seed=seed,
        batch_size=batch_size,
    )


def find_and_tune(
    space: Space,
    targets: Targets,
    labels: Tensor | None,
    distance: Distance,
    schedule: Schedule,
    tuning: Tuning,
    frames: VideoFrames | None,
    *,
    restarts: int,
    noise: bool,
    seed: int,
    batch_size: int,
) -> ProjectionResult:
    """Search for latents, then tune the generator to them if configured; arguments as `project`'s."""
    begin = time.perf_counter()
    gan = space.gan
    rows, finished = find(
        *(space, targets.images.to(gan.device), labels, distance, schedule),
        restarts=restarts,
        noise=noise,
        seed=seed,
        batch_size=batch_size,
        observer=frames,
    )
    before = None
    if tuning.steps and finished:
        before = Images(images_of(rows, space).cpu())
        rows.noise = None
        gan, finished = tune(
            *(space, rows, distance, tuning),
            seed=seed,
            batch_size=batch_size,
            seen=lambda step: record_tuning(frames, schedule.steps + step, rows, space),
        )
    return ProjectionResult(
        gan=gan,
        **result_tensors(rows, space, gan, distance, targets.names),
        before_tuning=before,
        space=space.name,
        distance=distance.name,
        why=distance.why,
        steps=schedule.steps,
        tuned=tuning.steps,
        seconds=time.perf_counter() - begin,
        finished=finished,
        frames=frames,
    )


def as_targets(images: Given | Sequence[Given] | Targets, gan: Sampler) -> Targets:
    """Return given images in the generator's size and channels.

    Raises:
        InputError: for unreadable images.
    """
    if isinstance(images, Targets):
        return images
    channels, height, width = image_shape(gan)
    return read_targets(images, size=(height, width), channels=channels)


def result_tensors(
    rows: Rows, space: Space, gan: Sampler, distance: Distance, names: Sequence[str]
) -> dict[str, Any]:
    """Return the per-image fields of a `ProjectionResult`.

    Args:
        rows: found by the search; after Ctrl-C perhaps fewer than there are names.
        space: of the search.
        gan: the generator that makes the images, tuned or not.
        distance: of images.
        names: of the images.
    """
    found = images_of(rows, space)
    latents = latents_of(rows, space, names[: len(found)])
    pairs = zip(found.split(BATCH_SIZE), rows.targets.split(BATCH_SIZE), strict=True)
    return {
        "targets": Images(rows.targets.cpu()),
        "images": Images(found.cpu()),
        "latents": latents,
        "noise": None if rows.noise is None else rows.noise.cpu(),
        "images_const_noise": Images(
            (found if latents.w is None else gan.synthesize(latents)).cpu()
        ),
        "loss": torch.cat([distance(*pair) for pair in pairs]).cpu(),
        "names": list(names[: len(found)]),
    }


def record_tuning(frames: VideoFrames | None, step: int, rows: Rows, space: Space) -> None:
    """Record the images of a step of the tuning, if a video is made and shows it."""
    if frames is not None and frames.wants(step):
        frames.add(step, 0, images_of(rows[torch.arange(frames.count)], space))


def latents_of(rows: Rows, space: Space, names: Sequence[str]) -> Latents:
    """Return the latents that were found."""
    values = rows.values.cpu()
    styles = space.name != "z"
    if styles:
        values = values.expand(-1, space.gan.num_ws, -1).contiguous()
    return Latents(
        w=values if styles else None,
        z=None if styles else values,
        labels=None if rows.labels is None else rows.labels.cpu(),
        metadata={
            "kind": "project",
            "model": space.gan.kind,
            "space": space.name,
            "names": json.dumps(list(names)),
        },
    )


@torch.no_grad()
def images_of(rows: Rows, space: Space) -> Tensor:
    """Make images of all rows, in batches."""
    parts = torch.arange(len(rows.values)).split(BATCH_SIZE)
    return torch.cat([rows[part].images(space) for part in parts])


def image_shape(gan: Sampler) -> tuple[int, int, int]:
    """Return channels, height and width of a generator's images."""
    channels, height, width = gan.synthesize(gan.latents(1)).shape[1:]
    return channels, height, width


def class_labels(labels: int | Sequence[int] | Tensor, count: int, gan: Sampler) -> Tensor:
    """Return labels as int64 [N] on the generator's device.

    Raises:
        InputError: for unknown classes, and mixtures of classes.
    """
    found = check_labels(labels, count, gan.num_classes)
    if found.ndim != 1:
        raise InputError("labels: an image is projected within one class; give whole numbers")
    return found.to(gan.device)


def has_encoder(space: Space) -> bool:
    """Whether a search begins at an encoder's codes."""
    return space.name == "z" and space.generator.has_encoder


def default_steps(space: Space) -> int:
    """Return the default number of steps."""
    return 0 if has_encoder(space) else STEPS


def count_restarts(restarts: int | None, space: Space) -> int:
    """Return how many searches an image gets.

    Raises:
        InputError: below 1, and above 1 with BiGAN's encoder, which gives one start.
    """
    encoded = has_encoder(space)
    if restarts is None:
        return RESTARTS if space.name == "z" and not encoded else 1
    check_count("restarts", restarts, 1)
    if restarts > 1 and encoded:
        raise InputError(
            f"restarts={restarts}: {space.gan.kind} starts from its encoder's codes; leave it out"
        )
    return restarts


def wants_noise(noise: bool | None, space: Space) -> bool:
    """Return whether to search for noise maps.

    Raises:
        InputError: when the generator has none, or in z.
    """
    possible = space.gan.generator.has_noise_inputs and space.name != "z"
    if noise and not possible:
        raise InputError(
            f"noise=true: {space.gan.kind} has no noise inputs to search for in {space.name}; leave it out"
        )
    return possible if noise is None else noise
