"""Random noise as images, to measure the speed of a model without data."""

from math import prod

import torch
from torch import Tensor

from gan_lab.data.base import SPLITS, ImageDataset, check_split, digest
from gan_lab.data.transform import ImageSize, check_options, parse_size
from gan_lab.errors import InputError
from gan_lab.seeding import derive_seed


class RandomImages(ImageDataset):
    """Images of independent uniform noise, each drawn from its index when it is asked for; nothing is kept.

    Args:
        split: "train" or "val", which differ.
        image_size: as one number or [H, W].
        channels: 1, 3 or 4.
        num_classes: the labels go round; 1 for images without classes.
        num_images: of each split.
        flip: append the mirror images.

    Raises:
        InputError: for options out of range.
    """

    in_memory = True  # an image costs less than it would to send it from another process

    def __init__(
        self,
        *,
        split: str,
        image_size: ImageSize = 64,
        channels: int | None = 3,
        num_classes: int = 1,
        num_images: int = 10000,
        flip: bool = False,
    ) -> None:
        check_split(split)
        check_options("box", channels)
        size = parse_size(image_size)
        if size is None or channels is None:
            raise InputError(
                f"data.image_size={image_size}, data.channels={channels}: noise has no shape of its own; give both, "
                "such as 64 and 3"
            )
        if not 1 <= num_classes <= num_images:
            raise InputError(
                f"data.num_classes={num_classes}, data.num_images={num_images}: there must be one class or more and "
                "an image of each"
            )
        super().__init__(
            split=split,
            image_size=size,
            channels=channels,
            class_names=[str(i) for i in range(num_classes)] if num_classes > 1 else ["all"],
            labels=(torch.arange(num_images) % num_classes).numpy(),
            flip=flip,
        )

    @property
    def fingerprint(self) -> str:
        """Digest of everything that the images follow from."""
        return digest(self.split, self.image_size, self.channels, self.num_classes, len(self))

    def load(self, index: int) -> Tensor:
        """Stored image `index` as uint8 [C, H, W]."""
        shape = (self.channels, *self.image_size)
        drawn = torch.Generator().manual_seed(derive_seed(SPLITS.index(self.split), index))
        # eight bytes of one draw are eight pixels
        words = torch.empty(-(-prod(shape) // 8), dtype=torch.int64)
        words.random_(-(2**63), None, generator=drawn)
        return words.view(torch.uint8)[: prod(shape)].view(shape)
