"""Lines of text as sets of n-grams: how far two sets of lines are apart, and chains that make lines of their own."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]  # characters by their number in an alphabet, lines [N, L]


class NgramModel:
    """Frequencies of the n-grams of a set of lines; an n-gram lies within a line.

    Args:
        lines: numbers of characters [N, L], L at least n.
        n: characters.

    Attributes:
        counts: of each distinct n-gram.
    """

    def __init__(self, lines: Numbers, n: int) -> None:
        self._base = int(lines.max()) + 1
        self._levels: list[Numbers] = []  # keys of the distinct k-grams, k = 1 ... n, sorted
        ranks = np.zeros_like(lines)
        for k in range(1, n + 1):
            # a k-gram is the number of its beginning and a character, so that no alphabet is too large
            keys = self._keys(ranks, lines[:, k - 1 :])
            level, found, counts = np.unique(keys, return_inverse=True, return_counts=True)
            self._levels.append(level)
            self.counts = counts
            ranks = found.reshape(keys.shape)

    def _keys(self, ranks: Numbers, characters: Numbers) -> Numbers:
        return ranks[:, : characters.shape[1]] * self._base + characters

    def count(self, lines: Numbers) -> tuple[Numbers, int]:
        """Return how often each of the n-grams stands in other lines, and how many others there are in them."""
        ranks, known = np.zeros_like(lines), np.ones(lines.shape, dtype=bool)
        for k, level in enumerate(self._levels):
            characters = lines[:, k:]
            keys = self._keys(ranks, characters)
            known = known[:, : keys.shape[1]] & (characters < self._base)
            ranks = np.minimum(np.searchsorted(level, keys), len(level) - 1)
            known &= level[ranks] == keys
        counts = np.bincount(ranks[known], minlength=len(self.counts))
        return counts, int((~known).sum())


def jensen_shannon(model: NgramModel, lines: Numbers) -> float:
    """Return the Jensen-Shannon divergence between two sets' frequencies of n-grams, in bits: 0 to 1.

    (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2; Lin 1991, equation 4.1, https://doi.org/10.1109/18.61115. The
    n-grams that the model lacks add half of their share.

    Args:
        model: of the one set, p.
        lines: the other one [N, L].
    """
    counts, others = model.count(lines)
    p = model.counts / model.counts.sum()
    q = counts / (counts.sum() + others)
    m = (p + q) / 2
    there = q > 0
    first = (p * np.log2(p / m)).sum()
    second = (q[there] * np.log2(q[there] / m[there])).sum() + (1 - q.sum())
    return float((first + second) / 2)


def distinct_share(lines: Numbers, n: int) -> float:
    """Return distinct n-grams in lines as a share of all (Li et al. 2016, distinct-n, arXiv 1510.03055)."""
    counts = NgramModel(lines, n).counts
    return len(counts) / int(counts.sum())


def unigram_chain(lines: Numbers, count: int, *, seed: int = 0) -> Numbers:
    """Draw lines [count, L] whose characters are independent, each as frequent as in the given lines [N, L]."""
    random = np.random.default_rng(seed)
    return random.choice(lines.reshape(-1), (count, lines.shape[1]))


def bigram_chain(lines: Numbers, count: int, *, seed: int = 0) -> Numbers:
    """Draw lines [count, L] of a Markov chain: each character follows the one before as often as in lines [N, L].

    The next character is the one behind an occurrence that is chosen among all of the last one. The first is one that
    a line begins with; so is the next where nothing follows.
    """
    random = np.random.default_rng(seed)
    before, behind = lines[:, :-1].reshape(-1), lines[:, 1:].reshape(-1)
    successors = behind[np.argsort(before, kind="stable")]
    sizes = np.bincount(before, minlength=int(lines.max()) + 1)
    starts = sizes.cumsum() - sizes
    drawn = np.empty((count, lines.shape[1]), dtype=np.int64)
    drawn[:, 0] = random.choice(lines[:, 0], count)
    for place in range(1, lines.shape[1]):
        last = drawn[:, place - 1]
        chosen = starts[last] + (random.random(count) * sizes[last]).astype(np.int64)
        begin = random.choice(lines[:, 0], count)
        follow = successors[np.minimum(chosen, len(successors) - 1)]
        drawn[:, place] = np.where(sizes[last] > 0, follow, begin)
    return drawn
