import numpy as np
import pytest

from gan_lab.training.augment.pixels import SYM2, SYM6, octave_bands

# as tabulated (Daubechies 1992, table 6.3, with norm 1; also what PyWavelets calls sym6)
TABULATED = [
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
]


def test_sym6_is_the_tabulated_filter():
    np.testing.assert_allclose(SYM6, TABULATED, atol=1e-10)


@pytest.mark.parametrize("taps", [SYM2, SYM6], ids=["sym2", "sym6"])
def test_filters_are_orthogonal_to_their_even_shifts(taps):
    for shift in range(len(taps) // 2):
        product = taps[: len(taps) - 2 * shift] @ taps[2 * shift :]
        assert product == pytest.approx(float(shift == 0), abs=1e-7)


@pytest.mark.parametrize("taps", [SYM2, SYM6], ids=["sym2", "sym6"])
def test_high_pass_has_vanishing_moments(taps):
    tap = np.arange(len(taps))
    for power in range(len(taps) // 2):
        assert ((-1.0) ** tap * tap**power) @ taps == pytest.approx(0, abs=1e-4)


def test_bands_add_up_to_the_image_and_split_at_octaves():
    bands = octave_bands(SYM2, 4)
    middle = bands.shape[1] // 2
    np.testing.assert_allclose(bands.sum(0), np.eye(bands.shape[1])[middle], atol=1e-12)
    np.testing.assert_allclose(bands, bands[:, ::-1], atol=1e-12)  # no phase
    frequencies = np.pi * np.array([1 / 32, 3 / 16, 3 / 8, 3 / 4])  # inside each band
    offsets = np.arange(bands.shape[1]) - middle
    gains = bands @ np.cos(np.outer(offsets, frequencies))
    assert gains.argmax(0).tolist() == [0, 1, 2, 3]
    assert (gains.max(0) > 0.6).all()
