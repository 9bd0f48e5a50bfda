"""Small untrained generators."""

import torch
from torch import nn

from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.models import biggan, stylegan, stylegan2, stylegan3
from gan_lab.sampling.gan import Gan

STYLES = {"z_dim": 8, "w_dim": 8, "mapping_layers": 2, "channel_base": 256}


def prepared(generator: GeneratorNetwork) -> Gan:
    """Give the running mean of w and the strength of noise values that count."""
    for name, parameter in [*generator.named_parameters(), *generator.named_buffers()]:
        if name.endswith("noise_strength"):
            nn.init.constant_(parameter, 0.5)
        if name.endswith("mapping.w_avg"):
            nn.init.normal_(parameter)
    return Gan(generator.eval().requires_grad_(False))


def style_gan(classes: int = 3, size: int = 32) -> Gan:
    torch.manual_seed(0)
    made = stylegan.Generator(
        image_size=size, channels=1, num_classes=classes, channel_max=8, growing=False, **STYLES
    )
    return prepared(made)


def style_gan2(classes: int = 3, size: int = 32) -> Gan:
    torch.manual_seed(0)
    made = stylegan2.Generator(
        image_size=size, channels=1, num_classes=classes, channel_max=8, **STYLES
    )
    return prepared(made)


def style_gan3(classes: int = 3, size: int = 16) -> Gan:
    torch.manual_seed(0)
    made = stylegan3.Generator(
        image_size=size,
        channels=1,
        num_classes=classes,
        channel_max=8,
        num_layers=6,
        margin=4,
        **STYLES,
    )
    return prepared(made)


def big_gan(classes: int = 3, size: int = 16) -> Gan:
    torch.manual_seed(0)
    made = biggan.Generator(
        image_size=size, channels=1, num_classes=classes, z_dim=12, shared_dim=4, width=4
    )
    return prepared(made)
