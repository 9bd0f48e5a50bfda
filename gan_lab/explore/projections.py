"""Projections of uploaded images in the background, one at a time."""

import io
import logging
import secrets
from dataclasses import dataclass
from threading import Event, Lock, Thread

import torch
from torch import Tensor

from gan_lab.data.decoding import DECODE_ERRORS, open_image
from gan_lab.data.images import to_uint8
from gan_lab.data.source import inspect, reason_of
from gan_lab.errors import InputError
from gan_lab.explore.studio import Studio, encoded
from gan_lab.metrics.features.vgg16 import choose_distance
from gan_lab.sampling.projection import STEPS, class_labels, count_restarts, image_shape, latents_of
from gan_lab.sampling.search import Schedule, find
from gan_lab.sampling.spaces import choose_space
from gan_lab.sampling.targets import Targets, check_single, mean_squared_error, transformed

SHOWN_EVERY = 10  # steps
MOST_MEGAPIXELS = 64.0  # of an image that is handed in: larger ones take long to decode
MOST_FINISHED = 16  # jobs that can still be asked about

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a projection.

    Attributes:
        step: done.
        steps: in all.
        error: mean squared error of images in [-1, 1], None before there is one.
        done: whether it has ended.
        failed: why it found nothing, or None.
        latents: name of what was found, once it has ended.
    """

    step: int
    steps: int
    error: float | None
    done: bool
    failed: str | None
    latents: str | None


class ImageSearch:
    """Projection of one image.

    Noise maps are not searched for: what is found are latents, which can be mixed and walked from.

    Args:
        studio: whose generator is to make the image.
        target: the image, as the generator makes them.
        label: its class, None to have it found.
    """

    count = 1  # images whose way `find` is to tell

    def __init__(self, studio: Studio, target: Targets, *, label: int | None) -> None:
        gan = studio.gan
        self.id = secrets.token_hex(8)
        self.said = "; ".join(target.notes)
        self._studio = studio
        self._target = target.images.to(gan.device)
        self._labels = None if label is None else class_labels(label, 1, gan)
        self._stopped = Event()
        self._png: bytes | None = None
        self._step = 0
        self._error: float | None = None
        self._failed: str | None = None
        self._latents: str | None = None
        self._thread = Thread(target=self._run, name="projection", daemon=True)

    def begin(self) -> None:
        """Start the projection in a thread."""
        self._thread.start()

    def now(self) -> Progress:
        """Return the progress."""
        done = not self._thread.is_alive()
        return Progress(
            step=self._step,
            steps=STEPS,
            error=self._error,
            done=done,
            failed=self._failed if done else None,
            latents=self._latents if done else None,
        )

    def png(self) -> bytes:
        """Return the best image so far as PNG.

        Raises:
            InputError: before there is anything.
        """
        if self._png is None:
            raise InputError("nothing has been found yet; ask again a little later")
        return self._png

    def stop(self) -> None:
        """Stop the search; the result so far is kept."""
        self._stopped.set()

    def wants(self, step: int) -> bool:
        """Take note of a step; whether to show it."""
        self._step = step
        if self._stopped.is_set():
            # a search that is interrupted keeps what it has found
            raise KeyboardInterrupt
        return step % SHOWN_EVERY == 0

    def add(self, step: int, first: int, images: Tensor) -> None:
        """Show images [1, C, H, W] of a step."""
        found = images.detach()
        self._png = encoded(to_uint8(found)[0].cpu())
        self._error = float(mean_squared_error(found, self._target))

    def _run(self) -> None:
        try:
            self._search()
        except InputError as error:
            self._failed = str(error)
        except Exception:
            log.exception("a projection failed")
            self._failed = "the projection failed; the terminal of gan-lab explore says why"

    def _search(self) -> None:
        gan = self._studio.gan
        space = choose_space(gan, "auto")
        channels = image_shape(gan)[0]
        distance = choose_distance("auto", channels=channels, device=gan.device)
        rows, _ = find(
            *(space, self._target, self._labels, distance, Schedule(steps=STEPS)),
            restarts=count_restarts(None, space, encoded=False),
            noise=False,
            seed=0,
            batch_size=1,
            recording=self,
        )
        with torch.no_grad():
            self.add(self._step, 0, rows.images(space))
        self._latents = self._studio.keep(latents_of(rows, space, ["explore"]))


class Projections:
    """The running projection and those that have ended."""

    def __init__(self) -> None:
        self._jobs: dict[str, ImageSearch] = {}
        self._lock = Lock()

    def begin(self, studio: Studio, target: Targets, label: int | None) -> ImageSearch:
        """Start a projection.

        Raises:
            InputError: for an unknown class, and while another one is looked for.
        """
        job = ImageSearch(studio, target, label=label)
        with self._lock:
            if any(not other.now().done for other in self._jobs.values()):
                raise InputError("another image is being looked for; wait for it, or stop it")
            self._jobs[job.id] = job
            while len(self._jobs) > MOST_FINISHED:
                del self._jobs[next(iter(self._jobs))]
            job.begin()
        return job

    def find(self, id: str) -> ImageSearch:
        """Return a job.

        Raises:
            InputError: when there is none of that name.
        """
        if id not in self._jobs:
            raise InputError("there is no such projection any more; send the image again")
        return self._jobs[id]


def read(content: bytes, name: str, studio: Studio) -> Targets:
    """Read an uploaded image at the generator's size and channels.

    Raises:
        InputError: for files that are not images, animated images, and generators of other samples.
    """
    if not studio.gan.spec.is_image:
        raise InputError(f"8-bit images alone are looked for, and {studio.name} makes {studio.gan.spec.kind.name}")
    channels, height, width = image_shape(studio.gan)
    file = io.BytesIO(content)
    try:
        inspect(file, max_megapixels=MOST_MEGAPIXELS, name="the page's limit")
        with open_image(file, max_megapixels=MOST_MEGAPIXELS) as image:
            check_single(image, name)
            pixels, notes = transformed(image, name, (height, width), channels)
    except InputError:
        raise
    except DECODE_ERRORS as error:
        raise InputError(
            f"{name} cannot be read ({reason_of(error)}); send a PNG, JPEG or WebP image"
        ) from error
    return Targets(images=pixels[None], names=[name], notes=notes)
