from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from gan_lab.layers.stylegan import Mapping, mix_styles, replace_styles


def mapping(num_classes: int = 0) -> Mapping:
    torch.manual_seed(0)
    return Mapping(z_dim=6, num_classes=num_classes, w_dim=5, num_layers=2, num_ws=4).eval()


def test_one_style_for_every_layer_and_the_length_of_z_does_not_matter() -> None:
    network, z = mapping(), torch.randn(3, 6)
    w = network(z)
    assert w.shape == (3, 4, 5)
    assert_close(w, w[:, :1].expand(-1, 4, -1))
    assert_close(network(z * 7), w)


def test_truncation_moves_towards_the_mean() -> None:
    network, z = mapping(), torch.randn(3, 6)
    network.w_avg.normal_()
    w = network(z)
    assert_close(network(z, truncation=0.3), network.w_avg + 0.3 * (w - network.w_avg))
    some = network(z, truncation=0.0, truncated_layers=1)
    assert_close(some[:, 0], network.w_avg.expand(3, -1))
    assert_close(some[:, 1:], w[:, 1:])


def test_the_mean_of_w_is_updated_in_training_only() -> None:
    network = mapping()
    z = torch.randn(512, 6)
    mean = network(z)[:, 0].mean(0)
    assert network.w_avg.abs().max() == 0
    network.train()(z)
    assert_close(network.w_avg, mean * 0.002, rtol=1e-3, atol=1e-6)
    for _ in range(3000):
        network(z)
    assert_close(network.w_avg, mean, rtol=0.01, atol=1e-3)


def test_mixed_styles_do_not_change_the_mean() -> None:
    network, z = mapping(), torch.randn(3, 6)
    w = network(z)
    assert_close(network.train().styles(z), w)
    assert network.w_avg.abs().max() == 0


def test_labels_are_integers_or_vectors() -> None:
    network, z = mapping(num_classes=3), torch.randn(2, 6)
    by_number = network(z, torch.tensor([2, 0]))
    assert_close(by_number, network(z, torch.eye(3)[[2, 0]]))
    assert not torch.allclose(by_number, network(z, torch.tensor([1, 1])))
    with pytest.raises(ValueError, match="no labels"):
        network(z)


def test_styles_are_replaced_by_layer() -> None:
    w, other = torch.zeros(2, 4, 5), torch.ones(2, 4, 5)
    mixed = replace_styles(w, other, range(1, 3))
    assert mixed[:, :, 0].tolist() == [[0, 1, 1, 0]] * 2


def test_styles_cross_over_at_a_random_layer_of_each_image() -> None:
    torch.manual_seed(0)
    w, other = torch.zeros(4000, 4, 2), torch.ones(4000, 4, 2)
    mixed = mix_styles(w, other, 0.9)[:, :, 0]
    starts = 4 - mixed.sum(1)
    assert (mixed[:, 0] == 0).all() and (mixed.diff(dim=1) >= 0).all()
    shares = torch.bincount(starts.long(), minlength=5) / 4000
    assert_close(shares, torch.tensor([0, 0.3, 0.3, 0.3, 0.1]), atol=0.03, rtol=0)
    assert mix_styles(w, other, 0.0).sum() == 0


def test_gradients(check_gradients: Callable[..., None]) -> None:
    torch.manual_seed(0)
    network = Mapping(z_dim=3, num_classes=2, w_dim=3, num_layers=2, num_ws=None, lr_multiplier=1.0)

    class WithLabels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, z: Tensor) -> Tensor:
            return self.network(z, torch.tensor([0, 1]))

    check_gradients(WithLabels(), torch.randn(2, 3))
