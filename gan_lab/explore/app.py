"""The server of the explore page: samples of recipes, directions, and projection of uploaded images."""

import asyncio
import io
import json
import logging
import secrets
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from time import perf_counter
from typing import Any, TypeVar
from urllib.parse import urlsplit

import torch
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from torch import Tensor

from gan_lab.config import shorten
from gan_lab.console import printable
from gan_lab.data.decoding import DECODE_ERRORS, open_image
from gan_lab.data.images import to_uint8
from gan_lab.data.source import inspect, reason_of
from gan_lab.errors import InputError
from gan_lab.explore.studio import Studio, encoded, parse
from gan_lab.metrics.features.vgg16 import choose_distance
from gan_lab.sampling.projection import STEPS, class_labels, count_restarts, image_shape, latents_of
from gan_lab.sampling.search import Schedule, find
from gan_lab.sampling.spaces import choose_space
from gan_lab.sampling.targets import Targets, check_single, mean_squared_error, transformed

# Projections of uploaded images in the background, one at a time

SHOWN_EVERY = 10  # steps
MOST_MEGAPIXELS = 64.0  # limits of an uploaded image; larger ones take long to decode
MOST_FINISHED = 16  # finished jobs that are kept

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a projection.

    Attributes:
        step: number of steps done.
        steps: total number of steps.
        error: mean squared error of images in [-1, 1], or None.
        done: whether it has ended.
        failed: error message, or None.
        latents: name of the result once it has ended.
    """

    step: int
    steps: int
    error: float | None
    done: bool
    failed: str | None
    latents: str | None


class ImageSearch:
    """Projection of one image.

    Only latents are optimized, not noise maps, so that the result can be mixed and edited.

    Args:
        studio: of the generator.
        target: the image in the generator's format.
        label: its class; None to find it.
    """

    count = 1  # number of images, as in `VideoFrames`

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
            InputError: before the first result.
        """
        if self._png is None:
            raise InputError("there is no result yet; try again a little later")
        return self._png

    def stop(self) -> None:
        """Stop the projection and keep the result so far."""
        self._stopped.set()

    def wants(self, step: int) -> bool:
        """Record a step; return whether to show it."""
        self._step = step
        if self._stopped.is_set():
            # an interrupted search keeps its result
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
            restarts=count_restarts(None, space),
            noise=False,
            seed=0,
            batch_size=1,
            observer=self,
        )
        with torch.no_grad():
            self.add(self._step, 0, rows.images(space))
        self._latents = self._studio.keep(latents_of(rows, space, ["explore"]))


class Projections:
    """The running projection and finished ones."""

    def __init__(self) -> None:
        self._jobs: dict[str, ImageSearch] = {}
        self._lock = Lock()

    def begin(self, studio: Studio, target: Targets, label: int | None) -> ImageSearch:
        """Start a projection.

        Raises:
            InputError: for an unknown class, and while another projection runs.
        """
        job = ImageSearch(studio, target, label=label)
        with self._lock:
            if any(not other.now().done for other in self._jobs.values()):
                raise InputError("another projection is running; wait for it, or stop it")
            self._jobs[job.id] = job
            while len(self._jobs) > MOST_FINISHED:
                del self._jobs[next(iter(self._jobs))]
            job.begin()
        return job

    def find(self, id: str) -> ImageSearch:
        """Return a projection by name.

        Raises:
            InputError: when there is no such projection.
        """
        if id not in self._jobs:
            raise InputError("this projection no longer exists; upload the image again")
        return self._jobs[id]


def read(content: bytes, name: str, studio: Studio) -> Targets:
    """Read an uploaded image at the generator's size and channels.

    Raises:
        InputError: for files that are not images, animated images, and generators of other samples.
    """
    if not studio.gan.spec.is_image:
        raise InputError(
            f"only 8-bit images can be projected, and {studio.name} makes {studio.gan.spec.kind.name}"
        )
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


# Server


FILES = Path(__file__).parent / "page"
T = TypeVar("T")
LARGEST_UPLOAD = 20 * 2**20  # bytes
LARGEST_JSON = 2**18
LONGEST_NUMBER = 12  # longest integer, in digits
CLIENT_IS_GONE = 499  # nginx's status of a closed request; the client never receives it
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; frame-ancestors {}"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Guard:
    """Middleware: rejects cross-site and too large requests, and sets a content security policy.

    Args:
        app: the wrapped application.
        hosts: allowed host names; "*" for any.
        frame_ancestors: sites that may show it in a frame.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Sequence[str], frame_ancestors: Sequence[str]
    ) -> None:
        self.app = app
        self.hosts = {host.lower() for host in hosts}
        framing = " ".join(frame_ancestors) or "'none'"
        self.headers = [
            (key.lower().encode(), value.format(framing).encode()) for key, value in HEADERS.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject the request, or pass it to the application."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.headers]
            await send(message)

        rejection = rejected(request, self.hosts)
        answer: ASGIApp = self.app if rejection is None else rejection
        await answer(scope, receive, with_headers)


def rejected(request: Request, hosts: Collection[str]) -> JSONResponse | None:
    """Return the error response of a rejected request, None for an allowed one."""
    if "*" not in hosts and address(f"//{request.headers.get('host', '')}")[0] not in hosts:
        return failure("the page is not served under this name", 400)
    if foreign(request):
        return failure(
            "the request is from another site; only the page itself may send requests", 403
        )
    if request.method != "POST":
        return None
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        return failure("the request has no Content-Length", 411)
    if len(length) > LONGEST_NUMBER or int(length) > LARGEST_UPLOAD:
        limit = LARGEST_UPLOAD // 2**20
        return failure(f"the request is too large; send an image of at most {limit} MiB", 413)
    return None


def foreign(request: Request) -> bool:
    """Whether a request is cross-site; a link to the page itself is allowed."""
    headers = request.headers
    # a proxy may ask under another name; no other site can have a browser send its header
    own = {address(f"//{headers.get(name, '')}") for name in ("host", "x-forwarded-host")}
    own.discard((None, None))  # of an invalid origin
    if headers.get("origin") is not None and address(headers["origin"]) not in own:
        return True
    if not request.url.path.startswith("/api/"):
        return False
    # browsers say both of images and forms, too, which have no Origin; the page itself sends no Referer
    cross_site = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    return cross_site or (
        headers.get("referer") is not None and address(headers["referer"]) not in own
    )


def address(url: str) -> tuple[str | None, int | None]:
    """Return the host and port of an URL; None where there are none."""
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port
    except ValueError:
        return None, None


def failure(message: str, status: int = 400) -> JSONResponse:
    """Return an error response."""
    return JSONResponse({"error": printable(message)}, status_code=status)


async def bad_input(request: Request, error: Exception) -> Response:
    """Answer an InputError."""
    return failure(str(error))


async def interrupted(request: Request, error: Exception) -> Response:
    """Answer a cancelled request."""
    return Response(status_code=CLIENT_IS_GONE)


class Page:
    """Request handlers of the page.

    Args:
        studios: one or two generators, shown side by side.
    """

    def __init__(self, studios: Sequence[Studio]) -> None:
        self.studios = studios
        self.projections = Projections()
        # each worker thread would start threads for all cores
        self._drawing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="drawing")
        # a large image takes seconds to decode
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reading")

    async def _drawn(self, function: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._drawing, function, *arguments)

    def studio(self, number: Any) -> Studio:
        """Return a generator by its number on the page.

        Raises:
            InputError: when there is none.
        """
        position = parse_integer("model", str(number))
        if position >= len(self.studios):
            raise InputError(f"model={position}: there are {len(self.studios)}, counted from 0")
        return self.studios[position]

    async def models(self, request: Request) -> Response:
        """Return what each generator supports."""
        return JSONResponse([asdict(one.abilities()) for one in self.studios])

    async def draw(self, request: Request) -> Response:
        """Draw a recipe: an image, a clip or a text."""
        recipe = parse(await body(request))
        studio = self.studio(recipe.model)
        began = perf_counter()
        media = await self._drawn(studio.media, recipe)
        headers = {"X-Milliseconds": f"{1000 * (perf_counter() - began):.1f}"}
        return Response(media, media_type=studio.gan.spec.kind.media_type, headers=headers)

    async def draw_image(self, request: Request) -> Response:
        """Draw the spectrogram of a recipe's clip."""
        recipe = parse(await body(request))
        png = await self._drawn(self.studio(recipe.model).image, recipe)
        return Response(png, media_type="image/png")

    async def latents(self, request: Request) -> Response:
        """Return the latents of a recipe, as a file."""
        recipe = parse(await body(request))
        content = await self._drawn(self.studio(recipe.model).latents, recipe)
        return Response(content, media_type="application/octet-stream")

    async def directions(self, request: Request) -> Response:
        """Find directions; return the share of the variance that each explains, where it is known."""
        query = request.query_params
        studio = self.studio(query.get("model", "0"))
        shares = await self._drawn(studio.shares, query.get("method", "sefa"))
        return JSONResponse({"shares": shares})

    async def project(self, request: Request) -> Response:
        """Start projecting an uploaded image."""
        async with request.form(max_files=1, max_fields=4) as form:
            image, label = form.get("image"), form.get("label")
            if not isinstance(image, UploadFile):
                raise InputError("there is no image in the request; send one as the field image")
            content, name = await image.read(), image.filename or "the image"
            studio = self.studio(form.get("model", "0"))
        number = None if label is None else parse_integer("label", str(label))
        loop = asyncio.get_running_loop()
        target = await loop.run_in_executor(self._reading, read, content, name, studio)
        job = await self._drawn(self.projections.begin, studio, target, number)
        return JSONResponse({"id": job.id, "said": job.said})

    async def progress(self, request: Request) -> Response:
        """Return the progress of a projection."""
        return JSONResponse(asdict(self._job(request).now()))

    async def projection_image(self, request: Request) -> Response:
        """Return the best image of a projection so far."""
        return Response(self._job(request).png(), media_type="image/png")

    async def stop(self, request: Request) -> Response:
        """Stop a projection and keep its result so far."""
        self._job(request).stop()
        return JSONResponse({})

    def _job(self, request: Request) -> ImageSearch:
        return self.projections.find(request.path_params["id"])


def build_app(
    studios: Sequence[Studio], *, hosts: Sequence[str], frame_ancestors: Sequence[str] = ()
) -> Starlette:
    """Build the server application.

    Args:
        studios: one or two generators, shown side by side.
        hosts: host names of allowed requests, without ports, against DNS rebinding.
        frame_ancestors: sites that may show the page in a frame, such as "https://huggingface.co".
    """
    page = Page(studios)
    return Starlette(
        routes=[
            Route("/api/models", page.models),
            Route("/api/draw", page.draw, methods=["POST"]),
            Route("/api/image", page.draw_image, methods=["POST"]),
            Route("/api/latents", page.latents, methods=["POST"]),
            Route("/api/directions", page.directions),
            Route("/api/projections", page.project, methods=["POST"]),
            Route("/api/projections/{id}", page.progress),
            Route("/api/projections/{id}", page.stop, methods=["DELETE"]),
            Route("/api/projections/{id}/image", page.projection_image),
            Mount("/", StaticFiles(directory=FILES, html=True)),
        ],
        middleware=[
            Middleware(Guard, hosts=hosts, frame_ancestors=frame_ancestors),
        ],
        exception_handlers={InputError: bad_input, ClientDisconnect: interrupted},
    )


def parse_integer(key: str, text: str) -> int:
    """Parse an integer.

    Raises:
        InputError: when it is not one.
    """
    if not text.isdecimal() or len(text) > LONGEST_NUMBER:
        raise InputError(f"{key}={shorten(text)} must be a whole number")
    return int(text)


async def body(request: Request) -> Any:
    """Return the JSON of a request.

    Raises:
        InputError: when it is none.
    """
    content = await request.body()
    if len(content) > LARGEST_JSON:
        raise InputError(f"the request is longer than {LARGEST_JSON:,} bytes; pin fewer points")
    try:
        return json.loads(content)
    except (
        ValueError,
        RecursionError,
    ) as error:  # deep nesting, and numbers of thousands of digits
        raise InputError(f"the request is not JSON: {error}") from error
