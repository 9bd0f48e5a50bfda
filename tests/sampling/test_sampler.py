"""Truncation and standing statistics."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gan_lab.errors import InputError
from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.models import biggan, progan, r3gan, stylegan2
from gan_lab.sampling.gan import Gan
from gan_lab.sampling.latents import Latents, redraw_beyond
from gan_lab.sampling.sampler import STATISTICS_BATCH
from tests.helpers.generators import gan_of

IMAGES = {"image_size": 8, "channels": 1, "num_classes": 3}


def of_z() -> Gan:
    torch.manual_seed(0)
    return Gan(biggan.Generator(**IMAGES, z_dim=32, shared_dim=4, width=4).eval())


def of_w() -> Gan:
    torch.manual_seed(0)
    arguments = {"z_dim": 8, "w_dim": 8, "mapping_layers": 2, "channel_base": 64}
    generator = stylegan2.Generator(**IMAGES, **arguments, channel_max=8)
    nn.init.normal_(generator.mapping.w_avg)
    return Gan(generator.eval())


def test_components_beyond_are_drawn_again_and_no_others() -> None:
    gan = of_z()
    free, held = gan.latents(200).values, gan.latents(200, truncation=0.8).values
    beyond = free.abs() > 0.8
    assert 0.3 < beyond.float().mean() < 0.55  # 2 (1 - Phi(0.8)) = 0.424
    assert torch.equal(held[~beyond], free[~beyond])
    assert held.abs().max() <= 0.8
    assert not torch.equal(held[beyond], free[beyond])


@pytest.mark.parametrize("threshold", [0.1, 0.5, 2.0, 6.0])
def test_they_follow_the_truncated_normal_distribution(threshold: float) -> None:
    """Against drawing until all lie within, and the variance of the truncated normal."""
    torch.manual_seed(0)
    count = 400_000
    z = redraw_beyond(torch.randn(count), torch.rand(count, dtype=torch.float64), threshold)
    until = torch.randn(count)
    while (outside := until.abs() > threshold).any():
        until = until.where(~outside, torch.randn(count))
    shares = torch.linspace(0.05, 0.95, 19)
    assert_close(z.quantile(shares), until.quantile(shares), atol=0.01 * threshold, rtol=0)
    limit = torch.tensor(threshold, dtype=torch.float64)
    density = (-limit.square() / 2).exp() / (2 * torch.pi) ** 0.5
    variance = 1 - 2 * limit * density / (2 * torch.special.ndtr(limit) - 1)
    assert_close(z.double().var(), variance, rtol=0.01, atol=0)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize(("make", "truncation"), [(of_z, 0.5), (of_w, 0.7)])
def test_an_image_depends_on_seed_index_label_and_truncation_alone(
    make: type[Gan], truncation: float, batch_size: int
) -> None:
    gan = make()
    whole = gan.sample(20, seed=3, truncation=truncation)
    part = gan.sample(9, seed=3, batch_size=batch_size, truncation=truncation)
    assert_close(whole[:9] * 1, part * 1, atol=1e-5, rtol=0)
    for other in (None, truncation / 2):
        assert not torch.equal(whole, gan.sample(20, seed=3, truncation=other))
    assert not torch.equal(whole, gan.sample(20, seed=4, truncation=truncation))


def test_a_threshold_that_nothing_exceeds_changes_nothing() -> None:
    gan = of_z()
    assert torch.equal(gan.sample(20, truncation=9.0), gan.sample(20))


def test_psi_moves_styles_towards_their_mean() -> None:
    gan = of_w()
    generator = gan.generator
    assert isinstance(generator, stylegan2.Generator)
    assert torch.equal(gan.sample(5, truncation=1.0), gan.sample(5))
    z, labels = gan.latents(5, space="z").values, torch.tensor([0, 1, 2, 0, 1])
    with torch.no_grad():
        mean = generator.mapping.w_avg
        w = mean + 0.3 * (generator.mapping(z, labels) - mean)
        expected = generator.synthesis(w, noise="const")
    assert_close(gan.sample(5, labels=labels, truncation=0.3), expected, atol=1e-5, rtol=1e-5)
    at_the_mean = gan.sample(5, truncation=0.0)
    assert torch.equal(at_the_mean, at_the_mean[:1].expand(5, -1, -1, -1))


def test_less_variety() -> None:
    gan = of_z()
    spread = [
        float(gan.sample(64, labels=0, truncation=t).std(dim=0).mean()) for t in (0.05, 0.5, 2.0)
    ]
    assert spread[0] < 0.3 * spread[1] < 0.3 * spread[2]


def test_meaningless_options_are_rejected() -> None:
    sphere = Gan(progan.Generator(**IMAGES, z_dim=4, channel_base=64, channel_max=8).eval())
    for gan, truncation, message in (
        (sphere, 0.5, "truncation=0.5 is not for progan"),
        (of_z(), 0.0, "truncation=0.0: of biggan it is the threshold"),
        (of_z(), -1, "give a positive number"),
        (of_z(), float("nan"), "must be finite"),
        (of_w(), "0.5", "must be a number"),
    ):
        with pytest.raises(InputError, match=message):
            gan.sample(2, truncation=truncation)  # type: ignore[arg-type]
    assert sphere.sample(2).shape == (2, 1, 8, 8)


def measured(gan: Gan, count: int, truncation: float | None) -> tuple[list[torch.Tensor], Gan]:
    """What reaches the last batch norm, batch by batch, and the object with the new statistics."""
    inputs: list[torch.Tensor] = []
    last = gan.generator.get_submodule("norm")
    hook = last.register_forward_hook(lambda module, given, output: inputs.append(given[0]))
    gan.measure_statistics(count, seed=5, truncation=truncation)
    hook.remove()
    return inputs, gan


@pytest.mark.parametrize("truncation", [None, 0.3])
def test_statistics_are_the_means_over_batches(truncation: float | None) -> None:
    inputs, gan = measured(of_z(), 3 * STATISTICS_BATCH, truncation)
    assert [len(x) for x in inputs] == [STATISTICS_BATCH] * 3
    norm = gan.generator.get_submodule("norm")
    assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0))
    assert_close(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0))
    assert not gan.generator.training


def test_statistics_of_one_batch_by_hand() -> None:
    """After one batch, an image of it is what training mode makes of the whole batch."""
    gan = of_z()
    assert isinstance(gan.generator, biggan.Generator)
    trained = deepcopy(gan.generator)
    for layer in trained.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.train()
    inputs: list[tuple[torch.Tensor, ...]] = []
    hook = gan.generator.register_forward_pre_hook(lambda module, given: inputs.append(given))
    gan.measure_statistics(40)
    hook.remove()
    ((z, labels),) = inputs
    assert z.shape == (40, 32)
    with torch.no_grad():
        expected = trained(z, labels)
    # running variances are unbiased: n / (n - 1) of the batch's own, the smallest n being 40 * 4 * 4
    assert_close(gan.synthesize(Latents(z=z, labels=labels)), expected, atol=5e-3, rtol=0)


def test_statistics_follow_truncation_and_the_seed_alone() -> None:
    def mean(count: int = 64, **settings: float) -> torch.Tensor:
        return of_z().measure_statistics(count, **settings).generator.norm.running_mean

    assert torch.equal(mean(seed=1), mean(seed=1))
    assert not torch.equal(mean(seed=1), mean(seed=2))
    assert not torch.equal(mean(truncation=0.2), mean())
    assert not torch.equal(mean(128), mean())
    # the latents of no image
    own, images = [], of_z().latents(64).values
    gan = of_z()
    gan.generator.register_forward_pre_hook(lambda module, given: own.append(given[0]))
    gan.measure_statistics(64)
    assert not torch.isin(own[0], images).any()


def test_statistics_unknown() -> None:
    plain: GeneratorNetwork = r3gan.Generator(**IMAGES, widths=8, cardinalities=2, blocks=1)
    with pytest.raises(InputError, match="leave them out"):
        Gan(plain).measure_statistics(64)
    with pytest.raises(InputError, match="standing_statistics=1 must be at least 2"):
        of_z().measure_statistics(1)


def test_classes_by_name_and_what_is_no_number() -> None:
    gan = gan_of("dcgan", classes=3)
    zero, one, two = gan.class_names
    for names, indices in ((one, 1), ([two, zero], [2, 0])):
        assert_close(gan.sample(2, labels=names) * 1, gan.sample(2, labels=indices) * 1)
    with pytest.raises(InputError, match=rf"'kind 7'.*{zero}, {one}, {two}"):
        gan.sample(2, labels="kind 7")
    with pytest.raises(InputError, match="num_images='3'"):
        gan.sample("3")  # type: ignore[arg-type]
