"""Sampling by counting: what is shown at position p is a function of p, so a position is all there is to save."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from gan_lab.errors import InputError


def permutation(num_items: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Order of the items in one epoch, int64 [num_items]; any epoch costs the same."""
    return np.random.default_rng((seed, epoch)).permutation(num_items)


class CountingBatchSampler(Sampler[list[int]]):
    """Batches of item numbers from a position on, until `total_images` are reached.

    Position p shows item perm_{seed, p // n}[p % n]; batches run across the ends of epochs. One yielded batch is what
    one rank needs for one iteration, `batches` consecutive global batches of `batch_size` images: of each, rank r of R
    has the r-th of R contiguous parts. So each global batch holds the same images whatever the number of ranks.

    There is no `__len__`: no epoch ends here.

    Args:
        num_items: n, the length of the dataset.
        batch_size: images of one global batch, over all ranks.
        batches: global batches for each that is yielded (D steps).
        total_images: where to stop; the last batch may pass it.
        seed: at least 0.
        start: position of the first image.
        rank: of this process.
        world_size: number of ranks.

    Raises:
        InputError: when the ranks cannot share a batch evenly, or a count is out of range.
    """

    def __init__(
        self,
        *,
        num_items: int,
        batch_size: int,
        total_images: int,
        seed: int,
        batches: int = 1,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_batch(batch_size=batch_size, batches=batches, world_size=world_size)
        if seed < 0:
            raise InputError(f"seed={seed} is negative; set seed=0 or more")
        assert num_items > 0 and start >= 0 and 0 <= rank < world_size
        self._num_items = num_items
        self._batch_size = batch_size
        self._batches = batches
        self._total_images = total_images
        self._seed = seed
        self._start = start
        self._part = slice(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def items(self, position: int, count: int) -> NDArray[np.int64]:
        """Item numbers of the positions [position, position + count), int64 [count]."""
        pieces = []
        while count > 0:
            epoch, offset = divmod(position, self._num_items)
            if epoch != self._epoch:
                self._epoch, self._order = epoch, permutation(self._num_items, self._seed, epoch)
            piece = self._order[offset : offset + count]
            pieces.append(piece)
            position += len(piece)
            count -= len(piece)
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of this rank, as lists of item numbers."""
        step = self._batch_size * self._batches
        for position in range(self._start, self._total_images, step):
            shown = self.items(position, step).reshape(self._batches, self._batch_size)
            yield shown[:, self._part].reshape(-1).tolist()


def check_batch(*, batch_size: int, batches: int, world_size: int) -> None:
    """Raise InputError, with the remedy, when a batch is empty or cannot be shared evenly by the ranks."""
    if batch_size < 1 or batches < 1:
        raise InputError(f"batch_size={batch_size} and d_steps={batches} must both be at least 1")
    if batch_size % world_size:
        lower = batch_size - batch_size % world_size
        nearest = f"{lower} or {lower + world_size}" if lower else str(world_size)
        raise InputError(
            f"batch_size={batch_size} cannot be shared evenly by {world_size} processes (one a device); "
            f"set batch_size={nearest}, or another number of devices"
        )
