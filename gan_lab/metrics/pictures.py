"""What figures have found, as pictures."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gan_lab.images import grid
from gan_lab.metrics.images import ImageSource


def nearest_pairs(
    pairs: Sequence[Mapping[str, float]], fake: ImageSource, real: ImageSource
) -> Tensor:
    """Return one image [C, H, W]: generated images above, below each its nearest real one.

    Args:
        pairs: of image numbers, "generated" and "real".
        fake: of images of the same size as `real`'s, or cut to what both have.
        real: the real images.
    """
    above = torch.cat([_image(fake, int(pair["generated"])) for pair in pairs])
    below = torch.cat([_image(real, int(pair["real"])) for pair in pairs])
    height, width = (min(a, b) for a, b in zip(above.shape[2:], below.shape[2:], strict=True))
    rows = torch.cat([rows[:, :, :height, :width] for rows in (above, below)])
    return grid(rows, columns=len(pairs))


def _image(source: ImageSource, index: int) -> Tensor:
    image = source.read(index, index + 1).cpu()
    return image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image[:, :3]
