"""Samples are shown by their media type: in pages, loggers and notebooks."""

import base64
import re

import pytest
import torch
from torch import Tensor

from gan_lab.data.audio import Audio
from gan_lab.data.images import ImageKind, Images, image_spec, to_uint8
from gan_lab.data.media import Samples, fragment, sheet
from gan_lab.data.sample import SampleKind, SampleSpec
from gan_lab.errors import InputError
from gan_lab.models.wavegan import Generator
from gan_lab.sampling.gan import Gan
from tests.helpers.sounds import sound_spec


class Note(SampleKind):
    """Text of integers, as a kind of sample."""

    name, suffix, axes, media_type = "note", ".txt", ("length",), "text/plain"

    def to_float(self, stored: Tensor) -> Tensor:
        return stored.float()

    def to_stored(self, values: Tensor) -> Tensor:
        return values.round().to(torch.int64)

    def encoded(self, stored: Tensor) -> bytes:
        return self.media(stored)

    def decoded(self, data: bytes) -> Tensor:
        raise InputError("not here")

    def preview(self, stored: Tensor) -> Tensor:
        return torch.zeros(len(stored), 1, 4, 4, dtype=torch.uint8)

    def media(self, stored: Tensor) -> bytes:
        return f"<b>{stored.tolist()}</b>".encode()


def test_fragments() -> None:
    image = fragment(b"\x89PNG", "image/png", name='a"<b>')
    assert image.startswith("<img ") and 'alt="a&quot;&lt;b&gt;"' in image
    clip = fragment(b"RIFF", "audio/wav")
    data = re.search(r'src="data:audio/wav;base64,([^"]+)"', clip)
    assert "<audio controls" in clip and data and base64.b64decode(data[1]) == b"RIFF"
    assert "&lt;script&gt;" in fragment(b"<script>", "text/plain")
    assert "<script>" not in fragment(b"<script>", "text/plain")
    with pytest.raises(InputError, match="video/mp4"):
        fragment(b"", "video/mp4")


def test_a_sheet_has_single_clips_from_all_over_it() -> None:
    clips = torch.arange(40, dtype=torch.int16)[:, None, None].expand(-1, 1, 256).contiguous()
    found = sheet(Audio(rate=8000), clips, columns=10)
    assert found.image.shape[0] == 3 and found.image.dtype == torch.uint8
    firsts = [Audio(rate=8000).media(clips[i]) for i in range(0, 40, 5)]
    assert list(found.media) == firsts and found.media_type == "audio/wav"
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    assert sheet(ImageKind(), images, 2).media == ()
    notes = sheet(Note(), torch.arange(6).reshape(3, 2), 2)
    assert notes.media == (b"<b>[0, 1]</b>", b"<b>[2, 3]</b>", b"<b>[4, 5]</b>")


def test_a_notebook_plays_sound() -> None:
    gan = Gan(Generator(sample_shape=(1, 64), width=4).eval(), spec=sound_spec(64))
    clips = gan.sample(3)
    assert isinstance(clips, Samples) and clips.shape == (3, 1, 64)
    page = clips._repr_html_()
    assert page is not None and page.count("<audio controls") == 3
    encoded = re.findall(r"base64,([^\"]+)", page)[0]
    assert base64.b64decode(encoded) == gan.spec.kind.media(gan.spec.decode(clips)[0])
    assert clips[0]._repr_html_().count("<audio") == 1  # type: ignore[union-attr]
    assert isinstance(torch.cat([clips, clips]), Samples)
    assert clips[:, :, :5]._repr_html_() is None, "no clip, shown as numbers"
    assert type(clips * 2) is Tensor
    assert gan.sample(20)._repr_html_().endswith("<p>and 4 more</p>")  # type: ignore[attr-defined]
    assert clips.grid(columns=3).width > 3 * 128


def test_a_notebook_shows_text_as_it_is() -> None:
    samples = Samples(torch.ones(2, 3), SampleSpec(kind=Note(), shape=(3,)))
    assert "&lt;b&gt;[1, 1, 1]&lt;/b&gt;" in str(samples._repr_html_())


def test_images_stay_images() -> None:
    spec = image_spec(channels=1, image_size=(4, 4))
    gan = Gan(Generator(sample_shape=(1, 64), width=4).eval(), spec=spec)
    shown = gan.shown(torch.zeros(2, 1, 4, 4))
    assert isinstance(shown, Images) and to_uint8(shown).unique().tolist() == [128]
    assert getattr(shown, "_repr_html_", None) is None
