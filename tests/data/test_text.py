"""Text as a kind of sample: numbers of characters, one-hot for networks, lines in files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_lab.data.sample import SampleSpec
from gan_lab.data.text import (
    Lines,
    OneHot,
    Text,
    count_characters,
    cut_lines,
    most_frequent,
    numbered,
)
from gan_lab.errors import InputError

KIND = Text(alphabet="abc é·?", length=6, padding="·", unknown="?")


@settings(deadline=None)
@given(st.text(alphabet="abc é", max_size=6))
def test_a_line_is_what_it_was(line: str) -> None:
    stored = KIND.encode(line)
    assert stored.shape == (6,) and stored.dtype == torch.uint8
    assert KIND.text(stored) == line


def test_networks_see_one_character_per_position(tmp_path: Path) -> None:
    spec = SampleSpec(kind=KIND, shape=(6,), representation=OneHot(characters=7))
    stored = torch.stack([KIND.encode("abc"), KIND.encode("é x")])
    seen = spec.encode(stored)
    assert spec.encoded_shape == (7, 6) and seen.shape == (2, 7, 6) and seen.dtype == torch.float32
    assert (seen.sum(1) == 1).all() and seen[0, :, 0].tolist() == [1, 0, 0, 0, 0, 0, 0]
    # soft probabilities give the likeliest character
    assert torch.equal(spec.decode(0.6 * seen + 0.1), stored)
    again = SampleSpec.from_dict(spec.as_dict(), origin=tmp_path)
    assert torch.equal(again.encode(stored), seen) and again.kind.arguments == KIND.arguments


def test_files_hold_the_line(tmp_path: Path) -> None:
    stored = KIND.encode(" aé")
    KIND.write(stored, tmp_path / "one.txt")
    assert (tmp_path / "one.txt").read_bytes() == " aé\n".encode() == KIND.media(stored)
    assert torch.equal(KIND.read(tmp_path / "one.txt"), stored)
    (tmp_path / "long.txt").write_text("abcabca\n")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    for name in ("long.txt", "bad.txt"):
        with pytest.raises(InputError, match=name):
            KIND.read(tmp_path / name)


def test_unknown_characters_have_one_of_their_own_or_are_rejected() -> None:
    assert KIND.text(KIND.encode("axb")) == "a?b"
    strict = Text(alphabet="ab", length=2)
    with pytest.raises(InputError, match="'x'"):
        strict.encode("ax")
    with pytest.raises(InputError, match="1 characters"):
        strict.encode("a")


def test_large_alphabets_take_two_bytes() -> None:
    kind = Text(alphabet="".join(chr(0x4E00 + i) for i in range(300)), length=2)
    stored = kind.encode(kind.alphabet[-2:])
    assert stored.dtype == torch.int16 and kind.text(stored) == kind.alphabet[-2:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alphabet": "a"}, "1 characters"),
        ({"alphabet": "aba"}, "'a' twice"),
        ({"alphabet": "a\n"}, "line feed"),
        ({"alphabet": "ab", "padding": "c"}, "padding='c'"),
        ({"alphabet": "ab", "unknown": "ab"}, "unknown='ab'"),
        ({"alphabet": "ab", "padding": "a", "unknown": "a"}, "both 'a'"),
    ],
)
def test_what_is_not_a_alphabet(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Text(length=3, **arguments)


def test_images_show_different_characters_in_rows() -> None:
    wide = Text(alphabet="ab·", length=70, padding="·")
    stored = torch.stack([wide.encode("a" * 70), wide.encode("b" * 70)])
    drawn = wide.preview(stored)
    height = KIND.preview(KIND.encode("")[None]).shape[2]
    assert drawn.dtype == torch.uint8 and drawn.shape[:2] == (2, 1)
    assert drawn.shape[2] == 2 * height  # 64 characters a row
    assert not torch.equal(drawn[0], drawn[1]) and drawn.min() < 64 and drawn.max() == 255
    first, second = drawn[0, 0, :height], drawn[0, 0, height:]
    assert torch.equal(first[:, : first.shape[1] * 6 // 64], second[:, : first.shape[1] * 6 // 64])
    assert (second[:, first.shape[1] * 6 // 64 :] == 255).all()


@settings(deadline=None)
@given(st.text(alphabet="ab \n", max_size=40), st.integers(1, 5), st.booleans(), st.integers(1, 3))
def test_lines_are_cut_as_by_hand(text: str, length: int, wrap: bool, least: int) -> None:
    expected = []
    for line in text.split("\n"):
        pieces = [line[i : i + length] for i in range(0, len(line), length)]
        for piece in pieces if wrap else pieces[:1]:
            if len(piece) >= least and piece.strip():
                expected.append(piece.ljust(length, "\0"))
    rows = cut_lines(text, length=length, wrap=wrap, least=least)
    assert ["".join(map(chr, row)) for row in rows.tolist()] == expected


def test_the_alphabet_is_what_is_most_frequent() -> None:
    rows = cut_lines("aab\nbcz😀", length=4, wrap=False, least=1)
    counts = count_characters(rows)
    assert counts.sum() == 7 and counts[ord("a")] == 2 and counts[0] == 0
    assert most_frequent(counts, 3) == "abc" and set(most_frequent(counts, 99)) == set("abcz😀")
    lines = numbered(rows, Text(alphabet="abc·?", length=4, padding="·", unknown="?"))
    assert lines.tolist() == [[0, 0, 1, 3], [1, 2, 4, 4]] and lines.dtype == np.uint8
    with pytest.raises(InputError, match="'z"):
        numbered(rows, Text(alphabet="abc·", length=4, padding="·"))
    with pytest.raises(InputError, match="padding"):
        numbered(rows, Text(alphabet="abcz😀", length=4))


def test_lines_of_a_split() -> None:
    kind = Text(alphabet="ab", length=2)
    lines = np.array([[0, 0], [0, 1], [1, 0]], dtype=np.uint8)
    data = Lines(
        split="train",
        kind=kind,
        lines=lines,
        rows=np.array([0, 2]),
        labels=np.array([0, 1]),
        class_names=["x", "y"],
        fingerprint="f",
    )
    batch = data.__getitems__([1, 0])
    assert batch.real.tolist() == [[1, 0], [0, 0]] and batch.labels is not None
    assert batch.labels.tolist() == [1, 0] and data.class_counts == [1, 1]
    assert data.stored(1) == b"ba\n" and data.load(1).tolist() == [1, 0]
