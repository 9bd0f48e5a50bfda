"""Projection: from a picture to the latents whose image is nearest to it.

Generators with styles are inverted as in Karras et al. 2020 (StyleGAN2), section 5 and appendix D,
https://arxiv.org/abs/1912.04958; BiGAN by its encoder (Donahue et al. 2017, https://arxiv.org/abs/1605.09782); all
others by gradient in z from several starts. Pivotal tuning: Roich et al. 2021, https://arxiv.org/abs/2106.05744.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gan_lab.editing.distances import Distance, choose_distance
from gan_lab.editing.points import Points
from gan_lab.editing.projected import Projection as Projection
from gan_lab.editing.recording import Recording
from gan_lab.editing.search import Rows, Schedule, check_count, find
from gan_lab.editing.spaces import Space, choose_space
from gan_lab.editing.targets import Given, Targets, read_targets
from gan_lab.editing.tuning import Tuning, tune
from gan_lab.errors import InputError
from gan_lab.images import Images
from gan_lab.labels import check_labels
from gan_lab.models import bigan
from gan_lab.sampling import Gan
from gan_lab.seeding import check_seed

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
        values = values.expand(-1, space.gan.styled.num_styles, -1).contiguous()
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
    possible = space.gan.generator.noise_inputs and space.name != "z"
    if noise and not possible:
        raise InputError(
            f"noise=true: {space.gan.kind} has no noise inputs to search for in {space.name}; leave it out"
        )
    return possible if noise is None else noise
