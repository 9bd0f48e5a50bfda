"""Metrics of lines of text: n-grams, known words, copied lines, diversity.

References are held-out text, and lines of a unigram and a bigram chain of the training text. All depend on the number
of lines, so all use equally many.
"""

import hashlib
import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gan_lab.data.text import Text
from gan_lab.errors import InputError
from gan_lab.metrics.feature_metrics import MetricContext, MetricValue, ProtocolMetric
from gan_lab.metrics.feature_set import FeatureSet, Needs
from gan_lab.metrics.features import Extractor
from gan_lab.metrics.sources import ImageSource

# n-grams

Numbers = NDArray[np.int64]  # lines [N, L] of indices into an alphabet


class NgramModel:
    """Frequencies of n-grams within lines.

    Args:
        lines: indices of characters [N, L], L at least n.
        n: characters.

    Attributes:
        counts: of each distinct n-gram.
    """

    def __init__(self, lines: Numbers, n: int) -> None:
        self._base = int(lines.max()) + 1
        self._levels: list[Numbers] = []  # keys of the distinct k-grams, k = 1 ... n, sorted
        ranks = np.zeros_like(lines)
        for k in range(1, n + 1):
            # a k-gram is the rank of its (k - 1)-gram and a character, for alphabets of any size
            keys = self._keys(ranks, lines[:, k - 1 :])
            level, found, counts = np.unique(keys, return_inverse=True, return_counts=True)
            self._levels.append(level)
            self.counts = counts
            ranks = found.reshape(keys.shape)

    def _keys(self, ranks: Numbers, characters: Numbers) -> Numbers:
        return ranks[:, : characters.shape[1]] * self._base + characters

    def count(self, lines: Numbers) -> tuple[Numbers, int]:
        """Count the n-grams in other lines; return the counts, and the number of unknown ones."""
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

    (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2; Lin 1991, equation 4.1, https://doi.org/10.1109/18.61115.
    N-grams unknown to the model add half of their share.

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
    """Draw lines [count, L] of independent characters with the frequencies in lines [N, L]."""
    random = np.random.default_rng(seed)
    return random.choice(lines.reshape(-1), (count, lines.shape[1]))


def bigram_chain(lines: Numbers, count: int, *, seed: int = 0) -> Numbers:
    """Draw lines [count, L] of a Markov chain with the bigram frequencies of lines [N, L].

    The next character follows a random occurrence of the last one. The first, and any without a successor, is drawn
    from the first characters of lines.
    """
    random = np.random.default_rng(seed)
    before, behind = lines[:, :-1].reshape(-1), lines[:, 1:].reshape(-1)
    successors = behind[np.argsort(before, kind="stable")]
    sizes = np.bincount(before, minlength=int(lines.max()) + 1)
    starts = sizes.cumsum() - sizes
    drawn = np.empty((count, lines.shape[1]), dtype=np.int64)
    drawn[:, 0] = random.choice(lines[:, 0], count)
    for position in range(1, lines.shape[1]):
        last = drawn[:, position - 1]
        chosen = starts[last] + (random.random(count) * sizes[last]).astype(np.int64)
        begin = random.choice(lines[:, 0], count)
        follow = successors[np.minimum(chosen, len(successors) - 1)]
        drawn[:, position] = np.where(sizes[last] > 0, follow, begin)
    return drawn


# Metrics


_WORD = re.compile(r"[^\W\d_]+")


class TextMetric(ProtocolMetric):
    """A metric of a set of lines, given the training lines.

    Args:
        num_samples: number of lines, the first ones; None for all.
        key: of the metric; None for the default.
    """

    has_references = True

    def __init__(self, *, num_samples: int | None = None, key: str | None = None) -> None:
        super().__init__(output="tokens", key=key)
        self.real: Needs = {"tokens": "features"}
        self.fake: Needs = {"tokens": "features"}
        self.num_samples = num_samples
        self._training: FeatureSet | None = None  # seen by `learn`

    @property
    def settings(self) -> dict[str, Any]:
        return {"num_samples": self.num_samples}

    def key(self, context: MetricContext) -> str:
        number = "" if self.num_samples is None else f"_{self.num_samples}"
        return self._key or f"{self.short}{number}"

    def check(self, context: MetricContext) -> None:
        super().check(context)
        if self.num_samples is not None and context.num_fake < self.num_samples:
            raise InputError(
                f"{self.key(context)} is of {self.num_samples} samples, and num_fake={context.num_fake}; give more, or "
                "leave it out"
            )
        kinds = [one.kind for one in (context.real, context.fake) if one is not None and one.kind]
        for kind in kinds:
            if not isinstance(kind, Text):
                raise InputError(
                    f"{self.key(context)} is of text, and the samples are {kind.name}; choose other metrics"
                )
        if len({kind.alphabet for kind in kinds if isinstance(kind, Text)}) > 1:
            raise InputError(
                f"{self.key(context)} compares text of one alphabet, and the generator's is another than the data's"
            )

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, context: MetricContext
    ) -> list[MetricValue]:
        assert real is not None
        lines = _lines(fake)[: self.num_samples]
        return [self._value(self.key(context), real, lines, _kind(fake.source))]

    def references(
        self, real: FeatureSet | None, other: FeatureSet | None, context: MetricContext
    ) -> list[MetricValue]:
        """Evaluate held-out lines and those of a bigram and a unigram chain, the same number as generated."""
        assert real is not None
        count, key = self.num_samples or context.num_fake, self.key(context)
        training = _lines(real)
        sets: dict[str, Numbers] = {}
        if other is not None:
            held_out = _lines(other)
            if len(held_out) < count:
                raise InputError(
                    f"{key} is of {count:,} samples, and {other.source.name} has {len(held_out):,} lines; set "
                    f"num_fake={len(held_out)} of the protocol, and leave out metrics of more"
                )
            chosen = np.random.default_rng(0).permutation(len(held_out))[:count]
            sets["real"] = held_out[chosen]
        sets["bigram"] = bigram_chain(training, count)
        sets["unigram"] = unigram_chain(training, count)
        kind = _kind(real.source)
        return [self._value(f"{key}_{name}", real, lines, kind) for name, lines in sets.items()]

    def _value(self, key: str, real: FeatureSet, lines: Numbers, kind: Text) -> MetricValue:
        if self._training is not real:
            self.learn(_lines(real), kind)
            self._training = real
        return MetricValue(key=key, value=self.measure(lines, kind), detail=self.detail(lines))

    @abstractmethod
    def learn(self, training: Numbers, kind: Text) -> None:
        """Prepare from the training lines [N, L]."""

    @abstractmethod
    def measure(self, lines: Numbers, kind: Text) -> float:
        """Return the metric of lines [N, L]."""

    def detail(self, lines: Numbers) -> Mapping[str, Any]:
        """Return further results."""
        return {"samples": len(lines)}


class NgramDivergence(TextMetric):
    """Jensen-Shannon divergence between the n-grams of generated and of training lines, in bits.

    Gulrajani et al. 2017, appendix on language modeling, https://arxiv.org/abs/1704.00028, who take 640 samples.

    Args:
        n: characters of an n-gram.
        num_samples: number of lines, the first ones; None for all.
        key: of the metric; None for `js<n>`, or `js<n>_<num_samples>`.
    """

    kind = "ngrams"

    def __init__(self, *, n: int, num_samples: int | None = None, key: str | None = None) -> None:
        super().__init__(num_samples=num_samples, key=key)
        self.n = n
        self.short = f"js{n}"

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "n": self.n}

    def check(self, context: MetricContext) -> None:
        super().check(context)
        length = context.extractor.outputs["tokens"]
        if self.n < 1 or (length and self.n > length):
            raise InputError(
                f"{self.key(context)}: n={self.n} must be at least 1, and at most the {length} characters of a line"
            )

    def learn(self, training: Numbers, kind: Text) -> None:
        self._model = NgramModel(training, self.n)

    def measure(self, lines: Numbers, kind: Text) -> float:
        return jensen_shannon(self._model, lines)


class KnownWords(TextMetric):
    """Share of the words in generated lines that are words of the training lines.

    A word is a run of letters. Words at the ends of a line may be cut and are ignored.
    """

    kind = short = "words"

    def learn(self, training: Numbers, kind: Text) -> None:
        self._vocabulary = {word for line in _texts(training, kind) for word in whole_words(line)}

    def measure(self, lines: Numbers, kind: Text) -> float:
        words = [word for line in _texts(lines, kind) for word in whole_words(line)]
        return sum(word in self._vocabulary for word in words) / max(len(words), 1)


class Copied(TextMetric):
    """Share of generated lines that occur in the training text, as a line or within one."""

    kind = short = "copied"

    def learn(self, training: Numbers, kind: Text) -> None:
        self._text = "\n".join(map(kind.text, torch.from_numpy(training)))

    def measure(self, lines: Numbers, kind: Text) -> float:
        return float(np.mean([kind.text(line) in self._text for line in torch.from_numpy(lines)]))


class DistinctNgrams(TextMetric):
    """Diversity: distinct n-grams in generated lines, as a share of all; low for collapsed generators.

    Li et al. 2016, distinct-n, https://arxiv.org/abs/1510.03055.

    Args:
        n: characters of an n-gram.
        num_samples: number of lines, the first ones; None for all.
        key: of the metric; None for `distinct<n>`.
    """

    kind = "distinct"

    def __init__(
        self, *, n: int = 4, num_samples: int | None = None, key: str | None = None
    ) -> None:
        super().__init__(num_samples=num_samples, key=key)
        self.n = n
        self.short = f"distinct{n}"

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "n": self.n}

    def learn(self, training: Numbers, kind: Text) -> None:
        """Do nothing."""

    def measure(self, lines: Numbers, kind: Text) -> float:
        return distinct_share(lines, self.n)

    def detail(self, lines: Numbers) -> Mapping[str, Any]:
        return {**super().detail(lines), "distinct_lines": len(np.unique(lines, axis=0))}


def whole_words(line: str) -> list[str]:
    """Return the words of a stored line in lower case, without those at its ends."""
    return [
        found.group().lower()
        for found in _WORD.finditer(line)
        if found.start() > 0 and found.end() < len(line)
    ]


def _lines(features: FeatureSet) -> Numbers:
    return features.features["tokens"].long().numpy()


def _texts(lines: Numbers, kind: Text) -> list[str]:
    """Return lines with padding removed from letters."""
    characters = np.array(list(kind.alphabet))
    return ["".join(line) for line in characters[lines]]


def _kind(source: ImageSource) -> Text:
    assert isinstance(source.kind, Text), "checked before"
    return source.kind


class Tokens(Extractor):
    """Indices of characters, `tokens` [L], of stored lines of text."""

    name = "characters"
    short = "text"
    transform = "numbers of characters in the alphabet"

    def __init__(self) -> None:
        super().__init__(batch_size=512)
        self.outputs: Mapping[str, int] = {"tokens": 0}  # set by `check`

    def load(self, device: torch.device) -> None:
        # nothing is computed
        super().load(torch.device("cpu"))

    def check(self, shape: tuple[int, ...], what: str) -> None:
        if len(shape) != 1:
            raise InputError(
                f"{what} have the shape {list(shape)}, but lines of text are [length]; choose other metrics"
            )
        self.outputs = {"tokens": shape[0]}

    def _load(self, device: torch.device) -> str:
        return hashlib.sha256(self.transform.encode()).hexdigest()

    def _forward(self, stored: Tensor, outputs: frozenset[str]) -> dict[str, Tensor]:
        return {"tokens": stored.float()}
