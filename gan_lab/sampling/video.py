"""Write videos: .mp4 by PyAV, .gif and .webp by Pillow."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad

from gan_lab.console import progress_bar
from gan_lab.data.sample import to_pil
from gan_lab.errors import InputError, import_extra
from gan_lab.run import replacing

SUFFIXES = (".mp4", ".gif", ".webp")

# players ignore shorter delays in a GIF and show 10 frames a second
FASTEST_GIF = 50

FASTEST = 240

_PALETTE_FRAMES = 32  # frames that determine the palette of a GIF

_BT709 = 1  # color matrix, primaries and transfer in H.264's numbers (ITU-T H.273)

_LIMITED_RANGE = 1


def write_video(
    path: str | Path,
    frames: Iterable[Tensor],
    fps: float,
    scale: int = 1,
    *,
    total: int | None = None,
) -> Path:
    """Write frames as a video, atomically.

    Args:
        path: ends in .mp4 (H.264 in yuv420p, which browsers play), .gif or .webp (both loop for ever). The folder is
            made when it is not there.
        frames: uint8 [C, H, W] with 1 or 3 channels, all of one size.
        fps: frames a second; at most 50 in a .gif.
        scale: every pixel becomes `scale` x `scale` pixels.
        total: number of frames, for the progress bar.

    Returns:
        The path.

    Raises:
        InputError: for another suffix, without PyAV (.mp4), for numbers out of range, and for no frames, frames of
            different sizes or of another kind.
    """
    path = check_video(path, fps, scale)
    with replacing(path) as temporary, progress_bar(path.name, total) as advance:
        images = count_frames(enlarged(checked(frames), scale), advance)
        if path.suffix.lower() == ".mp4":
            write_mp4(temporary, images, fps)
        else:
            write_animation(temporary, images, fps, path.suffix.lower())
    return path


def check_video(path: str | Path, fps: float, scale: int = 1) -> Path:
    """Check a video's options before any frame is made.

    Raises:
        InputError: as `write_video`.
    """
    path = Path(path).expanduser()
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: a video's name ends in {', '.join(SUFFIXES)}")
    fastest = FASTEST_GIF if suffix == ".gif" else FASTEST
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= fastest:
        raise InputError(
            f"fps={fps!r} must be above 0 and at most {fastest} frames a second in {suffix}"
        )
    if not isinstance(scale, int) or isinstance(scale, bool) or scale < 1:
        raise InputError(f"scale={scale!r} must be a whole number from 1: pixels are repeated")
    if suffix == ".mp4":
        import_av()
    return path


def import_av() -> Any:
    """Import PyAV, which has FFmpeg in it.

    Raises:
        InputError: when it is missing, or has no encoder for H.264.
    """
    av = import_extra("av", extra="video", what=".mp4 (not .gif or .webp)")
    try:
        av.Codec("libx264", "w")
    except av.FFmpegError as error:
        raise InputError(
            f"PyAV {av.__version__} has no encoder for H.264; install another one, or write a .gif or .webp"
        ) from error
    return av


def readable_scale(height: int, width: int, *, at_least: int = 256) -> int:
    """Return the integer factor that enlarges the shorter side of an image to at least this many pixels."""
    return max(1, -(-at_least // min(height, width)))


def checked(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield frames, checking their types and sizes."""
    shape: torch.Size | None = None
    for i, frame in enumerate(frames):
        if frame.dtype != torch.uint8 or frame.ndim != 3 or frame.shape[0] not in (1, 3):
            raise InputError(
                f"frame {i} is {frame.dtype} {list(frame.shape)}; a video takes uint8 [C, H, W] with 1 or 3 channels"
            )
        if shape is not None and frame.shape != shape:
            raise InputError(
                f"frame {i} is {list(frame.shape)} and those before it {list(shape)}; frames must have one size"
            )
        shape = frame.shape
        yield frame.cpu()
    if shape is None:
        raise InputError("there are no frames to make a video of")


def enlarged(frames: Iterable[Tensor], scale: int) -> Iterator[Tensor]:
    """Yield frames with every pixel repeated `scale` times in both directions."""
    for frame in frames:
        yield frame.repeat_interleave(scale, 1).repeat_interleave(scale, 2)


def count_frames(frames: Iterable[Tensor], advance: Any) -> Iterator[Tensor]:
    """Yield frames and store their number."""
    for done, frame in enumerate(frames, start=1):
        yield frame
        advance(done)


def write_mp4(path: Path, frames: Iterator[Tensor], fps: float) -> None:
    """Encode frames in H.264.

    Color differences have half the resolution, so an odd side is made even by repeating the last row or column. The
    matrix is BT.709, stated in the file: players otherwise guess it by the size of the image.
    """
    av = import_av()
    # the moov box at the front lets a browser start before it has everything
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = None
        for frame in frames:
            frame = even(frame)
            if stream is None:
                rate = Fraction(fps).limit_denominator(1000)
                stream = container.add_stream("libx264", rate=rate, options={"crf": "16"})
                stream.width, stream.height = frame.shape[2], frame.shape[1]
                stream.pix_fmt = "yuv420p"
                context = stream.codec_context
                context.colorspace = context.color_primaries = context.color_trc = _BT709
                context.color_range = _LIMITED_RANGE
            pixels = frame.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
            image = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range=_LIMITED_RANGE
            )
            container.mux(stream.encode(image))
        assert stream is not None, "checked() rejects an empty video"
        container.mux(stream.encode())


def even(frame: Tensor) -> Tensor:
    """Repeat the last row or column of a frame [C, H, W] if their number is odd."""
    height, width = frame.shape[1:]
    if height % 2 == 0 and width % 2 == 0:
        return frame
    return pad(frame[None].float(), (0, width % 2, 0, height % 2), mode="replicate")[0].to(
        torch.uint8
    )


def write_animation(path: Path, frames: Iterator[Tensor], fps: float, suffix: str) -> None:
    """Write .gif or .webp. A GIF has one palette for all frames, so that colors do not flicker."""
    if suffix == ".gif":
        images = with_one_palette(list(frames))
        # delays are hundredths of a second: rounding end times keeps the total exact
        ends = [round(100 * i / fps) for i in range(len(images) + 1)]
        delays = [10 * (after - before) for before, after in pairwise(ends)]
        how: dict[str, Any] = {"format": "GIF", "optimize": False, "disposal": 1}
    else:
        images = [to_pil(frame.expand(3, -1, -1)) for frame in frames]
        ends = [round(1000 * i / fps) for i in range(len(images) + 1)]
        delays = [after - before for before, after in pairwise(ends)]
        how = {"format": "WEBP", "quality": 90, "method": 4}
    first, *rest = images
    first.save(path, save_all=True, append_images=rest, duration=delays, loop=0, **how)


def with_one_palette(frames: list[Tensor]) -> list[Image.Image]:
    """Return frames as images in the same (at most 256) colors, chosen by frames spread over the whole."""
    if frames[0].shape[0] == 1:
        return [to_pil(frame) for frame in frames]
    step = -(-len(frames) // _PALETTE_FRAMES)
    seen = torch.cat(frames[::step], dim=1)  # stacked
    longest = max(1, round((seen.shape[1] * seen.shape[2] / 4e6) ** 0.5))
    if longest > 1:  # a few million pixels are enough to choose colors
        seen = interpolate(seen[None].float(), scale_factor=1 / longest)[0].to(torch.uint8)
    palette = to_pil(seen).quantize(256, method=Image.Quantize.MEDIANCUT)
    return [to_pil(frame).quantize(palette=palette) for frame in frames]
