from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from gan_lab.errors import InputError
from gan_lab.layers.equalized import MinibatchStddev


def test_it_measures_how_much_a_group_varies() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 6, 3, 3)
    y = MinibatchStddev(group_size=2)(x)
    assert_close(y[:, :6], x)
    for i in (0, 1):  # images i and i + 2 are together
        expected = x[[i, i + 2]].std(0, correction=0).mean()
        assert_close(y[[i, i + 2], 6], expected.expand(2, 3, 3), atol=1e-4, rtol=1e-4)


def test_equal_images_have_none() -> None:
    assert MinibatchStddev()(torch.randn(1, 2, 3, 3).expand(4, -1, -1, -1))[:, 2].max() < 1e-3


@pytest.mark.parametrize(("count", "group"), [(6, 3), (5, 1), (3, 3), (8, 4)])
def test_groups_divide_the_batch(count: int, group: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(count, 2, 3, 3)
    given, exact = MinibatchStddev(group_size=4), MinibatchStddev(group_size=group)
    assert_close(given(x), exact(x))


def test_each_channel_has_its_share_of_the_features() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 6, 3, 3)
    y = MinibatchStddev(num_channels=2)(x)
    assert y.shape == (4, 8, 3, 3)
    assert_close(y[:, 6], MinibatchStddev()(x[:, :3])[:, 3])
    assert_close(y[:, 7], MinibatchStddev()(x[:, 3:])[:, 3])


def test_gradients(check_gradients: Callable[..., None]) -> None:
    torch.manual_seed(0)
    check_gradients(MinibatchStddev(group_size=2), torch.randn(4, 2, 2, 2))


@pytest.mark.parametrize("setting", ["group_size", "num_channels"])
def test_less_than_one_is_rejected(setting: str) -> None:
    with pytest.raises(InputError, match="must be at least 1"):
        MinibatchStddev(**{setting: 0})
