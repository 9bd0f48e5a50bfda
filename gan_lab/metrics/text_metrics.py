"""Metrics of lines of text: n-grams, words, what is copied, how much of it differs.

Each is beside what three others would get: held-out text, and lines of two chains that are made of the training text.
All of them depend on how many lines there are, and so all are of equally many.
"""

import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from gan_lab.data.text import Text
from gan_lab.errors import InputError
from gan_lab.metrics.feature_metrics import MetricContext, MetricValue, ProtocolMetric
from gan_lab.metrics.feature_set import FeatureSet, Needs
from gan_lab.metrics.images import ImageSource
from gan_lab.metrics.ngrams import (
    NgramModel,
    Numbers,
    bigram_chain,
    distinct_share,
    jensen_shannon,
    unigram_chain,
)

_WORD = re.compile(r"[^\W\d_]+")


class TextMetric(ProtocolMetric):
    """One number of a set of lines, given the training lines.

    Args:
        num_samples: lines that are measured, the first ones; None for all.
        key: of the metric; None makes it of its kind and `num_samples`.
    """

    has_references = True

    def __init__(self, *, num_samples: int | None = None, key: str | None = None) -> None:
        super().__init__(output="tokens", key=key)
        self.real: Needs = {"tokens": "features"}
        self.fake: Needs = {"tokens": "features"}
        self.num_samples = num_samples
        self._training: FeatureSet | None = None  # what `learn` has seen

    @property
    def settings(self) -> dict[str, Any]:
        return {"num_samples": self.num_samples}

    def key(self, setting: MetricContext) -> str:
        number = "" if self.num_samples is None else f"_{self.num_samples}"
        return self._key or f"{self.short}{number}"

    def check(self, setting: MetricContext) -> None:
        super().check(setting)
        if self.num_samples is not None and setting.num_fake < self.num_samples:
            raise InputError(
                f"{self.key(setting)} is of {self.num_samples} samples, and num_fake={setting.num_fake}; give more, or "
                "leave it out"
            )
        kinds = [one.kind for one in (setting.real, setting.fake) if one is not None and one.kind]
        for kind in kinds:
            if not isinstance(kind, Text):
                raise InputError(
                    f"{self.key(setting)} is of text, and the samples are {kind.name}; choose other metrics"
                )
        if len({kind.alphabet for kind in kinds if isinstance(kind, Text)}) > 1:
            raise InputError(
                f"{self.key(setting)} compares text of one alphabet, and the generator's is another than the data's"
            )

    def compute(
        self, real: FeatureSet | None, fake: FeatureSet, setting: MetricContext
    ) -> list[MetricValue]:
        assert real is not None
        lines = _lines(fake)[: self.num_samples]
        return [self._value(self.key(setting), real, lines, _kind(fake.source))]

    def references(
        self, real: FeatureSet | None, other: FeatureSet | None, setting: MetricContext
    ) -> list[MetricValue]:
        """Measure held-out lines, and those of a bigram and of a unigram chain, as many as are generated."""
        assert real is not None
        count, key = self.num_samples or setting.num_fake, self.key(setting)
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
        """Keep what is needed of the training lines [N, L]."""

    @abstractmethod
    def measure(self, lines: Numbers, kind: Text) -> float:
        """Measure lines [N, L]."""

    def detail(self, lines: Numbers) -> Mapping[str, Any]:
        """Return what else is known of the lines."""
        return {"samples": len(lines)}


class NgramDivergence(TextMetric):
    """Jensen-Shannon divergence between the n-grams of generated and of training lines, in bits.

    Gulrajani et al. 2017, appendix on language modelling, https://arxiv.org/abs/1704.00028, who take 640 samples.

    Args:
        n: characters of an n-gram.
        num_samples: lines that are measured, the first ones; None for all.
        key: of the metric; None makes it `js<n>`, or `js<n>_<num_samples>`.
    """

    kind = "ngrams"

    def __init__(self, *, n: int, num_samples: int | None = None, key: str | None = None) -> None:
        super().__init__(num_samples=num_samples, key=key)
        self.n = n
        self.short = f"js{n}"

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "n": self.n}

    def check(self, setting: MetricContext) -> None:
        super().check(setting)
        length = setting.extractor.outputs["tokens"]
        if self.n < 1 or (length and self.n > length):
            raise InputError(
                f"{self.key(setting)}: n={self.n} must be at least 1, and at most the {length} characters of a line"
            )

    def learn(self, training: Numbers, kind: Text) -> None:
        self._model = NgramModel(training, self.n)

    def measure(self, lines: Numbers, kind: Text) -> float:
        return jensen_shannon(self._model, lines)


class KnownWords(TextMetric):
    """Share of the words in generated lines that are words of the training lines.

    A word is a run of letters. One that touches the first or last place of a line may be cut off, and is left out.
    """

    kind = short = "words"

    def learn(self, training: Numbers, kind: Text) -> None:
        self._vocabulary = {word for line in _texts(training, kind) for word in whole_words(line)}

    def measure(self, lines: Numbers, kind: Text) -> float:
        words = [word for line in _texts(lines, kind) for word in whole_words(line)]
        return sum(word in self._vocabulary for word in words) / max(len(words), 1)


class Copied(TextMetric):
    """Share of generated lines that stand in the training text: as a line, or within one."""

    kind = short = "copied"

    def learn(self, training: Numbers, kind: Text) -> None:
        self._text = "\n".join(map(kind.text, torch.from_numpy(training)))

    def measure(self, lines: Numbers, kind: Text) -> float:
        return float(np.mean([kind.text(line) in self._text for line in torch.from_numpy(lines)]))


class DistinctNgrams(TextMetric):
    """Diversity: distinct n-grams in generated lines, as a share of all. A collapsed generator's is small.

    Li et al. 2016, distinct-n, https://arxiv.org/abs/1510.03055.

    Args:
        n: characters of an n-gram.
        num_samples: lines that are measured, the first ones; None for all.
        key: of the metric; None makes it `distinct<n>`.
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
        """Nothing of the training lines is needed."""

    def measure(self, lines: Numbers, kind: Text) -> float:
        return distinct_share(lines, self.n)

    def detail(self, lines: Numbers) -> Mapping[str, Any]:
        return {**super().detail(lines), "distinct_lines": len(np.unique(lines, axis=0))}


def whole_words(line: str) -> list[str]:
    """Return the words of a line as it is stored, in small letters, without those that touch its ends."""
    return [
        found.group().lower()
        for found in _WORD.finditer(line)
        if found.start() > 0 and found.end() < len(line)
    ]


def _lines(features: FeatureSet) -> Numbers:
    return features.features["tokens"].long().numpy()


def _texts(lines: Numbers, kind: Text) -> list[str]:
    """Return whole lines, with their padding, whose characters are no letters."""
    characters = np.array(list(kind.alphabet))
    return ["".join(line) for line in characters[lines]]


def _kind(source: ImageSource) -> Text:
    assert isinstance(source.kind, Text), "checked before"
    return source.kind
