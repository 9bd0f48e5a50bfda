"""Second derivatives of the blocks of ProGAN and StyleGAN that penalties differentiate twice."""

from collections.abc import Callable

import torch
from torch import nn

from gan_lab.models.progan import Discriminator, GeneratorBlock
from gan_lab.models.stylegan import SynthesisBlock


def test_pixel_norm_behind_convolutions(check_gradients: Callable[..., None]) -> None:
    torch.manual_seed(0)
    check_gradients(GeneratorBlock(inputs=1, outputs=2), torch.randn(1, 1, 2, 2))


def test_a_discriminator_inside_a_fade(check_gradients: Callable[..., None]) -> None:
    torch.manual_seed(0)
    network = Discriminator(image_size=8, channels=1, channel_base=8, channel_max=1, filtered=True)
    network.stage.value = 0.3
    check_gradients(network, torch.randn(2, 1, 8, 8))


def test_a_block_with_noise_and_styles(check_gradients: Callable[..., None]) -> None:
    """Path lengths differentiate the synthesis network twice."""
    torch.manual_seed(0)
    block = SynthesisBlock(inputs=1, outputs=2, w_dim=2, shape=(4, 4))
    nn.init.constant_(block.style0.noise_strength, 0.3)
    check_gradients(block, torch.randn(1, 1, 2, 2), torch.randn(1, 2, 2), noise="const")
