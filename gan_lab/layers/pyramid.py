"""Which resolutions a convolutional network passes through for a given image."""

from collections.abc import Sequence

from gan_lab.errors import InputError

ImageSize = int | Sequence[int]


def image_shape(image_size: ImageSize) -> tuple[int, int]:
    """Return (height, width) from one number or a pair.

    Raises:
        InputError: when a side is not positive or there are not two of them.
    """
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or min(sides) < 1:
        raise InputError(f"image_size={image_size} must be one positive number or [height, width]")
    return int(sides[0]), int(sides[1])


def resolution_pyramid(image_size: ImageSize, *, base: int = 4) -> tuple[tuple[int, int], int]:
    """Halve an image until its shorter side is less than twice `base`.

    Args:
        image_size: side, or [height, width].
        base: smallest side that the network starts from.

    Returns:
        (height, width) of the smallest resolution and the number of halvings that lead to it.

    Raises:
        InputError: when a side becomes odd too early, or the image is smaller than `base`.
    """
    height, width = image_shape(image_size)
    count = 0
    while min(height, width) >= 2 * base and height % 2 == width % 2 == 0:
        height, width, count = height // 2, width // 2, count + 1
    if not base <= min(height, width) < 2 * base:
        raise InputError(_explain(image_size, base))
    return (height, width), count


def _explain(image_size: ImageSize, base: int) -> str:
    short = min(image_shape(image_size))
    sizes = sorted(start << count for start in range(base, 2 * base) for count in range(11))
    below = max((s for s in sizes if s <= short), default=sizes[0])
    above = min((s for s in sizes if s >= short), default=sizes[-1])
    near = " or ".join(str(s) for s in sorted({below, above}))
    return (
        f"image_size={image_size}: both sides must be halved evenly until the shorter one is {base} to "
        f"{2 * base - 1} pixels; set data.image_size={near}"
    )
