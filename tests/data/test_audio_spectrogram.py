"""Sound as images of log magnitudes, and back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gan_lab.data.audio import Audio, Spectrogram
from gan_lab.data.builtin import LOWEST_PITCH, TONE_RATE, Tones
from gan_lab.data.images import image_spec
from gan_lab.data.sample import SampleSpec
from gan_lab.errors import InputError
from tests.helpers.sounds import pitch


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    """64 notes as floats [N, 1, 4096]."""
    data = Tones(split="val")
    return data.spec.kind.to_float(data.__getitems__(range(64)).real)


@pytest.fixture(scope="module")
def measured(clips: torch.Tensor) -> Spectrogram:
    found = Spectrogram(window=256, hop=64)
    found.measure(clips.split(10))
    return found


def test_sizes_are_those_of_the_paper() -> None:
    assert Spectrogram().shape((1, 16384)) == (1, 128, 128)
    assert Spectrogram().encode(torch.zeros(2, 1, 16384)).shape == (2, 1, 128, 128)
    assert Spectrogram(window=64, hop=16).decode(torch.zeros(2, 2, 32, 8)).shape == (2, 2, 128)


def test_every_frequency_is_standardized_and_clipped(
    clips: torch.Tensor, measured: Spectrogram
) -> None:
    encoded = measured.encode(clips)
    unclipped = Spectrogram(window=256, hop=64, deviations=1e3)
    unclipped.load_state_dict(measured.state_dict())
    values = unclipped.encode(clips) * 1e3
    np.testing.assert_allclose(values.mean((0, 1, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(values.square().mean((0, 1, 3)), 1, atol=1e-2)
    assert encoded.abs().max() <= 1
    torch.testing.assert_close(encoded, (values / 3).clamp(-1, 1), atol=1e-4, rtol=0)


def test_a_line_stands_at_its_frequency() -> None:
    time = torch.arange(4096) / TONE_RATE
    sine = torch.sin(2 * torch.pi * 1000 * time)[None, None]
    image = Spectrogram(window=256, hop=128, deviations=100).encode(sine)[0, 0]
    # 31.25 Hz a row, the lowest first
    assert (image[:, 4:-4].argmax(0) == 32).all()


def test_what_comes_back_sounds_the_same(clips: torch.Tensor, measured: Spectrogram) -> None:
    back = measured.decode(measured.encode(clips))
    assert back.shape == clips.shape
    again = measured.encode(back)
    error = (again - measured.encode(clips)).square().mean().sqrt()
    assert error < 0.25, "of values in [-1, 1]"
    for before, after in zip(clips[:16, 0].numpy(), back[:16, 0].numpy(), strict=True):
        found, expected = (np.log2(pitch(one, TONE_RATE) / LOWEST_PITCH) for one in (after, before))
        assert abs(found - expected) * 12 < 0.2, "semitones"
    ends = back[:, 0, [0, -1]].abs()
    assert ends.max() < 0.2, "no clicks"


def test_sound_of_an_image_does_not_depend_on_the_batch(
    clips: torch.Tensor, measured: Spectrogram
) -> None:
    images = measured.encode(clips[:4])
    torch.testing.assert_close(measured.decode(images)[2:3], measured.decode(images[2:3]))
    assert torch.equal(measured.decode(images), measured.decode(images))


def test_more_iterations_come_nearer(clips: torch.Tensor, measured: Spectrogram) -> None:
    def error(iterations: int) -> float:
        own = Spectrogram(window=256, hop=64, iterations=iterations)
        own.load_state_dict(measured.state_dict())
        images = own.encode(clips[:8])
        return float((own.encode(own.decode(images)) - images).square().mean())

    assert error(32) < error(1)


def test_it_is_of_sound_and_says_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="representation=spectrogram is for sound"):
        Spectrogram().check(image_spec(channels=1, image_size=(8, 8)))
    spec = SampleSpec(kind=Audio(rate=8000), shape=(1, 1000))
    with pytest.raises(InputError, match="hop=128"):
        Spectrogram().check(spec)
    Spectrogram(hop=50).check(spec)
    for options in ({"window": 255}, {"hop": 129}, {"deviations": 0}, {"momentum": 1}):
        with pytest.raises(InputError):
            Spectrogram(**options)  # type: ignore[arg-type]


def test_it_is_built_again_from_its_arguments(measured: Spectrogram) -> None:
    spec = SampleSpec(kind=Audio(rate=8000), shape=(1, 4096), representation=measured)
    again = SampleSpec.from_dict(spec.as_dict(), origin=Path("config.yaml"))
    assert again.representation.arguments == measured.arguments
    assert set(measured.state_dict()) == {"mean", "std"}
    assert again.encoded_shape == (1, 128, 64)


@pytest.mark.parametrize(
    "arguments",
    [{"window": 10**8, "hop": 1}, {"window": 3}, {"iterations": 10**8}, {"momentum": 1.0}],
)
def test_arguments_of_an_untrusted_run_are_limited(arguments: dict[str, Any]) -> None:
    with pytest.raises(
        InputError, match=f"{next(iter(arguments))}={next(iter(arguments.values()))}"
    ):
        Spectrogram(**arguments)
