"""Standing statistics are means over batches."""

from copy import deepcopy

import pytest
import torch
from torch.testing import assert_close

from gan_lab.errors import InputError
from gan_lab.layers.networks import standing_statistics
from gan_lab.models import biggan, r3gan


@pytest.fixture
def generator() -> biggan.Generator:
    torch.manual_seed(0)
    return biggan.Generator(image_size=8, channels=1, num_classes=3, z_dim=8, width=4).eval()


def test_they_are_means_over_batches_and_nothing_else_changes(generator: biggan.Generator) -> None:
    batches = [(torch.randn(16, 8), torch.randint(3, (16,))) for _ in range(3)]
    before = deepcopy(generator)
    inputs: list[torch.Tensor] = []
    first = generator.blocks[0].norm1.norm
    hook = first.register_forward_hook(lambda module, given, output: inputs.append(given[0]))
    standing_statistics(generator, batches)
    hook.remove()
    assert_close(first.running_mean, torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0))
    assert_close(first.running_var, torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0))
    assert not any(module.training for module in generator.modules())
    assert first.momentum == 0.1
    kept = before.state_dict()
    for name, value in generator.state_dict().items():
        if "running_" not in name and not name.endswith("num_batches_tracked"):
            assert torch.equal(value, kept[name])


def test_one_batch_gives_the_images_of_training_mode(generator: biggan.Generator) -> None:
    z, labels = torch.randn(64, 8), torch.randint(3, (64,))
    trained = deepcopy(generator).train()
    for layer in trained.modules():
        if "SpectralNorm" in type(layer).__name__:
            layer.eval()  # whose vector moves with each use
    with torch.no_grad():
        expected = trained(z, labels)
        assert not torch.allclose(generator(z, labels), expected, atol=0.05)
        images = standing_statistics(generator, [(z, labels)])(z, labels)
    # the running variance is the unbiased one
    assert_close(images, expected, atol=0.02, rtol=0)


def test_generators_without_batch_norm_are_rejected(generator: biggan.Generator) -> None:
    with pytest.raises(InputError, match="at least one batch"):
        standing_statistics(generator, [])
    plain = r3gan.Generator(image_size=8, channels=1, widths=8, cardinalities=2)
    with pytest.raises(InputError, match="leave them out"):
        standing_statistics(plain, [])
