"""Texts of errors, and counts with their nouns."""

import pytest

from gan_lab.errors import counted, first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("one\ntwo"), "one"), (ValueError("\n one"), "one"), (EOFError(), "EOFError")],
)
def test_first_line(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_counts() -> None:
    texts = [counted(1, "image"), counted(2001, "image"), counted(2, "process"), counted(3, "box")]
    assert texts == ["1 image", "2,001 images", "2 processes", "3 boxes"]
