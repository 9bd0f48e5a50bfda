from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import leaky_relu
from torch.testing import assert_close

from gan_lab.models.stylegan3 import FilteredLeakyReLU, lowpass
from tests.helpers.resampling import resample


def build(
    up: int, down: int, radial: bool, size: int, out_size: int, clamp: float | None = 0.8
) -> FilteredLeakyReLU:
    return FilteredLeakyReLU(
        up=up,
        up_filter=lowpass(num_taps=6 * up, cutoff=4, width=8, rate=8 * up),
        down=down,
        down_filter=lowpass(num_taps=6 * down, cutoff=4, width=8, rate=8 * down, radial=radial),
        size=size,
        out_size=out_size,
        clamp=clamp,
    )


@pytest.mark.parametrize("radial", [False, True])
@pytest.mark.parametrize(
    ("up", "down", "size", "out_size"),
    [(2, 2, 12, 10), (4, 2, 12, 20), (2, 2, 10, 10), (2, 2, 20, 8)],
)
def test_it_matches_its_definition(
    up: int, down: int, size: int, out_size: int, radial: bool
) -> None:
    torch.manual_seed(0)
    layer = build(up, down, radial, size, out_size)
    x = torch.randn(2, 3, size, size)
    kernel = torch.outer(layer.up_filter, layer.up_filter)
    back = layer.down_filter
    back = back if radial else torch.outer(back, back)
    # as much of the upsampled image, centered, as gives out_size pixels
    total = (out_size - 1) * down + len(back) - size * up + len(kernel) - 1
    margins = ((total + up) // 2, total - (total + up) // 2)
    y = resample_any(x, kernel, up, margins)
    y = leaky_relu(y, 0.2).clamp(-0.8, 0.8)
    expected = resample(y, back, down=down)
    assert expected.shape[2:] == (out_size, out_size)
    assert_close(layer(x), expected)


def resample_any(
    x: torch.Tensor, kernel: torch.Tensor, up: int, margins: tuple[int, int]
) -> torch.Tensor:
    """Margins may be negative: then pixels are cut off."""
    wide = resample(x, kernel, up=up, margins=tuple(max(m, 0) + 40 for m in margins))
    cut = [40 + max(m, 0) - m for m in margins]
    return wide[:, :, cut[0] : wide.shape[2] - cut[1], cut[0] : wide.shape[3] - cut[1]]


@pytest.mark.parametrize("radial", [False, True])
def test_gradients(radial: bool, check_gradients: Callable[..., None]) -> None:
    torch.manual_seed(0)
    check_gradients(build(2, 2, radial, 4, 3), torch.randn(1, 1, 4, 4))
