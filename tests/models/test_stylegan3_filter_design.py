import pytest
import torch
from scipy.signal import firwin
from torch.testing import assert_close

from gan_lab.models.stylegan3 import lowpass


@pytest.mark.parametrize(
    ("taps", "cutoff", "width"), [(12, 2.0, 12.0), (24, 8.0, 17.0), (48, 3, 9)]
)
def test_separable_filters_are_scipys(taps: int, cutoff: float, width: float) -> None:
    ours = lowpass(num_taps=taps, cutoff=cutoff, width=width, rate=64)
    theirs = firwin(taps, cutoff=cutoff, width=width, fs=64)
    assert_close(ours, torch.from_numpy(theirs))


def test_amplitude_is_one_then_half_then_almost_none() -> None:
    taps = lowpass(num_taps=64, cutoff=8.0, width=8.0, rate=64)
    frequencies = torch.tensor([0.0, 4.0, 8.0, 12.0, 20.0, 32.0], dtype=torch.float64)
    times = torch.arange(64, dtype=torch.float64) / 64
    waves = torch.exp(-2j * torch.pi * frequencies[:, None] * times)
    amplitude = (waves * taps).sum(1).abs()
    assert_close(amplitude[:3], torch.tensor([1, 1, 0.5]).double(), atol=0.01, rtol=0)
    assert amplitude[3:].max() < 0.01


def test_a_radial_filter_is_the_same_in_all_directions() -> None:
    kernel = lowpass(num_taps=24, cutoff=8.0, width=16.0, rate=64, radial=True)
    assert_close(kernel.sum(), torch.tensor(1.0).double())
    assert_close(kernel, kernel.T)
    spectrum = torch.fft.fftshift(torch.fft.fft2(kernel, s=(64, 64))).abs()
    # (6, 8) and (0, 10) are both 10 from the center
    assert_close(spectrum[32 + 6, 32 + 8], spectrum[32, 32 + 10], atol=0.02, rtol=0)
    separable = lowpass(num_taps=24, cutoff=8.0, width=16.0, rate=64)
    other = torch.fft.fftshift(torch.fft.fft2(torch.outer(separable, separable), s=(64, 64))).abs()
    assert abs(other[32 + 6, 32 + 8] - other[32, 32 + 10]) > 0.02


def test_one_tap_changes_nothing() -> None:
    assert lowpass(num_taps=1, cutoff=8.0, width=1.0, rate=64).tolist() == [1.0]
