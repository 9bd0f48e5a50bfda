from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gan_lab.models.stylegan3 import FourierFeatures


def features(**settings: float) -> FourierFeatures:
    torch.manual_seed(0)
    arguments = {"features": 6, "size": 12, "rate": 8.0, "bandwidth": 2.0, "w_dim": 3}
    return FourierFeatures(**{**arguments, **settings})


def test_frequencies_fill_the_disc_below_the_bandwidth_evenly() -> None:
    radii = features(features=4000).freqs.norm(dim=1)
    assert radii.max() <= 2
    # an even disc has a quarter of its area within half its radius
    assert (radii < 1).float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_it_samples_the_same_plane_at_any_margin() -> None:
    wide = features()
    narrow = features(size=8)
    narrow.load_state_dict(wide.state_dict())
    w = torch.randn(2, 3)
    assert_close(wide(w)[:, :, 2:-2, 2:-2], narrow(w), atol=1e-5, rtol=1e-5)


class NothingFromTheHost(TorchDispatchMode):
    """Refuses operations on tensors of the CPU: what is made of them would be copied, and the host wait for it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        assert all(x.device.type == "meta" for x in tensors), func
        return func(*args, **(kwargs or {}))


def test_a_pass_does_not_synchronize() -> None:
    layer = FourierFeatures(features=3, size=6, rate=4, bandwidth=1.0, w_dim=2).to("meta")
    with NothingFromTheHost():
        made = layer(torch.empty(2, 2, device="meta"))
    assert made.shape == (2, 3, 6, 6) and made.device.type == "meta"


def test_a_transform_moves_the_plane() -> None:
    layer, w = features(), torch.randn(2, 3)
    shift = torch.eye(3)
    shift[0, 2] = 1 / 8  # one pixel to the right
    assert_close(layer(w, shift)[..., :-1], layer(w)[..., 1:], atol=1e-5, rtol=1e-5)
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert_close(layer(w, quarter), layer(w).rot90(1, (2, 3)), atol=1e-5, rtol=1e-5)


def test_a_style_rotates_and_translates_in_proportion_to_its_length() -> None:
    layer = features()
    torch.nn.init.zeros_(layer.affine.weight)
    layer.affine.bias.data = torch.tensor([0.0, 2.0, 1.0, 0.0])
    (motion,) = layer.motion(torch.randn(1, 3))
    # turned by 90 degrees, after a shift by half an image
    point = torch.tensor([0.25, 0.0, 1.0])
    assert_close(motion @ point, torch.tensor([0.0, -0.25, 1.0]))


def test_frequencies_that_would_alias_fade_out() -> None:
    layer, w = features(), torch.randn(1, 3)
    shrink = torch.diag(torch.tensor([40.0, 40.0, 1.0]))
    layer.freqs.div_(layer.freqs.norm(dim=1, keepdim=True))  # all at 1: 40 is past 4
    assert layer(w, shrink).abs().max() == 0


def test_gradients(check_gradients: Callable[..., None]) -> None:
    layer = features(features=2, size=3)
    torch.nn.init.normal_(layer.affine.weight, std=0.3)
    check_gradients(layer, torch.randn(1, 3))
