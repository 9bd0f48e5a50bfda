"""Data sets in the formats of the Hugging Face library, which the test writes."""

import io
import pickle
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from gan_lab.commands.launch import launch
from gan_lab.data.base import MissingSplit
from gan_lab.data.huggingface import HuggingFaceImages, HuggingFaceSounds, HuggingFaceText
from gan_lab.errors import InputError

datasets.disable_progress_bars()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def make_images(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(256, size=(count, 6, 8, 3), dtype=np.uint8))


def encoded(image: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


def images(count: int, *, classes: list[str] | None, seed: int = 0) -> datasets.Dataset:
    columns: dict[str, Any] = {"picture": [encoded(one) for one in make_images(count, seed)]}
    features: dict[str, Any] = {"picture": datasets.Image()}
    if classes:
        columns["species"] = [i % len(classes) for i in range(count)]
        features["species"] = datasets.ClassLabel(names=classes)
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Saved by `save_to_disk`: 7 images to train on, 3 to validate on, two classes."""
    both = datasets.DatasetDict(
        train=images(7, classes=["<cat>", "dog"]), test=images(3, classes=["<cat>", "dog"], seed=1)
    )
    both.save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_pixels_classes_and_splits(saved: Path) -> None:
    train, val = (HuggingFaceImages(split=split, name=str(saved)) for split in ("train", "val"))
    assert train.class_names == ["<cat>", "dog"] and train.class_counts == [4, 3]
    assert val.class_counts == [2, 1] and val.name(2) == "test/000000002"
    for data, seed in ((train, 0), (val, 1)):
        expected = np.stack(make_images(len(data), seed)).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(data.__getitems__(range(len(data))).real, expected)
    assert train.fingerprint != val.fingerprint
    again = HuggingFaceImages(split="train", name=str(saved))
    assert again.fingerprint == train.fingerprint
    assert again.content_digest() == train.content_digest()
    with pytest.raises(InputError, match=r"data\.val_fraction"):
        HuggingFaceImages(split="val", name=str(saved), val_fraction=0.2)
    whole = HuggingFaceImages(split="train", name=str(saved), train_split="test")
    assert len(whole) == 3
    with pytest.raises(MissingSplit):
        HuggingFaceImages(split="val", name=str(saved), train_split="test")


def test_a_worker_gets_a_small_copy_that_reads_the_same(saved: Path) -> None:
    data = HuggingFaceImages(split="train", name=str(saved))
    sent = pickle.dumps(data)
    assert torch.equal(pickle.loads(sent)[3].real, data[3].real)


@pytest.mark.parametrize("by_hand", [False, True])
def test_parquet_of_the_library_and_of_others(tmp_path: Path, by_hand: bool) -> None:
    file = tmp_path / "data.parquet"
    made = images(5, classes=None).add_column("label", ["10", "9", "10", "2", "9"])
    if by_hand:  # without what the library writes about its columns
        import pyarrow.parquet

        pyarrow.parquet.write_table(made.data.table.replace_schema_metadata(None), file)
    else:
        made.to_parquet(file)
    data = HuggingFaceImages(
        split="train", name=str(file), image_column="picture" if by_hand else None
    )
    assert data.class_names == ["2", "9", "10"] and data.labels.tolist() == [2, 1, 2, 0, 1]
    plain = HuggingFaceImages(
        split="train", name=str(file), image_column="picture", label_column=False
    )
    assert plain.num_classes == 1
    np.testing.assert_array_equal(plain[4].real[0].permute(1, 2, 0), make_images(5)[4])
    part = HuggingFaceImages(
        split="val", name=str(file), image_column="picture", label_column=False, val_fraction=0.5
    )
    rest = HuggingFaceImages(
        split="train", name=str(file), image_column="picture", label_column=False, val_fraction=0.5
    )
    assert len(part) + len(rest) == 5 and len(part) > 0


def test_a_folder_of_images_as_the_library_reads_it(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "set/train" / name).mkdir(parents=True)
        for number, image in enumerate(make_images(2)):
            Image.fromarray(image).save(tmp_path / f"set/train/{name}/{number}.png")
    data = HuggingFaceImages(split="train", name=str(tmp_path / "set"))
    assert data.class_names == ["ant", "bee"] and data.class_counts == [2, 2]
    np.testing.assert_array_equal(data[1].real[0].permute(1, 2, 0), make_images(2)[1])


def test_sounds(tmp_path: Path) -> None:
    time = np.arange(4000) / 8000
    clips = []
    for hertz in (300, 500, 800):
        file = io.BytesIO()
        soundfile.write(file, np.sin(2 * np.pi * hertz * time) / 2, 8000, format="WAV")
        clips.append({"bytes": file.getvalue(), "path": None})
    made = datasets.Dataset.from_dict({"audio": clips, "label": [5, 7, 5]})
    cell = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    made = made.cast_column("audio", cell).cast_column("audio", datasets.Audio())
    made.save_to_disk(tmp_path / "sounds")
    data = HuggingFaceSounds(
        split="train", name=str(tmp_path / "sounds"), rate=8000, length=1024, crop="fixed"
    )
    assert data.class_names == ["5", "7"] and data.labels.tolist() == [0, 1, 0]
    assert data.spec.shape == (1, 1024) and data.spec.kind.rate == 8000  # type: ignore[attr-defined]
    expected = np.sin(2 * np.pi * 500 * time)[:1024] / 2 * 32768
    assert np.abs(data.load(1)[0].numpy() - expected).max() <= 2


def test_text(tmp_path: Path) -> None:
    lines = ["to be or not", "to be\nthat is", "the question"]
    made = datasets.DatasetDict(
        train=datasets.Dataset.from_dict({"words": lines, "label": ["a", "b", "a"]}),
        validation=datasets.Dataset.from_dict({"words": ["whether"], "label": ["b"]}),
    )
    made.save_to_disk(tmp_path / "text")
    train, val = (
        HuggingFaceText(split=split, name=str(tmp_path / "text"), text_column="words", length=8)
        for split in ("train", "val")
    )
    shown = [train.text.text(train.load(i)) for i in range(len(train))]
    assert shown == ["to be or", "to be", "that is", "the ques"]
    assert train.labels.tolist() == [0, 1, 1, 0] and train.class_names == ["a", "b"]
    assert [val.text.text(val.load(i)) for i in range(len(val))] == ["whether"]
    with pytest.raises(InputError, match="text_column="):
        HuggingFaceText(split="train", name=str(tmp_path / "text"))  # label is text as well


def test_what_cannot_be_had_is_named(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def message(**options: Any) -> str:
        with pytest.raises(InputError) as caught:
            HuggingFaceImages(**{"split": "train", "name": str(saved), **options})
        return str(caught.value)

    assert "data.name" in message(name=None)
    assert "nobody/nothing" in message(name="nobody/nothing")
    assert "train, test" in message(train_split="training")
    assert "data.val_split=valid" in message(val_split="valid")
    error = message(image_column="image")
    assert "data.image_column=image" in error and "picture (Image)" in error
    assert "data.label_column=kind" in message(label_column="kind")
    assert "species" in message(image_column="species")
    (tmp_path / "odd.txt").write_text("x")
    assert "odd.txt" in message(name=str(tmp_path / "odd.txt"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/state.json").write_text("{")
    assert "broken" in message(name=str(tmp_path / "broken"))
    made = images(2, classes=["a", "b"])
    unlabeled = datasets.Dataset.from_dict(
        {"picture": made["picture"][:], "species": [-1, 0]}, features=made.features
    )
    unlabeled.save_to_disk(tmp_path / "minus")
    assert "label_column=false" in message(name=str(tmp_path / "minus"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "gan-laboratory[datasets]" in message()


def test_a_run_trains_and_what_is_packed_is_the_same(saved: Path, tmp_path: Path) -> None:
    overrides = [
        *("model=gan", "data=huggingface", f"data.name={saved}", "total_kimg=0.02", "trainer=cpu"),
        *("batch_size=4", "metrics=none", f"runs_dir={tmp_path}", "name=run", "threads=1"),
    ]
    assert launch("train", overrides) == 0
    packed = tmp_path / "packed.zip"
    assert launch("prepare-data", ["data=huggingface", f"data.name={saved}", f"out={packed}"]) == 0
    from gan_lab.data.image_folder import Zip

    ours, theirs = (
        HuggingFaceImages(split="train", name=str(saved)),
        Zip(split="train", root=packed),
    )
    assert theirs.class_names == ours.class_names and len(theirs) == len(ours)
    for index in range(len(ours)):
        assert torch.equal(theirs[index].real, ours[index].real)
