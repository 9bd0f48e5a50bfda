"""Text that comes with CPython: the reference manual's topics, as `help("topics")` shows them."""

import platform
import re

import numpy as np

from gan_lab.data.base import check_split, digest
from gan_lab.data.text import (
    UNKNOWN,
    Lines,
    Text,
    count_characters,
    cut_lines,
    most_frequent,
    numbered,
)
from gan_lab.errors import InputError

HELD_OUT = 1280  # lines, chosen once and always the same


class PythonDocs(Lines):
    """The topics of `pydoc_data`, cut into lines of `length` characters, with one space for any white space.

    The text differs between versions of Python. 1,280 lines are for validation.

    Args:
        split: "train" or "val".
        length: of a line.
        alphabet_size: characters at most, the most frequent ones; one of them stands for all others.

    Raises:
        InputError: for options out of range, and where this Python lacks the topics.
    """

    def __init__(self, *, split: str, length: int = 32, alphabet_size: int = 256) -> None:
        check_split(split)
        text = topics_text()
        rows = cut_lines(text, length=length, wrap=True, least=length)
        if len(rows) < 2 * HELD_OUT:
            raise InputError(
                f"data.length={length} leaves {len(rows):,} lines, of which {HELD_OUT:,} validate; give a smaller one"
            )
        counts = count_characters(rows)
        alphabet = most_frequent(counts, alphabet_size - 1)
        complete = len(alphabet) == (counts > 0).sum()
        kind = Text(
            alphabet=alphabet if complete else alphabet + UNKNOWN,
            length=length,
            unknown=None if complete else UNKNOWN,
        )
        lines = numbered(rows, kind)
        order = np.random.default_rng(0).permutation(len(lines))
        chosen = np.sort(order[:HELD_OUT] if split == "val" else order[HELD_OUT:])
        version = platform.python_version()
        self.origin = f"pydoc_data of Python {version}"
        super().__init__(
            split=split,
            kind=kind,
            lines=lines[chosen],
            labels=np.zeros(len(chosen), dtype=np.int64),
            fingerprint=digest("python_docs", version, lines.tobytes(), split),
        )


def topics_text() -> str:
    """Return all topics concatenated by name, with white space collapsed.

    Raises:
        InputError: where this Python lacks them.
    """
    try:
        from pydoc_data.topics import topics  # a separate package on some systems
    except ImportError as error:
        raise InputError(
            "data=python_docs: this Python lacks pydoc_data; install it completely, or use data=text"
        ) from error
    return " ".join(re.sub(r"\s+", " ", topics[name]).strip() for name in sorted(topics))
