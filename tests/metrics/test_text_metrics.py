"""Metrics of text: keys, references and rejected inputs."""

import numpy as np
import pytest
import torch

from gan_lab.data.text import Lines, Text
from gan_lab.errors import InputError
from gan_lab.metrics.feature_metrics import MetricContext
from gan_lab.metrics.feature_set import FeatureSet
from gan_lab.metrics.sources import DatasetImages
from gan_lab.metrics.text_metrics import (
    Copied,
    DistinctNgrams,
    KnownWords,
    NgramDivergence,
    Tokens,
    whole_words,
)
from tests.helpers.sources import FixedImages, textures

KIND = Text(alphabet="abcdefgh ·", length=8, padding="·")
TRAINING = ["abc dead", "bed abba", "a cab f", "the fed"]


def lines_of(texts, kind=KIND, split="train"):
    texts = [text.replace("t", "a") for text in texts]
    return Lines(
        split=split,
        kind=kind,
        lines=torch.stack([kind.encode(text) for text in texts]).numpy(),
        labels=np.zeros(len(texts), np.int64),
        fingerprint=str(texts),
    )


def set_of(texts):
    source = DatasetImages(lines_of(texts))
    tokens = source.read(0, len(texts)).float()
    rows = torch.arange(len(texts))
    return FeatureSet(
        source=source, count=len(texts), whole=True, features={"tokens": tokens}, rows=rows
    )


def context(num_fake, real=None, fake=None):
    extractor = Tokens()
    extractor.check((8,), "lines")
    return MetricContext(
        extractor=extractor, num_fake=num_fake, num_real=4, num_real_features=4, all_real=True,
        real=real, fake=fake,
    )  # fmt: skip


def value(metric, generated):
    (found,) = metric.compute(set_of(TRAINING), set_of(generated), context(len(generated)))
    return found.value


def test_words_that_may_be_cut_off_do_not_count():
    assert whole_words("abc dead bed abba") == ["dead", "bed"]
    assert whole_words("(Abc) it's x9") == ["abc", "it", "s", "x"]
    # padding ends a word, the end of a line does not
    assert value(KnownWords(), [" cab gg ", "fed cab·"[:7]]) == pytest.approx(2 / 3)
    assert value(KnownWords(), ["aaaaaaaa"]) == 0


def test_copies_stand_in_the_training_text():
    assert value(Copied(), ["abc dead", "cab f", "dead bed"]) == pytest.approx(2 / 3)


def test_copies_of_the_training_text_are_not_far_from_it():
    assert value(NgramDivergence(n=3), TRAINING) == pytest.approx(0, abs=1e-12)
    assert value(NgramDivergence(n=3), TRAINING[:1]) > 0.2
    assert value(NgramDivergence(n=1, num_samples=1), TRAINING) == value(
        NgramDivergence(n=1), TRAINING[:1]
    )
    assert value(DistinctNgrams(n=4), ["aaaaaaaa"] * 2) == 1 / 10


def test_references_are_of_as_many_lines():
    real, held_out = set_of(TRAINING), set_of(["cab dead", "fed abba", "abc cab "])
    metric = NgramDivergence(n=2, num_samples=2)
    found = {one.key: one for one in metric.references(real, held_out, context(3))}
    assert list(found) == ["js2_2_real", "js2_2_bigram", "js2_2_unigram"]
    assert all(one.detail["samples"] == 2 and 0 < one.value < 1 for one in found.values())
    again = metric.references(real, None, context(3))
    assert [one.value for one in again] == [found[one.key].value for one in again]
    with pytest.raises(InputError, match="num_fake=3"):
        NgramDivergence(n=2).references(real, held_out, context(4))


@pytest.mark.parametrize(
    ("metric", "key"),
    [
        (NgramDivergence(n=4), "js4"),
        (NgramDivergence(n=4, num_samples=640), "js4_640"),
        (NgramDivergence(n=4, key="mine"), "mine"),
        (KnownWords(), "words"),
        (Copied(), "copied"),
        (DistinctNgrams(), "distinct4"),
    ],
)
def test_keys(metric, key):
    assert metric.key(context(1280)) == key


def test_what_is_rejected():
    text, images = DatasetImages(lines_of(TRAINING)), FixedImages(textures(2, 0))
    other = Text(alphabet="ahgfedcb ·", length=8, padding="·")
    with pytest.raises(InputError, match="num_fake=5"):
        NgramDivergence(n=1, num_samples=9).check(context(5))
    with pytest.raises(InputError, match="n=9"):
        NgramDivergence(n=9).check(context(5))
    with pytest.raises(InputError, match="alphabet"):
        KnownWords().check(context(4, text, DatasetImages(lines_of(TRAINING, other))))
    with pytest.raises(InputError, match=r"lines of text are \[length\]"):
        Tokens().check(images.shape, images.name)
