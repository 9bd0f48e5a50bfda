"""Videos, decoded again."""

import sys
import weakref
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.sampling.video import check_video, readable_scale, write_video

COLORS = torch.tensor(
    [[200, 30, 40], [20, 180, 60], [30, 50, 210], [220, 210, 40], [128, 128, 128]],
    dtype=torch.uint8,
)


def flat(count: int, *, channels: int = 3, height: int = 16, width: int = 24) -> Iterator[Tensor]:
    """Frames of one color each."""
    for i in range(count):
        yield COLORS[i % 5, :channels, None, None].expand(-1, height, width)


def decoded_mp4(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def decoded(path: Path) -> tuple[list[np.ndarray], list[int]]:
    """Frames and their milliseconds."""
    frames, delays = [], []
    with Image.open(path) as image:
        assert image.info["loop"] == 0, "for ever"
        for i in range(image.n_frames):
            image.seek(i)
            image.load()  # of a WebP, the duration is known then
            frames.append(np.asarray(image.convert("RGB")))
            delays.append(int(image.info["duration"]))
    return frames, delays


@pytest.mark.parametrize("channels", [1, 3])
def test_mp4_is_h264_that_browsers_play(tmp_path: Path, channels: int) -> None:
    path = write_video(tmp_path / "new" / "a.mp4", flat(5, channels=channels), 12.5, scale=2)
    frames = decoded_mp4(path)
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * 5
    for frame, color in zip(frames, COLORS, strict=True):
        expected = (color if channels == 3 else color[:1].expand(3)).numpy()
        assert np.abs(frame.mean((0, 1)) - expected).max() < 3
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.pix_fmt == "yuv420p"
        assert stream.average_rate == Fraction(25, 2)
        assert stream.codec_context.colorspace == 1, "BT.709, and said so"
    assert path.read_bytes().find(b"moov") < path.read_bytes().find(b"mdat"), "plays before its end"


def test_mp4_makes_odd_sides_even(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", flat(2, height=17, width=21), 10)
    (first, _) = decoded_mp4(path)
    assert first.shape == (18, 22, 3)
    assert np.abs(first[-1].astype(int) - COLORS[0].numpy()).max() < 12, "no black border"


def test_gif_has_one_palette_loops_and_keeps_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.gif", flat(5), 30)
    frames, delays = decoded(path)
    assert len(frames) == 5 and delays == [30, 40, 30, 30, 40], "5 / 30 s in hundredths"
    for frame, color in zip(frames, COLORS, strict=True):
        assert np.abs(frame.reshape(-1, 3).astype(int) - color.numpy()).max() <= 2


def test_gif_of_gray_frames_is_exact(tmp_path: Path) -> None:
    gray = [torch.arange(256).roll(i).view(1, 16, 16).to(torch.uint8) for i in range(3)]
    frames, _ = decoded(write_video(tmp_path / "a.gif", gray, 10, scale=3))
    for frame, given in zip(frames, gray, strict=True):
        big = np.kron(given[0].numpy(), np.ones((3, 3), dtype=np.uint8))
        assert np.array_equal(frame, np.stack([big] * 3, axis=-1))


def test_webp_decodes_to_the_frames(tmp_path: Path) -> None:
    frames, delays = decoded(write_video(tmp_path / "a.webp", flat(4), 30))
    assert delays == [33, 34, 33, 33]
    for frame, color in zip(frames, COLORS, strict=False):
        assert np.abs(frame.mean((0, 1)) - color.numpy()).max() < 6


def test_a_long_mp4_does_not_have_to_fit_into_memory(tmp_path: Path) -> None:
    given: list[weakref.ref[Tensor]] = []

    def frames() -> Iterator[Tensor]:
        for i in range(60):
            frame = torch.full((1, 16, 16), i, dtype=torch.uint8)
            given.append(weakref.ref(frame))
            yield frame
            del frame
            assert sum(ref() is not None for ref in given) < 4

    assert len(decoded_mp4(write_video(tmp_path / "a.mp4", frames(), 30, total=60))) == 60


def broken() -> Iterator[Tensor]:
    yield from flat(3)
    raise KeyboardInterrupt


@pytest.mark.parametrize("suffix", ["mp4", "gif", "webp"])
def test_a_video_that_fails_leaves_the_old_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write_video(path, broken(), 10)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def two_sizes() -> Iterator[Tensor]:
    yield from flat(2)
    yield from flat(1, width=26)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (two_sizes, r"frame 2 is \[3, 16, 26\] and those before it \[3, 16, 24\]"),
        (lambda: flat(0), "no frames"),
        (lambda: [torch.zeros(3, 4, 4)], r"frame 0 is torch.float32 \[3, 4, 4\]"),
        (lambda: [torch.zeros(2, 4, 4, dtype=torch.uint8)], "1 or 3 channels"),
    ],
)
def test_bad_frames(tmp_path: Path, frames: Callable[[], Iterator[Tensor]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_video(tmp_path / "a.mp4", frames(), 10)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "fps", "scale", "message"),
    [
        ("a.avi", 10, 1, r"ends in \.mp4, \.gif, \.webp"),
        ("a", 10, 1, "ends in"),
        ("a.mp4", 0, 1, "fps=0 must be above 0"),
        ("a.gif", 60, 1, "at most 50 frames a second in .gif"),
        ("a.gif", float("nan"), 1, "fps=nan"),
        ("a.mp4", 10, 0, "scale=0 must be a whole number"),
        ("a.mp4", 10, 1.5, "scale=1.5"),
    ],
)
def test_bad_settings(name: str, fps: float, scale: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_video(name, fps, scale)


def test_without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install 'gan-laboratory\[video\]'"):
        check_video("a.mp4", 10)
    check_video("a.gif", 10)


def test_small_images_are_enlarged_to_be_seen() -> None:
    assert [readable_scale(*size) for size in [(16, 16), (100, 300), (256, 256), (999, 500)]] == [
        16,
        3,
        1,
        1,
    ]
