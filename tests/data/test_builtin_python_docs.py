import platform
import re
import sys

import numpy as np
import pytest

from gan_lab.data.builtin import HELD_OUT_LINES, PythonDocs, topics_text
from gan_lab.errors import InputError


@pytest.fixture(scope="module")
def splits() -> tuple[PythonDocs, PythonDocs]:
    return PythonDocs(split="train"), PythonDocs(split="val")


def texts(data: PythonDocs) -> list[str]:
    return [data.text.text(line) for line in data.__getitems__(range(len(data))).real]


def test_splits_are_the_text_line_by_line(splits: tuple[PythonDocs, PythonDocs]) -> None:
    train, val = splits
    text = topics_text()
    assert len(val) == HELD_OUT_LINES and train.text.unknown is None
    whole = [text[i : i + 32] for i in range(0, len(text) - 31, 32)]
    assert sorted(texts(train) + texts(val)) == sorted(line for line in whole if line.strip())
    assert "if_stmt ::=" in text and not re.search(r"\s\s", text)


def test_the_version_of_python_is_part_of_what_it_is(
    splits: tuple[PythonDocs, PythonDocs], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, val = splits
    assert train.origin.endswith(platform.python_version())
    assert train.fingerprint == PythonDocs(split="train").fingerprint != val.fingerprint
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.0")
    assert PythonDocs(split="train").fingerprint != train.fingerprint


def test_a_small_alphabet_has_a_character_for_the_rest() -> None:
    data = PythonDocs(split="val", alphabet_size=20)
    assert len(data.text.alphabet) == 20 and data.text.unknown == data.text.alphabet[-1]
    assert set(data.text.alphabet) > set("etaoin ")
    shares = np.bincount(data.__getitems__(range(HELD_OUT_LINES)).real.flatten(), minlength=20)
    assert 0 < shares[-1] < shares.sum() / 3


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"data\.length=1000"):
        PythonDocs(split="train", length=1000)
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(InputError, match="pydoc_data"):
        PythonDocs(split="train")
