"""Paths through key points, against their definitions."""

import pytest
import torch
from torch.testing import assert_close

from gan_lab.errors import InputError
from gan_lab.sampling.interpolation import METHODS, Path, slerp

ENDS = [(method, closed, lengths) for method in METHODS for closed in (0, 1) for lengths in (0, 1)]


def points(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("method", "closed", "lengths"), ENDS)
@pytest.mark.parametrize("shape", [(2, 7), (5, 7), (4, 3, 7)])
def test_a_way_passes_through_its_points(
    method: str, closed: bool, lengths: bool, shape: tuple[int, ...]
) -> None:
    keys = points(*shape)
    path = Path(keys, method, bool(closed), bool(lengths))
    assert path.segments == (shape[0] if closed else shape[0] - 1)
    assert_close(path.sample(torch.arange(shape[0], dtype=torch.float64)), keys)
    if closed:
        assert_close(path.sample(torch.tensor([float(shape[0])], dtype=torch.float64))[0], keys[0])
    positions = path.positions(4)
    assert len(positions) == 4 * path.segments + (0 if closed else 1)
    assert_close(path.sample(positions)[::4], keys)


def test_straight_between() -> None:
    keys = points(3, 5)
    at = Path(keys).sample(torch.tensor([0.25, 1.5], dtype=torch.float64))
    assert_close(at, torch.stack([0.75 * keys[0] + 0.25 * keys[1], (keys[1] + keys[2]) / 2]))


def test_on_the_sphere_angles_grow_evenly_and_lengths_stay() -> None:
    keys = torch.nn.functional.normalize(points(2, 50).double(), dim=1) * 3
    path = Path(keys, "spherical")
    at = path.sample(torch.linspace(0, 1, 9, dtype=torch.float64))
    assert_close(at.norm(dim=1), torch.full((9,), 3.0, dtype=torch.float64))
    steps = (at[1:] * at[:-1]).sum(1).div(9).acos()
    assert_close(steps, (keys[0] @ keys[1] / 9).acos().div(8).expand(8))


def test_lengths_between_are_those_of_a_line() -> None:
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    middle = slerp(a, b, 0.5)
    assert_close(middle, 3 * torch.tensor([[0.5**0.5, 0.5**0.5]]))
    assert_close(slerp(a, b, torch.tensor([1.0])), b)


def test_points_in_one_line() -> None:
    """One latent with another class, for one."""
    a = points(3, 8)
    assert_close(slerp(a, a, 0.3), a)
    assert_close(slerp(a, 2 * a, 0.5), 1.5 * a)
    assert slerp(a, -a, 0.4).isfinite().all()


def derivatives(path: Path, place: float, step: float = 1e-3) -> tuple[torch.Tensor, torch.Tensor]:
    at = path.sample(torch.tensor([place, place + step, place + 2 * step], dtype=torch.float64))
    back = path.sample(torch.tensor([place, place + step], dtype=torch.float64) - step)
    velocity = (at[1] - back[0]) / (2 * step)
    acceleration = (at[1] - 2 * at[0] + back[0]) / step**2
    return velocity, acceleration


@pytest.mark.parametrize("lengths", [False, True])
def test_a_closed_spline_has_no_seam_and_no_corners(lengths: bool) -> None:
    """C2: velocity and acceleration before a key point are those behind it, and the end's those of the beginning."""
    path = Path(points(4, 6).double(), "spline", closed=True, lengths=lengths)
    step = 1e-4
    for before, behind in ((1 - step, 1 + step), (3 - step, 3 + step), (4 - 2 * step, 2 * step)):
        for one, other in zip(
            derivatives(path, before, step / 2), derivatives(path, behind, step / 2), strict=True
        ):
            assert_close(one, other, atol=2e-2, rtol=0)
    # the same would fail of straight lines
    line = Path(points(4, 6).double(), "linear", closed=True)
    first, second = (
        derivatives(line, 1 - step, step / 2)[0],
        derivatives(line, 1 + step, step / 2)[0],
    )
    assert (first - second).abs().max() > 0.5


def test_a_spline_of_directions_is_as_long_as_its_points() -> None:
    """A spline through Gaussian latents comes as near to 0 as a straight line does."""
    keys = points(6, 512).double()
    positions = torch.linspace(0, 6, 61, dtype=torch.float64)
    plain = Path(keys, "spline", closed=True).sample(positions).norm(dim=1)
    kept = Path(keys, "spline", closed=True, lengths=True).sample(positions).norm(dim=1)
    low, high = keys.norm(dim=1).aminmax()
    assert plain.min() < 0.9 * low
    assert (0.97 * low < kept).all() and (kept < 1.03 * high).all()


def test_an_open_spline_of_two_points_is_a_line() -> None:
    keys = points(2, 5).double()
    positions = torch.linspace(0, 1, 7, dtype=torch.float64)
    assert_close(Path(keys, "spline").sample(positions), Path(keys).sample(positions))


def test_what_there_is_not() -> None:
    with pytest.raises(InputError, match="must be one of linear, spherical, spline"):
        Path(points(3, 2), "cubic")
    with pytest.raises(InputError, match="two key points or more"):
        Path(points(1, 2))
    with pytest.raises(InputError, match="frames=0"):
        Path(points(3, 2)).positions(0)
