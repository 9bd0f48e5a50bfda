"""A folder and its zip give the same metadata, in every format."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from gan_lab.commands import prepare_data
from gan_lab.config import conf_dir
from gan_lab.data.base import MissingSplit
from gan_lab.data.image_files import EncodedImages
from gan_lab.data.image_folder import ImageFolder, Zip
from gan_lab.data.metadata import MetadataTable, join_tables, natural_order
from gan_lab.errors import InputError
from gan_lab.metrics.sources import open_files

NAMES = ["a.png", "b.png", "c.png", "d.png"]


def packed(root: Path, *, around: str = "") -> Path:
    """A zip of a folder, in a folder `around` everything or not."""
    out = root.with_name(f"{root.name}{around.replace('/', '_')}.zip")
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, around + str(path.relative_to(root)))
    return out


def both(root: Path, split: str = "train", **options: Any) -> EncodedImages:
    """The images of a folder, checked to equal those of its zips."""
    folder = ImageFolder(split=split, root=root, **options)
    for around in ("", "wrapped/", "wrapped/twice/"):
        path = packed(root, around=around)
        zipped = Zip(split=split, root=path, **options)
        assert zipped.class_names == folder.class_names
        assert zipped.labels.tolist() == folder.labels.tolist()
        assert [around + folder.name(i) for i in range(len(folder))] == zipped.metadata.files
        for column in ("groups", "splits", "captions", "attribute_names"):
            assert getattr(zipped.metadata, column) == getattr(folder.metadata, column)
        np.testing.assert_equal(zipped.metadata.attributes, folder.metadata.attributes)
    return folder


def refusal(root: Path, **options: Any) -> str:
    """The error of a folder, checked to equal that of its zip."""
    texts = []
    for kind, path in ((ImageFolder, root), (Zip, packed(root))):
        with pytest.raises(InputError) as caught:
            kind(split="train", root=path, **options)
        texts.append(str(caught.value).replace(str(path), "ROOT"))
    assert texts[0] == texts[1]
    return texts[0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "images"


def by_file(data: EncodedImages) -> dict[str, str]:
    return {data.name(i): data.class_names[label] for i, label in enumerate(data.labels)}


# folders


def test_class_folders(root: Path, write_images) -> None:
    write_images(root, ["dog/1.png", "cat/1.png", "cat/deep/2.png"])
    data = both(root)
    assert data.class_names == ["cat", "dog"] and data.labels.tolist() == [0, 0, 1]
    assert both(root, classes=False).class_names == ["all"]


def test_class_folders_are_in_natural_order(root: Path, write_images) -> None:
    write_images(root, ["1/a.png", "2/a.png", "10/a.png"])
    data = both(root)
    assert data.class_names == ["1", "2", "10"]
    assert by_file(data) == {"1/a.png": "1", "2/a.png": "2", "10/a.png": "10"}


def test_natural_order_is_one() -> None:
    names = ["b", "a10", "a2", "a02", "a", "10", "9", "9" * 5000, "a2b3", "a2b20", "٣"]
    ordered = sorted(names, key=natural_order)
    assert ordered == sorted(reversed(names), key=natural_order)
    assert [n for n in ordered if len(n) < 9] == [
        "9", "10", "a", "a02", "a2", "a2b3", "a2b20", "a10", "b", "٣",
    ]  # fmt: skip


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "validation", "Test")])
def test_split_folders_are_no_classes(root: Path, write_images, capsys, names) -> None:
    train, val, test = names
    write_images(root, [f"{train}/cat/1.png", f"{train}/dog/2.png", f"{val}/dog/3.png"])
    write_images(root, [f"{test}/cat/4.png"])
    data = both(root)
    assert by_file(data) == {f"{train}/cat/1.png": "cat", f"{train}/dog/2.png": "dog"}
    assert by_file(both(root, "val")) == {f"{val}/dog/3.png": "dog"}
    assert "2 train, 1 val, 1 test images; test images are not used" in capsys.readouterr().out
    assert open_files(root).count == 2
    assert "has its own splits" in refusal(root, val_fraction=0.5)


def test_train_and_test_folders_without_classes(root: Path, write_images) -> None:
    write_images(root, [f"train/{i}.png" for i in range(20)])
    write_images(root, ["test/a.png", "test/b.png"])
    data = both(root)
    assert data.class_names == ["all"] and len(data) == 20
    with pytest.raises(MissingSplit):
        ImageFolder(split="val", root=root)
    parts = [Zip(split=s, root=packed(root), val_fraction=0.3) for s in ("train", "val")]
    assert sum(map(len, parts)) == 20
    again = ImageFolder(split="val", root=root, val_fraction=0.3)
    assert by_file(again) == by_file(parts[1])


def test_a_train_beside_other_classes_is_a_vehicle(root: Path, write_images) -> None:
    write_images(root, ["train/1.png", "car/2.png"])
    assert both(root).class_names == ["car", "train"]


@pytest.mark.parametrize("only", ["test", "val"])
def test_nothing_to_train_on_is_reported(root: Path, write_images, only: str) -> None:
    write_images(root, [f"{only}/1.png"])
    assert "only; set data.root to them" in refusal(root)


@pytest.mark.parametrize(
    "names",
    [
        ["00000/img00000000.png", "00001/img00001000.png"],
        ["00000/00999.png", "69000/69001.png"],
    ],
)
def test_numbered_parts_are_no_classes(root: Path, write_images, names: list[str]) -> None:
    write_images(root, names)
    assert both(root).class_names == ["all"]
    assert len(both(root, classes=True).class_names) == 2


def test_numbers_that_are_classes_stay_some(root: Path, write_images) -> None:
    write_images(root, ["00000/00001.png", "00001/00002.png"])
    assert both(root).class_names == ["00000", "00001"]


def test_images_beside_class_folders_must_be_decided(root: Path, write_images) -> None:
    write_images(root, ["cat/1.png", "dog/1.png", "preview.png"])
    assert "1 image itself and 2 in sub-folders; set data.classes=true" in refusal(root)
    classes = {"cat/1.png": "cat", "dog/1.png": "dog"}
    assert by_file(ImageFolder(split="train", root=root, classes=True)) == classes
    assert by_file(Zip(split="train", root=packed(root), classes=True)) == classes
    assert both(root, classes=False).class_counts == [3]
    for path in (root, packed(root)):
        assert open_files(path).num_classes == 0


# tables


TABLES = {
    "labels.csv": "file,class\na.png,cat\nb.png,dog\nc.png,cat\nd.png,owl\n",
    "labels.tsv": "label\tfilename\ncat\ta.png\ndog\tb.png\ncat\tc.png\nowl\t./d.png\n",
    "Labels.csv": "\ufeffimage;label\r\na.png;cat\r\nb.png;dog\r\nc.png;cat\r\nd.png;owl\r\n",
    "labels.json": json.dumps({"a.png": "cat", "b.png": "dog", "c.png": "cat", "d.png": "owl"}),
    "labels.jsonl": "\n".join(
        json.dumps({"file_name": name, "label": label})
        for name, label in zip(NAMES, ["cat", "dog", "cat", "owl"], strict=True)
    ),
    "dataset.json": json.dumps(
        {
            "labels": [["a.png", 0], ["b.png", 1], ["c.png", 0], ["d.png", 2]],
            "class_names": ["cat", "dog", "owl"],
        }
    ),
}


@pytest.mark.parametrize("folder", ["", "sub/", "sub/deeper/"])
@pytest.mark.parametrize("name", TABLES)
def test_every_table_means_the_same(root: Path, write_images, name: str, folder: str) -> None:
    write_images(root, [folder + one for one in NAMES])
    (root / folder / name).write_text(TABLES[name])
    data = both(root)
    assert data.class_names == ["cat", "dog", "owl"] and data.labels.tolist() == [0, 1, 0, 2]


def test_a_table_without_header(root: Path, write_images) -> None:
    write_images(root, NAMES)
    (root / "labels.csv").write_text("a.png,1\nb.png,0\nc.png,1\nd.png,1\n")
    assert both(root).labels.tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        ([0, 7, 2000, 7], ["0", "7", "2000"], [0, 1, 2, 1]),
        ([0.0, 1.0, 2.0, 1.0], ["0", "1", "2"], [0, 1, 2, 1]),
        (["3", "10", "3", "2.0"], ["2", "3", "10"], [1, 2, 1, 0]),
        ([[1, 0], [0, 1], [0, 1], [1, 0]], ["0", "1"], [0, 1, 1, 0]),
        ([[0, 1.0, 0], [0, 0, 1.0], [0, 1, 0], [0, 1, 0]], ["1", "2"], [0, 1, 0, 0]),
        (["b", 1, "b", "10"], ["1", "10", "b"], [2, 0, 2, 1]),
    ],
)
def test_labels_become_classes_that_have_images(
    root: Path, write_images, labels: list[Any], names: list[str], numbers: list[int]
) -> None:
    write_images(root, NAMES)
    (root / "dataset.json").write_text(
        json.dumps({"labels": list(zip(NAMES, labels, strict=True))})
    )
    data = both(root)
    assert (data.class_names, data.labels.tolist()) == (names, numbers)


def test_one_hot_columns_name_their_classes(root: Path, write_images) -> None:
    write_images(root, NAMES)
    (root / "labels.csv").write_text("file,cat,dog\na.png,1,0\nb.png,0,1\nc.png,0,1.0\nd.png,1,0\n")
    data = both(root)
    assert data.class_names == ["cat", "dog"] and data.labels.tolist() == [0, 1, 1, 0]
    assert data.metadata.attributes is None


def test_the_other_columns_are_kept(root: Path, write_images) -> None:
    write_images(root, NAMES)
    (root / "labels.csv").write_text(
        "file,class,smiling,age,group,split,caption\n"
        'a.png,x,1,20.5,anna,train,"a, b"\nb.png,y,-1,3,bob,val,\nc.png,x,1,1,anna,,c\nd.png,y,0,0,eve,test,d\n'
    )
    train = both(root).metadata
    assert train.files == ["a.png", "c.png"] and train.splits == ["train", "train"]
    assert train.groups == ["anna", "anna"] and train.captions == ["a, b", "c"]
    assert train.attribute_names == ["smiling", "age"]
    assert train.attributes is not None and train.attributes.dtype == np.float32
    assert train.attributes.tolist() == [[1, 20.5], [1, 1]]
    assert both(root, "val").metadata.groups == ["bob"]


def test_attribute_vectors_are_no_classes(root: Path, write_images) -> None:
    write_images(root, NAMES)
    vectors = [[0.5, 1.5], [1, 1], [0, 0], [0, 1]]
    (root / "dataset.json").write_text(
        json.dumps({"labels": list(zip(NAMES, vectors, strict=True))})
    )
    data = both(root)
    assert data.class_names == ["all"]
    assert data.metadata.attributes is not None and data.metadata.attributes.tolist() == vectors
    assert data.labels.dtype == np.float32 and data.labels.tolist() == vectors
    assert data.spec.attributes == ("0", "1") and data.spec.label_width == 2
    assert data.spec.attribute_ranges == ((0, 1), (0, 1.5))
    assert [list(row) for row in data.spec.label_vectors] == vectors
    assert both(root, attributes=False).labels.tolist() == [0, 0, 0, 0]


def test_columns_can_be_labels_instead_of_classes(root: Path, write_images) -> None:
    write_images(root, NAMES)
    (root / "labels.csv").write_text(
        "file,class,smile,age\na.png,x,1,0.3\nb.png,y,0,0.8\nc.png,x,1,0.1\nd.png,y,0,0\n"
    )
    assert both(root).class_names == ["x", "y"] and not both(root).spec.attributes
    chosen = both(root, attributes=["age", "smile"])
    assert chosen.spec.attributes == ("age", "smile") and not chosen.spec.num_classes
    np.testing.assert_allclose(chosen.labels, [[0.3, 1], [0.8, 0], [0.1, 1], [0, 0]], rtol=1e-6)
    batch = chosen[1]
    assert batch.labels is not None and batch.labels.tolist() == pytest.approx(np.array([[0.8, 0]]))
    assert both(root, attributes="age").spec.attributes == ("age",)
    assert both(root, attributes=True).spec.attributes == ("smile", "age")
    assert "smile, age" in refusal(root, attributes=["smiling"])
    (root / "labels.csv").unlink()
    assert "has none" in refusal(root, attributes=True)


def test_attributes_of_another_scale_are_reported(
    root: Path, write_images, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(root, NAMES)
    (root / "labels.csv").write_text(
        "file,smile,age\na.png,1,30\nb.png,0,80\nc.png,1,3\nd.png,0,1\n"
    )
    assert ImageFolder(split="train", root=root).spec.attributes == ("smile", "age")
    output = capsys.readouterr().out
    assert "age" in output and "80" in output and "smile" in output


def test_a_table_of_captions_leaves_the_classes_to_the_folders(root: Path, write_images) -> None:
    write_images(root, ["cat/1.png", "dog/2.png"])
    (root / "labels.jsonl").write_text('{"file": "dog/2.png", "text": "a dog"}\n')
    data = both(root)
    assert data.class_names == ["cat", "dog"] and data.metadata.captions == ["", "a dog"]
    (root / "labels.jsonl").unlink()
    (root / "dataset.json").write_text('{"labels": null}')
    assert both(root).class_names == ["all"], "it says that there are no classes"
    assert both(root, classes=True).class_names == ["cat", "dog"]


def test_a_table_in_each_split(root: Path, write_images) -> None:
    write_images(root, ["train/a.png", "train/b.png", "val/a.png", "test/a.png"])
    (root / "train" / "labels.csv").write_text("file,class\na.png,x\nb.png,y\n")
    (root / "val" / "labels.csv").write_text("file,class\na.png,y\n")
    assert by_file(both(root)) == {"train/a.png": "x", "train/b.png": "y"}
    assert by_file(both(root, "val")) == {"val/a.png": "y"}


ROWS = [[name, 0] for name in NAMES]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset.json", "{", "dataset.json is damaged"),
        ("dataset.json", "[" * 100_000, "dataset.json is damaged"),
        ("dataset.json", "9" * 5000, "dataset.json is damaged"),
        ("dataset.json", "3", "must hold an object"),
        ("dataset.json", '{"labels": null, "spacing": [0.8, 0]}', "spacing"),
        ("dataset.json", '{"labels": null, "spacing": "0.8"}', "spacing"),
        ("dataset.json", {"labels": 3}, "pairs of a name and a number"),
        ("dataset.json", {"labels": [[3, 3]]}, "pairs of a name and a number"),
        ("dataset.json", {"labels": ROWS[1:]}, "no label for 1 image: a.png"),
        ("dataset.json", {"labels": [*ROWS, ["x.png", 0]]}, "1 file that are missing: x.png"),
        ("dataset.json", {"labels": [*ROWS, ["../a.png", 0]]}, "1 file that are missing: ../a.png"),
        ("dataset.json", {"labels": [*ROWS[1:], ["a.png", 10**9]]}, "they are not for a.png (1000000000)"),
        ("dataset.json", {"labels": [*ROWS[1:], ["a.png", -1]]}, "they are not for a.png (-1)"),
        ("dataset.json", {"labels": [*ROWS[1:], ["a.png", 0.5]]}, "they are not for a.png (0.5)"),
        ("dataset.json", {"labels": [*ROWS[1:], ["a.png", True]]}, "they are not for a.png (True)"),
        ("dataset.json", {"labels": [*ROWS[1:], ["a.png", float("nan")]]}, "they are not for a.png (nan)"),
        ("dataset.json", {"labels": [*ROWS[1:], ["a.png", float("inf")]]}, "they are not for a.png (inf)"),
        ("dataset.json", {"labels": [*ROWS[1:], ["a.png", [0, 1]]]}, "they are not for a.png ([0, 1])"),
        ("dataset.json", {"labels": [[n, [0.5] * i] for i, n in enumerate(NAMES)]}, "as many finite numbers"),
        ("dataset.json", {"labels": [[n, [1e400, 0]] for n in NAMES]}, "as many finite numbers"),
        ("dataset.json", {"labels": [[n, 5] for n in NAMES], "class_names": ["a"]}, "names 1 class"),
        ("dataset.json", {"labels": ROWS, "class_names": 3}, 'a list of names as "class_names"'),
        ("labels.csv", "a.png,9" + "9" * 5000 + "\nb.png,1\nc.png,1\nd.png,1\n", "0 to 999,999"),
        ("labels.csv", "file,class\na.png,1,2\n", "3 cells in line 2 and 2 in its first"),
        ("labels.csv", "", "is empty"),
        ("labels.csv", b"file,class\n\xff\xfe", "is no text in UTF-8"),
        ("labels.csv", "id,species\n1,cat\n", "needs a header with file and class"),
        ("labels.csv", "file,class\na.png,1\na.png,2\n", "several rows for a.png"),
        ("labels.csv", "file,split\na.png,extra\n", "the split extra; allowed: train, val, test"),
        ("labels.jsonl", '{"class": 1}', "must name the file in every row"),
    ],
)  # fmt: skip
def test_tables_that_do_not_fit_are_named(
    root: Path, write_images, name: str, content: Any, message: str
) -> None:
    write_images(root, NAMES)
    if isinstance(content, dict):
        content = json.dumps(content)
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = refusal(root)
    assert message in found and name in found


def test_two_tables_for_an_image_are_rejected(root: Path, write_images) -> None:
    write_images(root, NAMES)
    for name in ("labels.csv", "dataset.json"):
        (root / name).write_text(TABLES[name])
    assert "has a row in dataset.json and in labels.csv; remove one" in refusal(root)


def test_a_row_of_an_image_that_was_passed_over_is_no_error(root: Path, write_images) -> None:
    write_images(root, NAMES)
    (root / "e.psd").write_bytes(b"8BPS")
    (root / "labels.json").write_text(json.dumps(dict.fromkeys([*NAMES, "e.psd"], 0)))
    assert len(both(root)) == 4


# the table itself


def full_table() -> MetadataTable:
    return MetadataTable(
        files=["a", "b", "c"],
        labels=np.array([0, 1, 1]),
        class_names=["x", "y"],
        attributes=np.array([[0, 1], [2, 3], [4, 5]], dtype=np.float32),
        attribute_names=["p", "q"],
        groups=["g", "h", "g"],
        splits=["train", "val", "train"],
        captions=["", "one", "two"],
    )


def test_rows_and_joining_undo_each_other() -> None:
    table = full_table()
    again = join_tables([table.rows([0]), table.rows([1, 2])])
    assert again.content() == table.content()
    assert table.rows([2, 0]).captions == ["two", ""]
    other = MetadataTable(files=["d"], labels=np.array([0]), class_names=["z"])
    with pytest.raises(InputError, match="class_names differ"):
        join_tables([table, other])


def test_prepare_data_keeps_the_table(root: Path, write_images, tmp_path: Path) -> None:
    write_images(root, NAMES, size=(8, 8))
    (root / "labels.csv").write_text(
        "file,class,smiling,group,split,caption\n"
        "a.png,x,1,anna,train,first\nb.png,y,-1,bob,val,\nc.png,x,1,anna,,third\nd.png,y,0,eve,test,d\n"
    )
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        options = [f"data.root={root}", f"out={tmp_path / 'out.zip'}", "size=4"]
        prepare_data.run(compose("prepare_data", overrides=options))
    for split in ("train", "val"):
        before = ImageFolder(split=split, root=root).metadata
        after = Zip(split=split, root=tmp_path / "out.zip").metadata
        assert len(before) == len(after) == {"train": 2, "val": 1}[split]
        assert after.files != before.files
        for column in ("class_names", "attribute_names", "groups", "splits", "captions"):
            assert getattr(after, column) == getattr(before, column)
        np.testing.assert_equal(after.labels, before.labels)
        np.testing.assert_equal(after.attributes, before.attributes)
