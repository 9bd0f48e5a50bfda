"""Every random number is a function of the seed and of what it is for.

Nothing random is saved in a checkpoint: the training step seeds itself from (seed, rank, images seen) and each drawn
image from (seed, its index), so a resumed run and another batch size meet the same numbers.
"""

import numpy as np


def derive_seed(*parts: int) -> int:
    """Mix non-negative integers into one 64-bit seed; different parts give unrelated seeds (numpy's SeedSequence)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])
