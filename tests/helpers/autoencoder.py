"""A tiny autoencoder of images."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL


def write_autoencoder(folder: Path, *, seed: int = 0) -> Path:
    """Write a tiny autoencoder with random weights."""
    torch.manual_seed(seed)
    network = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=8,
    )
    network.save_pretrained(folder)
    return folder
