"""The way of a projection, as frames of a video: targets and what was found so far, side by side."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from gan_lab.images import grid, to_uint8

MOST_SHOWN = 8  # pictures in a video
_LARGEST = 256  # pixels in a side of each
_FRAMES = 180  # of a whole way: 6 seconds at 30 a second
_PAIRS_ACROSS = 4


class Recording:
    """Pictures on their way, in 8 bits and of at most 256 pixels a side, the first eight of them.

    Attributes:
        count: of these pictures.
        every: how many steps lie between two frames.

    Args:
        targets: [N, C, H, W] in [-1, 1].
        steps: of the way.
    """

    def __init__(self, targets: Tensor, steps: int) -> None:
        self.every = max(1, steps // _FRAMES)
        self.steps = steps
        self.count = min(len(targets), MOST_SHOWN)
        self._targets = small(targets[: self.count])
        self._frames: dict[int, dict[int, Tensor]] = {}

    def wants(self, step: int) -> bool:
        """Whether to show a step."""
        return step % self.every == 0 or step == self.steps

    def add(self, step: int, first: int, images: Tensor) -> None:
        """Keep the images [n, C, H, W] that pictures `first` to `first + n` have at a step."""
        for i, image in enumerate(small(images), start=first):
            if i < self.count:
                self._frames.setdefault(step, {})[i] = image

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self, *, hold: int = 30) -> Iterator[Tensor]:
        """Yield frames uint8 [C, H', W'], the last one `hold` times more; a picture that is missing stays as it was."""
        current = torch.full_like(self._targets, 255)
        frame = None
        for step in sorted(self._frames):
            for i, image in self._frames[step].items():
                current[i] = image
            pairs = torch.stack([self._targets, current], dim=1).flatten(0, 1)
            frame = grid(pairs, 2 * min(_PAIRS_ACROSS, self.count))
            yield frame
        if frame is not None:
            yield from [frame] * hold


def small(images: Tensor) -> Tensor:
    """Return images as uint8 on the CPU, the longer side at most 256 pixels."""
    longest = max(images.shape[2:])
    if longest > _LARGEST:
        images = interpolate(
            images, scale_factor=_LARGEST / longest, mode="bilinear", antialias=True
        )
    return to_uint8(images.detach()).cpu()
