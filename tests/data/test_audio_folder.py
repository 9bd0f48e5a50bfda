"""Folders and zips of sounds."""

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from gan_lab.commands.launch import launch
from gan_lab.data.audio import Audio
from gan_lab.data.audio_folder import AudioFolder, mixed
from gan_lab.data.base import MissingSplit
from gan_lab.errors import InputError
from tests.helpers.sounds import pitch, write_sines


def opened(root: Path, **options) -> AudioFolder:
    return AudioFolder(split="train", root=root, **{"rate": 8000, "length": 256, **options})


def test_folders_are_classes_and_files_are_cut(tmp_path: Path) -> None:
    data = opened(write_sines(tmp_path), crop="fixed")
    assert data.class_names == ["high", "low"] and data.class_counts == [4, 4]
    assert data.spec.shape == (1, 256) and len(data) == data.num_stored == 8
    whole = Audio(rate=8000).read(tmp_path / "low/1.wav")
    index = [data.name(i) for i in range(8)].index("low/1.wav")
    assert (data.load(index).int() - whole[:, :256].int()).abs().max() <= 1
    with pytest.raises(MissingSplit):
        AudioFolder(split="val", root=tmp_path, rate=8000, length=256)


def test_random_crops_follow_from_the_file_alone(tmp_path: Path) -> None:
    first, again = (opened(write_sines(tmp_path / "a", length=900)) for _ in range(2))
    assert len(first) == 16 * first.num_stored
    numbers = list(range(len(first)))
    crops = first.__getitems__(numbers)
    assert torch.equal(crops.real, again.__getitems__(numbers).real)
    of_first = crops.real[:: first.num_stored]
    assert len(of_first.unique(dim=0)) > 8, "sixteen crops of one clip"
    whole = Audio(rate=8000).read(tmp_path / "a" / first.name(0))
    places = whole[0].unfold(0, 256, 1).int()
    for crop in of_first:
        assert ((places - crop[0].int()).abs().amax(1) <= 1).any(), "a part of the clip"
    assert torch.equal(crops.labels[:: first.num_stored].unique(), crops.labels[:1])


@pytest.mark.parametrize(("pad", "before"), [("end", 0), ("center", 106)])
def test_short_clips_are_padded(tmp_path: Path, pad: str, before: int) -> None:
    data = opened(write_sines(tmp_path), length=512, pad=pad)
    clip = data.load(0)[0]
    assert len(data) == 8, "there is nothing to choose from"
    assert (clip[:before] == 0).all() and (clip[before + 300 :] == 0).all()
    assert clip[before : before + 300].abs().max() > 10_000


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_formats_and_rates(tmp_path: Path, suffix: str) -> None:
    time = np.arange(22_050) / 22_050
    soundfile.write(tmp_path / f"a.{suffix}", 0.5 * np.sin(2 * np.pi * 440 * time), 22_050)
    data = opened(tmp_path, length=4096, crop="fixed")
    assert pitch(data.load(0)[0].numpy(), 8000) == pytest.approx(440, rel=0.01)


def test_channels_are_mixed() -> None:
    stereo = np.array([[0.5, 0.5], [0.1, -0.5]], np.float32)
    np.testing.assert_allclose(mixed(stereo, 1), [[0.3, 0.0]], atol=1e-7)
    assert mixed(stereo, 2) is stereo
    np.testing.assert_allclose(mixed(stereo[:1], 2), [[0.5, 0.5]] * 2)


def test_broken_and_silent_files_are_named_before_anything_else(tmp_path: Path) -> None:
    write_sines(tmp_path)
    Audio(rate=8000).write(torch.zeros(1, 300, dtype=torch.int16), tmp_path / "low/silent.wav")
    Audio(rate=8000).write(torch.zeros(1, 0, dtype=torch.int16), tmp_path / "low/empty.wav")
    whole = (tmp_path / "low/0.wav").read_bytes()
    (tmp_path / "low/cut.wav").write_bytes(whole[:20])
    with pytest.raises(InputError, match="3 unreadable files") as caught:
        opened(tmp_path)
    for name, reason in (("silent", "is silent"), ("empty", "is empty"), ("cut", "cannot be read")):
        assert f"low/{name}.wav ({reason}" in str(caught.value)
    data = opened(tmp_path, skip_unreadable=True)
    assert data.num_stored == 8 and len(data.unreadable) == 3


def test_a_table_gives_classes_and_splits(tmp_path: Path) -> None:
    write_sines(tmp_path)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.wav"))
    rows = [f"{file},{'ab'[i % 2]},{'val' if i < 2 else 'train'}" for i, file in enumerate(files)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,class,split", *rows]))
    data = opened(tmp_path)
    assert data.class_names == ["a", "b"] and data.num_stored == 6
    assert AudioFolder(split="val", root=tmp_path, rate=8000, length=256).num_stored == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0}, "rate=0"),
        ({"length": 0}, "length=0"),
        ({"length": 10**12}, "length=1000000000000"),
        ({"channels": 3}, "channels=3"),
        ({"crop": "middle"}, "crop=middle"),
        ({"pad": "left"}, "pad=left"),
    ],
)
def test_options_out_of_range(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(write_sines(tmp_path), **options)


def test_folders_without_sound(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is empty"):
        opened(tmp_path)
    (tmp_path / "image.png").write_bytes(b"")
    with pytest.raises(InputError, match="no sounds"):
        opened(tmp_path)


def test_missing_extras_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sines(tmp_path, rate=16000)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "soxr", None)
        with pytest.raises(InputError, match=r"gan-laboratory\[audio\]"):
            opened(tmp_path).load(0)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(InputError, match=r"gan-laboratory\[audio\]"):
        opened(tmp_path)


def test_what_was_packed_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = write_sines(tmp_path / "clips", length=400), tmp_path / "packed.zip"
    overrides = ["data=audio", f"data.root={root}", "data.rate=8000", f"out={out}"]
    assert launch("prepare-data", overrides) == 0
    assert "data=audio data.rate=8000 data.length=16384" in " ".join(
        capsys.readouterr().out.split()
    )
    data, packed = opened(root), opened(out)
    assert packed.class_names == data.class_names
    assert packed.num_stored * 16 == len(packed), "whole clips were packed"
    everything = range(len(data))
    assert torch.equal(packed.__getitems__(everything).real, data.__getitems__(everything).real)


def patched(path: Path, at: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("at", "content"),
    [
        (22, b"\0\0"),  # no channels
        (24, bytes(4)),  # no rate
        (24, b"\1\0\0\0"),  # which would make hours of it
        (0, bytes(12)),  # no WAV
        (20, b"\x99\x99"),  # a codec that there is not
    ],
)
def test_hostile_headers_are_named(tmp_path: Path, at: int, content: bytes) -> None:
    write_sines(tmp_path)
    patched(tmp_path / "low/0.wav", at, content)
    with pytest.raises(InputError, match=r"1 unreadable file: low/0\.wav"):
        opened(tmp_path)


def test_a_header_that_claims_much_takes_no_memory(tmp_path: Path) -> None:
    write_sines(tmp_path)
    path = tmp_path / "low/0.flac"
    soundfile.write(path, np.sin(np.arange(4000)) / 2, 8000)
    data = bytearray(path.read_bytes())
    data[21] |= 0x0F  # 2^36 - 1 samples
    data[22:26] = b"\xff" * 4
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"0\.flac .*claims 68,719,476,735 frames"):
        opened(tmp_path)


def test_sounds_in_a_damaged_zip_are_named(tmp_path: Path) -> None:
    write_sines(tmp_path / "sounds")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, path in enumerate(sorted((tmp_path / "sounds").rglob("*.wav"))):
            archive.write(path, f"{number}.wav")
        at = archive.getinfo("3.wav").header_offset + 60
    patched(tmp_path / "a.zip", at, bytes(20))
    with pytest.raises(InputError, match=r"1 unreadable file: 3\.wav"):
        opened(tmp_path / "a.zip")
