"""Projection: from a picture to the latents whose image is nearest to it.

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

from gan_lab.data.images import Images, grid, to_uint8
from gan_lab.errors import InputError
from gan_lab.models import bigan
from gan_lab.sampling.distances import Distance, choose_distance, mean_squared_error, psnr
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.labels import check_labels
from gan_lab.sampling.points import Points
from gan_lab.sampling.search import Rows, Schedule, check_count, find
from gan_lab.sampling.spaces import NoiseMaps, Space, choose_space
from gan_lab.sampling.targets import Given, Targets, read_targets
from gan_lab.sampling.tuning import Tuning, tune
from gan_lab.seeding import check_seed

MOST_SHOWN = 8  # pictures in a video

_LARGEST = 256  # pixels in a side of each

_FRAMES = 180  # of a whole way: 6 seconds at 30 a second

_PAIRS_ACROSS = 4


class Recording:
    """Pictures on their way, in 8 bits and of at most 256 pixels a side, the first eight of them.

    Attributes:
        count: of these pictures.
        every: how many steps lie between two frames.

    Args:
        targets: [N, C, H, W] in [-1, 1].
        steps: of the way.
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
        """Keep the images [n, C, H, W] that pictures `first` to `first + n` have at a step."""
        for i, image in enumerate(small(images), start=first):
            if i < self.count:
                self._frames.setdefault(step, {})[i] = image

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self, *, hold: int = 30) -> Iterator[Tensor]:
        """Yield frames uint8 [C, H', W'], the last one `hold` times more; a picture that is missing stays as it was."""
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


# What a projection has found.


@dataclass(frozen=True, kw_only=True, eq=False)
class Projection:
    """Pictures, and where a generator has them; tensors are on the CPU.

    Attributes:
        gan: that makes `images`: the given one, or the tuned one.
        targets: [N, C, H, W], as the generator makes pictures.
        images: [N, C, H, W], the nearest that were found: of `points` and, where there are such maps, `noise`.
        points: the latents.
        noise: maps that were found along with w; None where the constant noise stayed.
        plain: images [N, C, H, W] of `points` alone, with the constant noise, as all else makes them.
        before_tuning: `images` as they were before the generator was tuned, or None.
        loss: distance [N] of `images`.
        names: of the pictures.
        space: "w", "w+" or "z".
        distance: what was made small.
        why: it was that.
        steps: of each search.
        tuned: steps of the tuning.
        seconds: that it took.
        finished: False after Ctrl-C.
        recording: of the way, or None.
    """

    gan: Gan
    targets: Images
    images: Images
    points: Points
    noise: NoiseMaps | None
    plain: Images
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
    recording: Recording | None

    @property
    def mse(self) -> Tensor:
        """Mean squared error [N] of images in [-1, 1]."""
        return mean_squared_error(self.images, self.targets)

    def results(self) -> list[dict[str, Any]]:
        """Return the errors of each picture: `mse` and `psnr` (dB) of images in [-1, 1], `loss` the distance.

        `mse_plain` is that of the latents alone, with the constant noise.
        """
        columns = {
            "name": self.names,
            "label": None if self.points.labels is None else self.points.labels.tolist(),
            "mse": self.mse.tolist(),
            "psnr": psnr(self.mse).tolist(),
            "loss": self.loss.tolist(),
            "mse_plain": mean_squared_error(self.plain, self.targets).tolist(),
        }
        there = {name: column for name, column in columns.items() if column is not None}
        return [dict(zip(there, row, strict=True)) for row in zip(*there.values(), strict=True)]

    def _repr_png_(self) -> bytes | None:
        pairs = torch.stack([self.targets, self.images], dim=1).flatten(0, 1)
        return Images(pairs)._repr_png_()


STEPS = 500

RESTARTS = 4  # in z, where a search may end in a wrong place

_MEASURED = 16  # images at a time


def project(
    gan: Gan,
    images: Given | Sequence[Given] | Targets,
    *,
    labels: int | Sequence[int] | Tensor | None = None,
    space: str = "auto",
    steps: int | Schedule | None = None,
    restarts: int | None = None,
    noise: bool | None = None,
    distance: str = "auto",
    vgg16: str | None = None,
    tuning: Tuning | int = 0,
    seed: int = 0,
    batch_size: int = 8,
    record: bool = False,
) -> Projection:
    """Find latents whose images are nearest to pictures.

        found = gan.project("photo.png")
        found.mse, found.points.w, found.images
        tuned = gan.project("photo.png", tuning=350).gan

    Args:
        gan: a trained generator.
        images: files, folders, Pillow pictures, tensors of the generator's shape, or several of these.
        labels: class of each picture, or one for all; None has it found, by the nearest of some images of each class.
        space: "w" (one style for all layers), "w+" (one for each: nearer, and less like the generator's own images),
            "z", or "auto": w where there are styles, else z.
        steps: of the search, or how it goes in full; None takes 500 steps, and none after BiGAN's encoder.
        restarts: searches for each picture, of which the best counts; None takes 4 in z and 1 in w.
        noise: whether to search for noise maps, too; None: where the generator has noise inputs, in w and w+.
        distance: "lpips", "pyramid" (needs no weights) or "auto": LPIPS where VGG16's weights are.
        vgg16: path of these weights; None for torch's cache.
        tuning: of the generator afterwards: how, or a number of steps; 0 for none.
        seed: of all draws.
        batch_size: pictures searched for at a time; one alone gives the same as among others, to rounding.
        record: whether to keep the way for a video.

    Raises:
        InputError: for pictures that cannot be read, classes that there are not, and settings out of range.
    """
    where = choose_space(gan, space)
    if steps is None:
        steps = default_steps(where)
    channels, height, width = image_shape(gan)
    measure, why = choose_distance(distance, channels=channels, device=gan.device, weights=vgg16)
    job = Job(
        space=where,
        schedule=steps if isinstance(steps, Schedule) else Schedule(steps=steps),
        restarts=count_restarts(restarts, where, encoded=encodes(where)),
        noise=wants_noise(noise, where),
        distance=measure,
        why=why,
        tuning=tuning if isinstance(tuning, Tuning) else Tuning(steps=tuning),
        seed=seed,
        batch_size=batch_size,
    )
    if not isinstance(images, Targets):
        images = read_targets(images, size=(height, width), channels=channels)
    chosen = None if labels is None else class_labels(labels, len(images), gan)
    return job.run(images, chosen, record=record)


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A projection as it was asked for; attributes as `project`'s arguments."""

    space: Space
    schedule: Schedule
    restarts: int
    noise: bool
    distance: Distance
    why: str
    tuning: Tuning
    seed: int
    batch_size: int

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_count("batch_size", self.batch_size, 1)

    def run(self, targets: Targets, labels: Tensor | None, *, record: bool) -> Projection:
        """Search, tune the generator where that is asked for, and measure."""
        begin = time.perf_counter()
        gan, before = self.space.gan, None
        steps = self.schedule.steps, self.tuning.steps
        recording = Recording(targets.images, sum(steps)) if record else None
        rows, finished = find(
            *(self.space, targets.images.to(gan.device), labels, self.distance, self.schedule),
            restarts=self.restarts,
            noise=self.noise,
            seed=self.seed,
            batch_size=self.batch_size,
            recording=recording,
        )
        if steps[1] and finished:
            before = Images(images_of(rows, self.space).cpu())
            rows.noise = None
            gan, finished = self._tuned(rows, recording)
        return self._measured(
            rows,
            gan=gan,
            before_tuning=before,
            names=targets.names[: len(rows.values)],
            seconds=time.perf_counter() - begin,
            finished=finished,
            recording=recording,
        )

    def _tuned(self, rows: Rows, recording: Recording | None) -> tuple[Gan, bool]:
        shown = 0 if recording is None else recording.count

        def seen(step: int) -> None:
            step += self.schedule.steps
            if recording is not None and recording.wants(step):
                some = rows[torch.arange(shown)]
                recording.add(step, 0, images_of(some, self.space))

        return tune(
            *(self.space, rows, self.distance, self.tuning),
            seed=self.seed,
            batch_size=self.batch_size,
            seen=seen,
        )

    def _measured(
        self,
        rows: Rows,
        *,
        gan: Gan,
        before_tuning: Images | None,
        names: list[str],
        seconds: float,
        finished: bool,
        recording: Recording | None,
    ) -> Projection:
        images = images_of(rows, self.space)
        loss = [
            self.distance(*pair)
            for pair in zip(images.split(_MEASURED), rows.targets.split(_MEASURED), strict=True)
        ]
        points = points_of(rows, self.space, names)
        plain = gan.synthesize(points.w) if points.w is not None else images
        return Projection(
            gan=gan,
            targets=Images(rows.targets.cpu()),
            images=Images(images.cpu()),
            points=points,
            noise=None if rows.noise is None else rows.noise.cpu(),
            plain=Images(plain.cpu()),
            before_tuning=before_tuning,
            loss=torch.cat(loss).cpu(),
            names=names,
            space=self.space.name,
            distance=self.distance.name,
            why=self.why,
            steps=self.schedule.steps,
            tuned=self.tuning.steps,
            seconds=seconds,
            finished=finished,
            recording=recording,
        )


def points_of(rows: Rows, space: Space, names: Sequence[str]) -> Points:
    """Return what was found as points of the generator's latent space."""
    values = rows.values.cpu()
    styles = space.name != "z"
    if styles:
        values = values.expand(-1, space.gan.styled.num_ws, -1).contiguous()
    return Points(
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
    """Make images of all rows, some at a time."""
    parts = torch.arange(len(rows.values)).split(_MEASURED)
    return torch.cat([rows[part].images(space) for part in parts])


def image_shape(gan: Gan) -> tuple[int, int, int]:
    """Return channels, height and width of what a generator makes."""
    label = torch.zeros(1, dtype=torch.int64) if gan.num_classes else None
    channels, height, width = gan.images(gan.latents(1), label).shape[1:]
    return channels, height, width


def class_labels(labels: int | Sequence[int] | Tensor, count: int, gan: Gan) -> Tensor:
    """Return labels as int64 [N] on the generator's device.

    Raises:
        InputError: for classes that there are not, and mixtures of classes.
    """
    found = check_labels(labels, count, gan.num_classes)
    if found.ndim != 1:
        raise InputError("labels: a picture is projected within one class; give whole numbers")
    return found.to(gan.device)


def encodes(space: Space) -> bool:
    """Whether a search begins at an encoder's codes."""
    return space.name == "z" and isinstance(space.generator, bigan.Generator)


def default_steps(space: Space) -> int:
    """Return the steps of a search where nobody says."""
    return 0 if encodes(space) else STEPS


def count_restarts(restarts: int | None, space: Space, *, encoded: bool) -> int:
    """Return how many searches a picture gets.

    Raises:
        InputError: for none, and for several from BiGAN's encoder, which starts at one place.
    """
    if restarts is None:
        return RESTARTS if space.name == "z" and not encoded else 1
    check_count("restarts", restarts, 1)
    if restarts > 1 and encoded:
        raise InputError(f"restarts={restarts}: bigan starts where its encoder says; leave it out")
    return restarts


def wants_noise(noise: bool | None, space: Space) -> bool:
    """Return whether to search for noise maps.

    Raises:
        InputError: where there are none, or they would not belong to the latents.
    """
    possible = space.gan.generator.has_noise_inputs and space.name != "z"
    if noise and not possible:
        raise InputError(
            f"noise=true: {space.gan.kind} has no noise inputs to search for in {space.name}; leave it out"
        )
    return possible if noise is None else noise
