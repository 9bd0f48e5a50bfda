import errno
import json
import multiprocessing
import os
import signal
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image

from gan_lab.commands import prepare_data
from gan_lab.commands.launch import launch
from gan_lab.data import packing
from gan_lab.data.builtin import Digits
from gan_lab.data.image_folder import ImageFolder, Zip
from gan_lab.data.packing import Damaged
from gan_lab.data.shards import shard_name
from gan_lab.data.streaming import StreamedSamples
from gan_lab.errors import InputError
from tests.helpers.prepared import config, prepare
from tests.helpers.samples import pair


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAN_LAB_CACHE", str(tmp_path / "cache_of_gan_lab"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Forty JPEG files of two classes and two sizes."""
    root = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for index in range(40):
        size = (20, 30, 3) if index % 2 else (32, 24, 3)
        path = root / ("cat" if index < 15 else "dog") / f"{index:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(path)
    return root


def test_packs_a_folder_that_reads_back_the_same(photos: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "new" / "photos16.zip"
    prepare(f"data.root={photos}", f"out={out}", "size=16", "data.val_fraction=0.3")
    for split in ("train", "val"):
        source = ImageFolder(split=split, root=photos, image_size=16, val_fraction=0.3)
        packed = Zip(split=split, root=out)
        assert packed.image_size == (16, 16)
        assert packed.class_names == ["cat", "dog"]
        everything = range(len(source))
        for ours, theirs in zip(
            pair(packed.__getitems__(everything)),
            pair(source.__getitems__(everything)),
            strict=True,
        ):
            assert torch.equal(ours, theirs)
        assert len(packed) == len(source)
    assert "40 samples of 3 x 16 x 16, 2 classes" in capsys.readouterr().out
    assert sorted(path.name for path in out.parent.iterdir()) == ["photos16.zip"]


def test_layout_is_that_of_the_common_tools(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.zip"
    prepare(f"data.root={photos}", f"out={out}", "size=16")
    with zipfile.ZipFile(out) as archive:
        labels = dict(json.loads(archive.read("dataset.json"))["labels"])
        images = [info for info in archive.infolist() if info.filename != "dataset.json"]
        assert {info.filename for info in images} == set(labels)
        assert {info.compress_type for info in images} == {zipfile.ZIP_STORED}
        for info in images:
            with archive.open(info) as file, Image.open(file) as image:
                assert (image.format, image.size) == ("PNG", (16, 16))
    assert sorted(labels.values()) == [0] * 15 + [1] * 25


@pytest.mark.parametrize(
    ("options", "crop", "resample"),
    [
        (["crop=none", "resample=box"], "none", "box"),
        (["crop=18", "resample=lanczos"], 18, "lanczos"),
        (["crop=[18,20]", "data.resample=bilinear"], [18, 20], "bilinear"),
    ],
)
def test_crop_and_filter_are_those_requested(
    photos: Path, tmp_path: Path, options: list[str], crop: object, resample: str
) -> None:
    out = tmp_path / "a.zip"
    prepare(f"data.root={photos}", f"out={out}", "size=[8,12]", *options)
    source = ImageFolder(
        split="train", root=photos, image_size=[8, 12], crop=crop, resample=resample
    )
    packed = Zip(split="train", root=out)
    assert torch.equal(packed.__getitems__(range(40)).real, source.__getitems__(range(40)).real)


def test_packs_digits_with_their_splits(tmp_path: Path) -> None:
    out = tmp_path / "digits.zip"
    prepare("data=digits", f"out={out}", "data.flip=true")
    for split in ("train", "val"):
        packed, source = Zip(split=split, root=out), Digits(split=split)
        assert (packed.channels, packed.class_names) == (1, source.class_names)
        assert len(packed) == len(source)
        assert torch.equal(
            packed.__getitems__(range(360)).real, source.__getitems__(range(360)).real
        )
    prepare("data=digits", f"out={tmp_path / 'val.zip'}", "split=val")
    assert len(Zip(split="train", root=tmp_path / "val.zip")) == 360


def test_what_cannot_be_read_is_named_and_left_out(photos: Path, tmp_path: Path, capsys) -> None:
    cut, damaged = photos / "cat" / "003.jpg", photos / "dog" / "damaged.png"
    cut.write_bytes(cut.read_bytes()[:-99])
    Image.effect_noise((30, 30), 50).convert("RGB").save(damaged)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 255  # its beginning and its end are whole
    damaged.write_bytes(data)
    out = tmp_path / "a.zip"
    with pytest.raises(InputError, match=r"cat/003.jpg .* dog/damaged.png .*data.skip_unreadable"):
        prepare(f"data.root={photos}", f"out={out}", "size=16")
    assert not out.exists()
    prepare(f"data.root={photos}", f"out={out}", "size=16", "data.skip_unreadable=true")
    listing = (tmp_path / "a.zip.unreadable.txt").read_text().splitlines()
    assert [line.partition(":")[0] for line in listing] == ["cat/003.jpg", "dog/damaged.png"]
    assert "left out 2 files that could not be read" in capsys.readouterr().out
    packed = Zip(split="train", root=out)
    assert packed.class_counts == [14, 25]


def test_what_only_decoding_finds_damaged_ends_it_with_all_names(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.zip"
    encode = prepare_data._encode
    encoded: list[int] = []

    def failing(item: prepare_data.Item, beside: object) -> object:
        encoded.append(item[1])
        return Damaged(reason="cut short") if item[1] in (3, 30) else encode(item, beside)

    monkeypatch.setattr(prepare_data, "_encode", failing)
    settings = [f"data.root={photos}", f"out={out}", "size=16"]
    with pytest.raises(InputError, match=r"2 files .*cat/003.jpg \(cut short\), dog/030.jpg"):
        prepare(*settings)
    assert not out.exists() and len(encoded) == 40
    prepare(*settings, "data.skip_unreadable=true")
    assert len(encoded) == 40, "it goes on with what is packed"
    assert Zip(split="train", root=out).class_counts == [14, 24]


def slow_child(settings: DictConfig, images: int) -> None:
    """Prepare, slowly and with frequent checkpoints, in a process that is to be killed."""
    encode = prepare_data._encode

    def slowly(item: prepare_data.Item, beside: object) -> object:
        time.sleep(0.02)
        return encode(item, beside)

    prepare_data._encode = slowly  # type: ignore[assignment]
    packing.CHECKPOINT_SAMPLES = images
    prepare_data.run(settings)


@pytest.mark.parametrize("images", [1, 7])
def test_killed_and_started_again_ends_in_the_same_file(
    photos: Path, tmp_path: Path, images: int
) -> None:
    whole, out = tmp_path / "whole.zip", tmp_path / "out.zip"
    prepare(f"data.root={photos}", f"out={whole}", "size=16")
    settings = config(f"data.root={photos}", f"out={out}", "size=16", "num_threads=1")
    child = multiprocessing.get_context("fork").Process(target=slow_child, args=(settings, images))
    child.start()
    journal = tmp_path / "out.zip.journal"
    deadline = time.monotonic() + 60
    while not (journal.exists() and json.loads(journal.read_bytes().split(b"\n")[0])["done"] > 8):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not out.exists()
    prepare_data.run(settings)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.glob("out.zip*")) == ["out.zip"]


def test_goes_on_where_it_stopped(photos: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    encode = prepare_data._encode
    done: list[int] = []

    def failing(item: prepare_data.Item, beside: object) -> object:
        done.append(item[1])
        if len(done) == 20:
            raise KeyboardInterrupt
        return encode(item, beside)

    options = [f"data.root={photos}", f"out={tmp_path / 'a.zip'}", "size=16", "num_threads=1"]
    monkeypatch.setattr(packing, "CHECKPOINT_SAMPLES", 5)
    monkeypatch.setattr(prepare_data, "_encode", failing)
    with pytest.raises(KeyboardInterrupt):
        prepare(*options)
    before = len(done)
    prepare(*options)
    assert "resuming after 15 of 40 samples" in capsys.readouterr().out
    assert done[before:] == list(range(15, 40))


def test_changed_options_start_again(photos: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "a.zip"
    encode = prepare_data._encode
    monkeypatch.setattr(packing, "CHECKPOINT_SAMPLES", 5)

    def interrupted(item: prepare_data.Item, beside: object) -> object:
        if item[1] == 30:
            raise KeyboardInterrupt
        return encode(item, beside)

    monkeypatch.setattr(prepare_data, "_encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(f"data.root={photos}", f"out={out}", "size=16")
    monkeypatch.setattr(prepare_data, "_encode", encode)
    prepare(f"data.root={photos}", f"out={out}", "size=8")
    packed = Zip(split="train", root=out)
    assert (packed.image_size, len(packed)) == ((8, 8), 40)


def test_a_full_disk_is_reported_and_nothing_is_lost(
    photos: Path, tmp_path: Path, monkeypatch
) -> None:
    whole, out = tmp_path / "whole.zip", tmp_path / "out.zip"
    prepare(f"data.root={photos}", f"out={whole}", "size=16")
    write = zipfile.ZipFile.writestr
    written: list[str] = []

    def full(self: zipfile.ZipFile, member: zipfile.ZipInfo, data: bytes) -> None:
        written.append(member.filename)
        if len(written) > 23:
            self.fp.write(data[: len(data) // 2])  # type: ignore[union-attr]
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, member, data)

    monkeypatch.setattr(packing, "CHECKPOINT_SAMPLES", 10)
    options = [f"data.root={photos}", f"out={out}", "size=16"]
    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "writestr", full)
        with pytest.raises(InputError, match="is full; make room and give the same command again"):
            prepare(*options)
    assert not out.exists()
    prepare(*options)
    assert out.read_bytes() == whole.read_bytes()


def test_a_finished_zip_is_kept_without_overwrite(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.zip"
    out.write_bytes(b"precious")
    with pytest.raises(InputError, match="exists; set overwrite=true to replace it"):
        prepare(f"data.root={photos}", f"out={out}", "size=16")
    assert out.read_bytes() == b"precious"
    prepare(f"data.root={photos}", f"out={out}", "size=16", "overwrite=true")
    assert len(Zip(split="train", root=out)) == 40


def test_bad_options_are_reported(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"out is not set; set out=photos64.zip"):
        prepare(f"data.root={photos}")
    with pytest.raises(InputError, match="is a folder with other files; set out="):
        prepare(f"data.root={photos}", f"out={tmp_path}")
    assert launch("prepare-data", [f"data.root={photos}", "out=a.zip", "split=test"]) == 2
    with pytest.raises(InputError, match="different sizes"):
        prepare(f"data.root={photos}", f"out={tmp_path / 'a.zip'}")
    with pytest.raises(InputError, match="there are no validation images"):
        prepare(f"data.root={photos}", f"out={tmp_path / 'a.zip'}", "split=val", "size=8")
    assert not list(tmp_path.glob("a.zip*"))


def test_processes_make_the_same_bytes(photos: Path, tmp_path: Path) -> None:
    outs = []
    for count in (1, 3):
        outs += [tmp_path / f"{count}.zip", tmp_path / f"shards{count}"]
        for out in outs[-2:]:
            prepare(
                f"data.root={photos}",
                f"out={out}",
                "size=16",
                f"processes={count}",
                "shard_mb=0.006",
            )
    assert outs[0].read_bytes() == outs[2].read_bytes()
    names = sorted(path.name for path in outs[1].iterdir())
    assert names == ["index.npz", *(shard_name(number) for number in range(6))]
    assert all((outs[1] / name).read_bytes() == (outs[3] / name).read_bytes() for name in names)


def test_parts_of_jobs_make_one_folder(photos: Path, tmp_path: Path, capsys) -> None:
    whole, out = tmp_path / "whole", tmp_path / "parts"
    overrides = [f"data.root={photos}", "size=16", "shard_mb=0.006", "data.val_fraction=0.3"]
    prepare(*overrides, f"out={whole}")
    count = len(list(whole.glob("*.zip")))
    prepare(*overrides, f"out={out}", "part=3/3")
    assert f"part 3 of 3 is done, {count // 3} shards of {count}" in " ".join(
        capsys.readouterr().out.split()
    )
    with pytest.raises(InputError, match=r"shards are missing: shard-000000.zip"):
        prepare(f"out={out}", "merge=true")
    for part in (1, 2):
        prepare(*overrides, f"out={out}", f"part={part}/3")
    prepare(f"out={out}", "merge=true")
    for path in whole.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
    source = ImageFolder(split="val", root=photos, image_size=16, val_fraction=0.3)
    packed = StreamedSamples(split="val", root=str(out))
    assert packed.class_names == source.class_names and packed.class_counts == source.class_counts
    with pytest.raises(InputError, match="exists; set overwrite=true"):
        prepare(*overrides, f"out={out}")
    prepare(*overrides, f"out={out}", "overwrite=true")


def test_shards_of_other_settings_are_not_mixed(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "shards"
    prepare(f"data.root={photos}", f"out={out}", "size=16", "shard_mb=0.006", "part=1/2")
    prepare(
        f"data.root={photos}", f"out={out}", "size=16", "shard_mb=0.006", "part=2/2", "resample=box"
    )
    with pytest.raises(InputError, match="are of other data or settings"):
        prepare(f"out={out}", "merge=true")
    prepare(f"data.root={photos}", f"out={out}", "size=16", "shard_mb=0.006", "resample=box")
    assert StreamedSamples(split="train", root=str(out)).num_stored == 40


def test_shards_go_on_where_they_stopped(photos: Path, tmp_path: Path, monkeypatch) -> None:
    encode = prepare_data._encode
    encoded: list[int] = []

    def failing(item: prepare_data.Item, beside: object) -> object:
        encoded.append(item[1])
        if len(encoded) == 20:
            raise KeyboardInterrupt
        return encode(item, beside)

    monkeypatch.setattr(prepare_data, "_encode", failing)
    overrides = [
        f"data.root={photos}",
        f"out={tmp_path / 'a'}",
        "size=16",
        "shard_mb=0.006",
        "num_threads=1",
    ]
    with pytest.raises(KeyboardInterrupt):
        prepare(*overrides)
    finished = len(list((tmp_path / "a").glob("*.zip")))
    before = len(encoded)
    prepare(*overrides)
    assert (finished, len(encoded) - before) == (2, 40 - 2 * 7)
    prepare(*[word.replace("/a", "/b") for word in overrides])
    for path in (tmp_path / "b").iterdir():
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()


def test_shards_keep_levels_attributes_and_groups(tmp_path: Path) -> None:
    root = tmp_path / "deep"
    root.mkdir()
    rng = np.random.default_rng(0)
    rows = ["file,smile,age,patient"]
    for number in range(12):
        levels = rng.integers(0, 65536, (8, 8), dtype=np.uint16)
        Image.fromarray(levels).save(root / f"{number}.png")
        rows.append(f"{number}.png,{number % 2},{number / 12:.3f},p{number // 3}")
    (root / "labels.csv").write_text("\n".join(rows))
    out = tmp_path / "shards"
    overrides = [f"data.root={root}", "data.attributes=[age]", "data.folds=4", "shard_mb=0.0004"]
    prepare(*overrides, f"out={out}")
    arguments = {"root": root, "attributes": ["age"], "folds": 4}
    for split in ("train", "val"):
        packed, source = (
            StreamedSamples(split=split, root=str(out)),
            ImageFolder(split=split, **arguments),
        )
        assert packed.spec.kind.arguments == source.spec.kind.arguments
        assert (
            packed.spec.attributes == ("age",) and packed.spec.num_groups == source.spec.num_groups
        )
        theirs = {source.labels[i, 0]: source.load(i).numpy().tobytes() for i in range(len(source))}
        ours = {packed.labels[i, 0]: packed.load(i).numpy().tobytes() for i in range(len(packed))}
        assert ours == theirs
    again = tmp_path / "again.zip"
    prepare("data=streaming", f"data.root={out}", f"out={again}")
    packed = Zip(split="val", root=again, attributes=["age"])
    assert len(packed) == len(source) and packed.spec.num_groups == 1


def test_shards_of_damaged_images_are_short(photos: Path, tmp_path: Path, monkeypatch) -> None:
    encode = prepare_data._encode

    def failing(item: prepare_data.Item, beside: object) -> object:
        return Damaged(reason="cut short") if item[1] in (3, 30) else encode(item, beside)

    monkeypatch.setattr(prepare_data, "_encode", failing)
    out = tmp_path / "shards"
    overrides = [f"data.root={photos}", f"out={out}", "size=16", "shard_mb=0.006"]
    with pytest.raises(InputError, match="cut short"):
        prepare(*overrides)
    prepare(*overrides, "data.skip_unreadable=true")
    assert StreamedSamples(split="train", root=str(out)).class_counts == [14, 24]
    assert len((out / "part-1.unreadable.txt").read_text().splitlines()) == 2


def test_options_of_shards_are_checked(photos: Path, tmp_path: Path) -> None:
    for overrides, message in (
        (["out=a.zip", "part=1/2"], "part=1/2 is of a folder"),
        ([f"out={tmp_path / 'a.b'}", "size=8"], r"a\.b: a zip ends in .zip.*out=a\.zip or out=a"),
        (["out=a", "part=3/2"], "part=3/2; allowed"),
        (["out=a", "part=half"], "part=half; allowed"),
        ([f"out={tmp_path / 'none'}", "merge=true"], "is not a folder of shards"),
    ):
        with pytest.raises(InputError, match=message):
            prepare(f"data.root={photos}", *overrides)
    assert launch("prepare-data", ["out=a", "shard_mb=5000"]) == 2


def is_running(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_pool_ends_with_its_parent(photos: Path, tmp_path: Path, monkeypatch) -> None:
    encode = prepare_data._encode

    def slowly(item: prepare_data.Item, beside: object) -> object:
        (tmp_path / f"pid{os.getpid()}").touch()
        time.sleep(0.2)
        return encode(item, beside)

    monkeypatch.setattr(prepare_data, "_encode", slowly)
    settings = config(f"data.root={photos}", f"out={tmp_path / 'a.zip'}", "size=16", "processes=2")
    child = multiprocessing.get_context("fork").Process(target=prepare_data.run, args=(settings,))
    child.start()
    deadline = time.monotonic() + 60
    while len(found := list(tmp_path.glob("pid*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    pids = [int(path.name[3:]) for path in found]
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    monkeypatch.setattr(prepare_data, "_encode", encode)
    prepare(f"data.root={photos}", f"out={tmp_path / 'a.zip'}", "size=16", "processes=2")


def test_a_killed_process_of_the_pool_is_one_line(
    photos: Path, tmp_path: Path, monkeypatch
) -> None:
    encode = prepare_data._encode

    def dying(item: prepare_data.Item, beside: object) -> object:
        if item[1] == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(item, beside)

    monkeypatch.setattr(prepare_data, "_encode", dying)
    overrides = [f"data.root={photos}", f"out={tmp_path / 'a.zip'}", "size=16", "processes=2"]
    with pytest.raises(InputError, match=r"was killed.*processes="):
        prepare(*overrides)
    monkeypatch.setattr(prepare_data, "_encode", encode)
    prepare(*overrides)
    assert len(Zip(split="train", root=tmp_path / "a.zip")) == 40
