"""Shards of every kind of sample hold what was packed, and give the same stream for any number of ranks and workers."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from gan_lab.commands import prepare_data
from gan_lab.commands.launch import launch
from gan_lab.data.audio_folder import AudioFolder
from gan_lab.data.base import MissingSplit, SampleDataset
from gan_lab.data.builtin import Phantoms
from gan_lab.data.image_folder import Zip
from gan_lab.data.shards import INDEX, read_index
from gan_lab.data.streaming import StreamedSamples
from gan_lab.data.text_files import TextFiles
from gan_lab.errors import InputError
from tests.helpers.autoencoder import write_autoencoder
from tests.helpers.checkpoints import assert_same, final
from tests.helpers.prepared import config, prepare
from tests.helpers.sounds import write_sines
from tests.helpers.streams import content, shown
from tests.helpers.zips import write_zip
from tests.probes.pairs import Outlines
from tests.probes.waveforms import Sines

SOUND = {"rate": 8000, "length": 256, "val_fraction": 0.3}
TEXT = {"length": 12, "classes": "file", "val_fraction": 0.3}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds")


def packed(root: Path, name: str, *overrides: object) -> Path:
    """Pack a data set into a zip, or with a size of shards into a folder of these."""
    out = root / name
    if not out.exists():
        prepare(*overrides, f"out={out}")
    return out


def keys(arguments: dict[str, Any]) -> list[str]:
    return [f"data.{key}={value}" for key, value in arguments.items()]


@pytest.fixture(scope="module")
def clips(root: Path) -> Path:
    """Twenty clips of 600 samples in two classes."""
    return write_sines(root / "clips", count=10, length=600)


@pytest.fixture(scope="module")
def sounds(root: Path, clips: Path) -> Path:
    overrides = ["data=audio", f"data.root={clips}", *keys(SOUND)]
    return packed(root, "sounds", *overrides, "shard_mb=0.0037")


@pytest.fixture(scope="module")
def poems(root: Path) -> Path:
    """Lines of two files, some shorter and some longer than twelve characters."""
    folder = root / "poems"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name, letters in (("greek", "αβγδ "), ("latin", "abcdé ")):
        sizes = draw.integers(3, 20, 1200)
        lines = ["x" + "".join(draw.choice(list(letters), size)) for size in sizes]
        (folder / f"{name}.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def texts(root: Path, poems: Path) -> Path:
    overrides = ["data=text", f"data.root={poems}", *keys(TEXT)]
    return packed(root, "texts", *overrides, "shard_mb=0.0025")


def assert_the_same(shards: SampleDataset, source: SampleDataset) -> None:
    assert Counter(map(str, content(shards))) == Counter(map(str, content(source)))
    ours, theirs = shards.spec.as_dict(), source.spec.as_dict()
    assert {**ours, "label_vectors": 0} == {**theirs, "label_vectors": 0}


@pytest.mark.parametrize("split", ["train", "val"])
def test_sounds_and_all_of_their_crops(root: Path, clips: Path, sounds: Path, split: str) -> None:
    data = StreamedSamples(split=split, root=str(sounds))
    source = AudioFolder(split=split, root=clips, **SOUND)
    assert len(data._shards) > 2 - (split == "val")
    assert len(data) == source.num_stored * (16 if split == "train" else 1)
    assert_the_same(data, source)
    overrides = ["data=audio", f"data.root={clips}", *keys(SOUND)]
    zipped = packed(root, "sounds.zip", *overrides)
    arguments = {**SOUND, "val_fraction": 0}
    assert_the_same(AudioFolder(split=split, root=zipped, **arguments), source)


@pytest.mark.parametrize("pad", ["end", "center"])
def test_short_sounds_are_padded_as_in_the_folder(tmp_path: Path, clips: Path, pad: str) -> None:
    arguments = {"rate": 8000, "length": 700, "pad": pad}
    prepare("data=audio", f"data.root={clips}", *keys(arguments), f"out={tmp_path / 'shards'}")
    data = StreamedSamples(split="train", root=str(tmp_path / "shards"))
    assert_the_same(data, AudioFolder(split="train", root=clips, **arguments))


@pytest.mark.parametrize("split", ["train", "val"])
def test_lines_of_text(root: Path, poems: Path, texts: Path, split: str) -> None:
    data = StreamedSamples(split=split, root=str(texts))
    source = TextFiles(split=split, root=poems, **TEXT)  # type: ignore[arg-type]
    assert len(data._shards) > 2
    assert_the_same(data, source)
    overrides = ["data=text", f"data.root={poems}", *keys(TEXT)]
    again = ["data=streaming", f"data.root={texts}"]
    for array in (packed(root, "texts.npz", *overrides), packed(root, "again.npz", *again)):
        assert_the_same(data, TextFiles(split=split, root=array))


@pytest.mark.parametrize("kind", ["sounds", "texts"])
def test_the_stream_is_the_same_for_any_ranks_and_workers_and_resumed(
    kind: str, request: pytest.FixtureRequest
) -> None:
    folder = str(request.getfixturevalue(kind))
    opened = lambda: StreamedSamples(split="train", root=folder, window=2)  # noqa: E731
    whole = shown(opened(), start=0, ranks=1, workers=0, images=600)
    other = shown(opened(), start=0, ranks=3, workers=2, images=240)
    assert all(torch.equal(one, two) for one, two in zip(whole[:20], other, strict=True))
    resumed = shown(opened(), start=360, ranks=2, workers=1, images=600)
    assert all(torch.equal(one, two) for one, two in zip(whole[30:], resumed, strict=True))


def test_slices_of_sixteen_bits_with_patients_and_series(root: Path) -> None:
    overrides = ["data=phantoms", "data.image_size=16", "split=val", "shard_mb=0.1"]
    folder = packed(root, "phantoms", *overrides)
    data, source = (
        StreamedSamples(split="val", root=str(folder)),
        Phantoms(split="val", image_size=16),
    )
    assert Counter(content(data)) == Counter(content(source))
    assert (
        data[0].real.dtype == torch.uint16
        and data.spec.kind.arguments == source.spec.kind.arguments
    )
    rows, theirs = data.metadata, source.metadata
    assert Counter(rows.groups or ()) == Counter(theirs.groups or ())
    assert len(set(data.groups or ())) == len(set(theirs.groups or ()))
    assert rows.series is None or Counter(rows.series) == Counter(theirs.series or ())


def own(target: str, *overrides: object) -> Any:
    """Return the configuration of a data set that is not one of gan_lab's."""
    made = config("data=digits", *overrides)
    made.data = OmegaConf.create({"_target_": target, "_partial_": True})
    return made


def test_pairs_keep_their_sources(tmp_path: Path) -> None:
    target = "tests.probes.pairs.Outlines"
    prepare_data.run(own(target, f"out={tmp_path / 'pairs'}", "shard_mb=0.001"))
    data, source = (
        StreamedSamples(split="train", root=str(tmp_path / "pairs")),
        Outlines(split="train"),
    )
    ours, theirs = (one.__getitems__(range(96)) for one in (data, source))
    assert ours.source is not None and theirs.source is not None
    both = [
        Counter(zip(map(bytes, batch.real.numpy()), map(bytes, batch.source.numpy()), strict=True))
        for batch in (ours, theirs)
    ]
    assert both[0] == both[1]
    assert data.spec.source is not None and data.sources([3]).shape == (1, 1, 8, 8)
    with pytest.raises(InputError, match=r"out=.*pairs.zip: the data are pairs"):
        prepare_data.run(own(target, f"out={tmp_path / 'pairs.zip'}"))
    (shard,) = [tmp_path / "pairs" / s["name"] for s in data._shards[:1]]
    assert len(Zip(split="train", root=shard)) == data._shards[0]["count"], "sources are no samples"


def test_a_kind_of_your_own_is_trusted_by_its_package(tmp_path: Path) -> None:
    folder = tmp_path / "sines"
    prepare_data.run(own("tests.probes.waveforms.Sines", f"out={folder}", "shard_mb=0.001"))
    with pytest.raises(InputError, match=r"tests.probes.waveforms.Waveform.*trust"):
        StreamedSamples(split="train", root=str(folder))
    data = StreamedSamples(split="train", root=str(folder), trust=["tests"])
    assert Counter(content(data)) == Counter(content(Sines(split="train")))
    with pytest.raises(MissingSplit):
        StreamedSamples(split="val", root=str(folder), trust=["tests"])


def test_tables_keep_captions_and_attributes_that_are_no_labels(tmp_path: Path) -> None:
    photos, again = tmp_path / "photos", tmp_path / "again.zip"
    photos.mkdir()
    rows = ["file,smile,age,patient,caption"]
    for number in range(12):
        Image.new("L", (4, 4), number).save(photos / f"{number}.png")
        rows.append(f"{number}.png,{number % 2},{number / 12:.3f},p{number // 3},image {number}")
    (photos / "labels.csv").write_text("\n".join(rows))
    overrides = [f"data.root={photos}", "data.attributes=[age]", "shard_mb=0.00006"]
    prepare(*overrides, f"out={tmp_path / 'shards'}")
    prepare("data=streaming", f"data.root={tmp_path / 'shards'}", f"out={again}")
    data = Zip(split="train", root=again, attributes=["age", "smile"])
    table = data.metadata
    assert len(data) == 12 and table.captions is not None and table.groups is not None
    for index in range(12):
        number = int(data.load(index)[0, 0, 0])
        assert (
            table.captions[index] == f"image {number}" and table.groups[index] == f"p{number // 3}"
        )
        np.testing.assert_allclose(data.labels[index], [number / 12, number % 2], atol=1e-3)


def test_latents_lie_beside_their_images(tmp_path: Path) -> None:
    model = write_autoencoder(tmp_path / "model")
    write_zip(tmp_path / "photos.zip", {"labels": None}, size=(8, 8))
    overrides = ["data=zip", f"data.root={tmp_path}/photos.zip"]
    chosen = ["representation=autoencoder", f"representation.model={model}"]
    prepare(*overrides, *chosen, f"out={tmp_path / 'shards'}", "shard_mb=0.0006")
    prepare(*overrides, *chosen, f"out={tmp_path / 'all.zip'}")
    data = StreamedSamples(split="train", root=str(tmp_path / "shards"))
    whole = Zip(split="train", root=tmp_path / "all.zip")
    assert data.packed_by == whole.packed_by != ""
    latents = {whole.load(i).numpy().tobytes(): whole.load_packed(i) for i in range(len(whole))}
    for index in range(data.num_stored):
        expected = latents[data.load(index).numpy().tobytes()]
        torch.testing.assert_close(data.load_packed(index), expected, rtol=1e-2, atol=1e-2)


def test_what_images_alone_have_is_rejected(sounds: Path) -> None:
    for options in ({"flip": True}, {"image_size": 8}):
        with pytest.raises(InputError, match="is for images, and the shards hold audio"):
            StreamedSamples(split="train", root=str(sounds), **options)  # type: ignore[arg-type]


def test_parts_of_jobs_make_one_folder(clips: Path, sounds: Path, tmp_path: Path) -> None:
    out = tmp_path / "parts"
    overrides = ["data=audio", f"data.root={clips}", *keys(SOUND), f"out={out}", "shard_mb=0.0037"]
    for part in (2, 3, 1):
        prepare(*overrides, f"part={part}/3")
    prepare(f"out={out}", "merge=true")
    assert read_index(out / INDEX).digest == read_index(sounds / INDEX).digest
    for path in sounds.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()


RUNS = {
    "sounds": ["model=wavegan", "d_steps=2", "metrics=none", "model.generator.width=2", "model.discriminator.width=2"],
    "texts": ["model=wgan_gp_text", "metrics=none", "model.generator.width=4", "model.discriminator.width=4"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
def test_a_run_trains_resumes_evaluates_and_generates(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(kind)
    common = [
        *RUNS[kind], "data=streaming", f"data.root={folder}", "data.window=2", "batch_size=8", "trainer=cpu",
        f"runs_dir={tmp_path}", "callbacks.checkpointing.every_kimg=0.08", "callbacks.samples.every_kimg=0.08",
    ]  # fmt: skip
    assert launch("train", [*common, "total_kimg=0.16", "num_workers=0", "name=whole"]) == 0
    assert launch("train", [*common, "total_kimg=0.08", "num_workers=2", "name=parts"]) == 0
    assert launch("train", [*common, "total_kimg=0.16", "num_workers=1", "name=parts"]) == 0
    ours, theirs = (final(tmp_path / name)["state_dict"] for name in ("parts", "whole"))
    assert_same(ours, theirs)
    run = f"run={tmp_path / 'whole'}"
    assert launch("generate", [run, "num_images=3", f"out={tmp_path / 'made'}"]) == 0
    assert len(list((tmp_path / "made").iterdir())) >= 3
    if kind == "texts":
        overrides = [run, "protocol=text", "protocol.num_fake=640", f"out={tmp_path / 'found'}"]
        assert launch("evaluate", overrides) == 0
