"""Waveforms with raised high frequencies, and back."""

from pathlib import Path

import pytest
import torch
from scipy.signal import lfilter

from gan_lab.data.audio import Audio, Preemphasis
from gan_lab.data.builtin import Tones
from gan_lab.data.images import image_spec
from gan_lab.data.sample import SampleSpec
from gan_lab.errors import InputError


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    """64 notes as floats [N, 1, 4096]."""
    data = Tones(split="val")
    return data.spec.kind.to_float(data.__getitems__(range(64)).real)


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.95, 0.999])
def test_it_is_the_filter_and_back_its_inverse(clips: torch.Tensor, coefficient: float) -> None:
    own = Preemphasis(coefficient=coefficient)
    own.measure(clips.split(10))
    values = own.encode(clips)
    expected = torch.from_numpy(lfilter([1, -coefficient], [1], clips.double().numpy()))
    torch.testing.assert_close(values * own.peak, expected.float(), atol=1e-6, rtol=0)
    assert values.abs().max() == pytest.approx(1, abs=1e-6), "the loudest sample of the data"
    torch.testing.assert_close(own.decode(values), clips, atol=1e-5, rtol=0)
    noise = torch.randn(2, 2, 300, generator=torch.Generator().manual_seed(0))
    expected = torch.from_numpy(lfilter([1], [1, -coefficient], noise.double().numpy()))
    torch.testing.assert_close(own.decode(noise), own.peak * expected.float(), atol=1e-4, rtol=1e-5)


def test_a_high_tone_is_raised_and_a_low_one_lowered() -> None:
    time = torch.arange(8000) / 8000
    low, high = (torch.sin(2 * torch.pi * pitch * time)[None, None] for pitch in (100, 3900))
    own = Preemphasis(coefficient=0.95)
    # |1 - c exp(-i w)|
    assert own.encode(low)[..., 1:].std() / low.std() == pytest.approx(0.0917, abs=1e-3)
    assert own.encode(high)[..., 1:].std() / high.std() == pytest.approx(1.9485, abs=1e-3)


def test_silent_data_are_not_divided_by_nothing() -> None:
    own = Preemphasis()
    own.measure([torch.zeros(2, 1, 64)])
    assert torch.equal(own.encode(torch.zeros(1, 1, 64)), torch.zeros(1, 1, 64))


def test_it_is_of_sound_and_says_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="representation=preemphasis is for sound"):
        Preemphasis().check(image_spec(channels=1, image_size=(8, 8)))
    for coefficient in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match=f"coefficient={coefficient}"):
            Preemphasis(coefficient=coefficient)


def test_it_is_built_again_from_its_arguments() -> None:
    own = Preemphasis(coefficient=0.9)
    spec = SampleSpec(kind=Audio(rate=8000), shape=(1, 4096), representation=own)
    again = SampleSpec.from_dict(spec.as_dict(), origin=Path("config.yaml"))
    assert again.representation.arguments == {"coefficient": 0.9}
    assert set(own.state_dict()) == {"peak"}
    assert again.encoded_shape == (1, 4096)
