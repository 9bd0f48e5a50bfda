"""Images of more than 8 bits: every level is read, kept and written again."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.testing import assert_close

import gan_lab
from gan_lab.commands.launch import launch
from gan_lab.data.datamodule import DataModule
from gan_lab.data.high_bit_depth import HighBitDepthImage, Window, find_levels, read_levels
from gan_lab.data.image_folder import ImageFolder, Zip
from gan_lab.data.sample import SampleSpec
from gan_lab.errors import InputError

RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def png16(pixels: NDArray[np.uint16]) -> bytes:
    """A 16-bit PNG of [H, W, 3] by the specification; Pillow writes gray ones alone."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def folder(root: Path, **options: Any) -> ImageFolder:
    return ImageFolder(**{"split": "train", "root": root, **options})


def write_ramp(path: Path, ending: str) -> None:
    if ending == "png":
        Image.fromarray(RAMP).save(path / "a.png")
    elif ending == "tif":
        tifffile.imwrite(path / "a.tif", RAMP)
    else:
        np.save(path / "a.npy", RAMP)


@pytest.mark.parametrize("ending", ["png", "tif", "npy"])
def test_a_ramp_of_all_levels_comes_out_as_it_went_in(tmp_path: Path, ending: str) -> None:
    write_ramp(tmp_path, ending)
    data = folder(tmp_path)
    assert data.spec.shape == (1, 256, 256) and data.spec.kind.name == "16-bit image"
    stored = data[0].real
    assert stored.dtype == torch.uint16
    seen = data.spec.encode(stored)
    assert seen.dtype == torch.float32
    assert seen.min() == -1 and seen.max() == 1 and len(seen.unique()) >= 65535
    written = tmp_path / f"out{data.spec.kind.suffix}"
    data.spec.kind.write(data.spec.decode(seen)[0], written)
    with written.open("rb") as file:
        assert len(np.unique(read_levels(file))) >= 65535
    assert (data.spec.kind.read(written)[0].numpy() == RAMP).all()


def test_three_channels_of_16_bits(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (6, 5, 3)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(png16(pixels))
    tifffile.imwrite(tmp_path / "b.tif", pixels, photometric="rgb")
    np.save(tmp_path / "c.npy", pixels)
    data = folder(tmp_path, window="full")
    for image in data[0].real, data[1].real, data[2].real:
        assert (image[0].permute(1, 2, 0).numpy() == pixels).all()
    assert data.spec.kind.suffix == ".tif"
    data.spec.kind.write(data[0].real[0], tmp_path / "out.tif")
    assert (data.spec.kind.read(tmp_path / "out.tif").permute(1, 2, 0).numpy() == pixels).all()


def test_mirrored_and_resized(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    data = folder(tmp_path, image_size=128, flip=True)
    once, mirrored = data.__getitems__([0, 1]).real
    assert (once.flip(-1) == mirrored).all()
    blocks = RAMP.reshape(128, 2, 128, 2).astype(float).mean(axis=(1, 3))
    boxed = folder(tmp_path, image_size=128, resample="box")[0].real[0, 0].numpy()
    assert np.abs(boxed - blocks).max() <= 0.5


def test_floating_point_values_keep_their_own(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(40, 300, (8, 8)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    data = folder(tmp_path)
    assert data.spec.kind.name == "32-bit image"
    seen = data.spec.encode(data[0].real)
    assert seen.min() == -1 and seen.max() == 1
    assert_close(data.spec.decode(seen)[0, 0], torch.from_numpy(values), rtol=1e-5, atol=1e-3)


def test_signed_integers_such_as_hounsfield_units(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([[-1000, 0], [40, 3000]], dtype=np.int16))
    data = folder(tmp_path, window=[40, 400])
    assert_close(data.spec.encode(data[0].real)[0, 0], torch.tensor([[-1.0, -0.2], [0.0, 1.0]]))


@pytest.mark.parametrize(
    ("window", "levels"),
    [("range", (100, 4095)), ("full", (0, 65535)), ([2000, 1000], (1500, 2500))],
)
def test_the_window_is_what_networks_and_previews_see(
    tmp_path: Path, window: Any, levels: tuple[int, int]
) -> None:
    pixels = np.linspace(100, 4095, 64).round().astype(np.uint16).reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    data = folder(tmp_path, window=window)
    low, high = levels
    expected = ((torch.from_numpy(pixels).double() - low) / (high - low) * 2 - 1).clamp(-1, 1)
    assert_close(data.spec.encode(data[0].real)[0, 0].double(), expected, rtol=0, atol=1e-4)
    shown = data.spec.kind.preview(data[0].real)[0, 0]
    assert_close(shown.double(), ((expected + 1) / 2 * 255).round(), rtol=0, atol=1)


def test_percentiles_leave_out_what_is_rare() -> None:
    pixels = np.full((100, 100, 1), 500, dtype=np.uint16)
    pixels[:50] = 1000
    pixels[0, 0] = 65535
    assert find_levels([pixels], "percentiles") == (500, 1000)
    assert find_levels([pixels], "range") == (500, 65535)
    with pytest.raises(InputError, match="500"):
        find_levels([np.full((4, 4, 1), 500, dtype=np.uint16)], "range")


def test_both_splits_have_one_window(tmp_path: Path) -> None:
    for split, level in ("train", 1000), ("val", 3000):
        (tmp_path / split).mkdir()
        pixels = np.array([[0, level], [level, level]], dtype=np.uint16)
        Image.fromarray(pixels).save(tmp_path / split / "a.png")
    windows = [folder(tmp_path, split=split).spec for split in ("train", "val")]
    assert windows[0].representation.arguments == windows[1].representation.arguments
    assert windows[0].kind.arguments["window"] == [0, 3000]


def test_kind_and_window_are_built_again_from_what_a_run_keeps(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    spec = folder(tmp_path, window=[1000, 500]).spec
    again = SampleSpec.from_dict(spec.as_dict(), origin=tmp_path)
    values = torch.rand(2, 1, 4, 4) * 2 - 1
    assert (again.decode(values) == spec.decode(values)).all()
    assert (again.preview(values) == spec.preview(values)).all()
    assert again.kind.arguments == spec.kind.arguments == {
        "bits": 16, "channels": 1, "window": [750.0, 1250.0], "spacing": None,
    }  # fmt: skip


def test_fewer_bits_are_requested(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    data = folder(tmp_path, bits=8)
    assert data[0].real.dtype == torch.uint8
    assert (data[0].real[0, 0].numpy() == RAMP >> 8).all()


def test_what_does_not_go_together_is_named(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "deep.png")
    Image.fromarray(np.zeros((256, 256), dtype=np.uint8)).save(tmp_path / "flat.png")
    with pytest.raises(InputError, match=r"different bits.*data\.bits=8"):
        folder(tmp_path)
    assert folder(tmp_path, bits=8).num_stored == 2
    with pytest.raises(InputError, match=r"data\.bits=16.*flat\.png"):
        folder(tmp_path, bits=16)
    (tmp_path / "flat.png").unlink()
    np.save(tmp_path / "values.npy", np.ones((256, 256), dtype=np.float32))
    with pytest.raises(InputError, match=r"floating-point.*(deep\.png|values\.npy)"):
        folder(tmp_path)
    (tmp_path / "values.npy").unlink()
    np.save(tmp_path / "color.npy", np.ones((256, 256, 3), dtype=np.uint16))
    with pytest.raises(InputError, match="channels"):
        folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("nan.npy", np.array([[0, np.nan]], dtype=np.float32), "1 of 2 values are NaN"),
        ("deep.npy", np.zeros((2, 2, 2, 2), dtype=np.uint16), r"\[2, 2, 2, 2\]"),
        ("objects.npy", np.array([[None]]), "objects"),
        ("one.npy", np.zeros(5, dtype=np.uint16), r"\[5\]"),
        ("none.npy", np.zeros((0, 5), dtype=np.uint16), "nothing is in it"),
        ("colorless.npy", np.zeros((5, 5, 0), dtype=np.float32), "nothing is in it"),
        ("complex.npy", np.zeros((5, 5), dtype=np.complex64), "a NumPy array"),
        ("large.npy", np.full((5, 5), 1e300), "25 of 25 values are NaN or infinite"),
    ],
)
def test_arrays_that_are_no_images_are_named(
    tmp_path: Path, name: str, data: NDArray[Any], reason: str
) -> None:
    np.save(tmp_path / name, data, allow_pickle=True)
    with pytest.raises(InputError, match=f"{name}.*{reason}"):
        folder(tmp_path)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "uint32", "longdouble", ">f8", ">u2"])
def test_every_type_of_number_can_be_trained_on(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "a.npy", np.arange(64).reshape(8, 8).astype(dtype))
    pixels = folder(tmp_path).load(0)
    assert pixels.dtype == (torch.uint16 if dtype == ">u2" else torch.float32)
    assert_close(pixels.float(), torch.arange(64.0).reshape(1, 8, 8))


@pytest.mark.parametrize(
    "header",
    [
        "-" * 5000 + "1",
        "(" * 5000,
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 10**11)}".replace("10**11", "1" + "0" * 11),
        "{'descr': ('<f4', (1000000, 1000000)), 'fortran_order': False, 'shape': (2, 2)}",
    ],
)  # fmt: skip
def test_hostile_headers_of_arrays_are_named(tmp_path: Path, header: str) -> None:
    length = struct.pack("<H", len(header))
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + length + header.encode() + bytes(64))
    with pytest.raises(InputError, match=r"1 unreadable file: a\.npy"):
        folder(tmp_path)


def tiff_header(width: int, height: int, channels: int) -> bytes:
    """A TIFF of floating-point values that claims a size, and holds 200 bytes."""
    tags = {
        256: width,
        257: height,
        258: 32,
        259: 1,
        262: 1,
        273: 8,
        277: channels,
        278: height,
        279: 100,
        339: 3,
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(204)


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((4_000_000, 4_000_000, 1), "megapixels"),
        ((17_000, 17_000, 60_000), "60,000 channels"),
        ((17_000, 17_000, 1), "failed to read"),
        ((0, 5, 1), "cannot be read|damaged|nothing"),
    ],
)
def test_a_header_that_claims_much_takes_no_memory(
    tmp_path: Path, size: tuple[int, int, int], reason: str
) -> None:
    (tmp_path / "a.tif").write_bytes(tiff_header(*size))
    with pytest.raises(InputError, match=f"1 unreadable file: a.tif .*({reason})"):
        folder(tmp_path)


@pytest.mark.parametrize("compression", ["zlib", "zstd", "lzw", "lzma"])
def test_damaged_pixels_are_named(
    tmp_path: Path, compression: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, RAMP, compression=compression)
    data = bytearray(file.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        start = opened.pages[0].dataoffsets[0]
    data[start : start + 60] = bytes(range(60))
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.tif"):
        folder(tmp_path)
    assert not capfd.readouterr().err, "the decoder has its say in that line alone"


def test_a_damaged_png_with_an_intact_end_is_reported(tmp_path: Path) -> None:
    data = bytearray(png16(np.zeros((64, 64, 3), dtype=np.uint16)))
    data[60:70] = b"x" * 10
    (tmp_path / "a\nb.png").write_bytes(data)
    with pytest.raises(InputError, match=r"a\\nb\.png cannot be read"):
        folder(tmp_path)


def test_a_cut_array_is_named(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, RAMP)
    (tmp_path / "a.npy").write_bytes(file.getvalue()[:1000])
    with pytest.raises(InputError, match=r"a\.npy.*holds 872 bytes"):
        folder(tmp_path)


@pytest.mark.parametrize("window", ["wide", [1], [0, 0], [0, -5], ["a", "b"], 7, [float("nan"), 1]])
def test_windows_that_are_none(tmp_path: Path, window: Any) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"data\.window="):
        folder(tmp_path, window=window)


@pytest.mark.parametrize("channels", [1, 3])
def test_packed_into_a_zip_they_are_the_same(tmp_path: Path, channels: int) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "scans").mkdir()
    for name in "ab":
        pixels = rng.integers(0, 4096, (6, 6, channels)).astype(np.uint16)
        np.save(tmp_path / "scans" / f"{name}.npy", pixels)
    overrides = [
        "data=image_folder",
        f"data.root={tmp_path / 'scans'}",
        f"out={tmp_path / 'a.zip'}",
    ]
    assert launch("prepare-data", overrides) == 0
    before, after = folder(tmp_path / "scans"), Zip(split="train", root=tmp_path / "a.zip")
    assert after.spec == before.spec or after.spec.as_dict() == before.spec.as_dict()
    assert all((before[i].real == after[i].real).all() for i in range(2))


def test_feature_networks_are_given_8_bits() -> None:
    kind = HighBitDepthImage(bits=16, channels=1, window=(0, 1000))
    stored = torch.tensor([0, 500, 1000, 60000]).to(torch.uint16).reshape(1, 1, 2, 2)
    assert kind.measured(stored).flatten().tolist() == [0, 128, 255, 255]


def test_a_window_undoes_itself_and_clips() -> None:
    window = Window(low=-0.25, high=0.75)
    values = torch.linspace(-1, 1, 101)
    assert_close(window.decode(window.encode(values)), values.clamp(-0.25, 0.75))


def test_batches_reach_networks_as_floats(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    module = DataModule(
        dataset=lambda split: folder(tmp_path, split=split),
        batch_size=1,
        d_steps=1,
        total_images=1,
        seed=0,
        num_workers=0,
    )
    batch = module.on_after_batch_transfer(next(iter(module.train_dataloader())), 0)
    assert len(batch.real.unique()) >= 65535


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_from_training_to_files_of_16_bits(tmp_path: Path, precision: str) -> None:
    levels = np.random.default_rng(0).integers(1000, 3000, (12, 16, 16)).astype(np.uint16)
    (tmp_path / "scans").mkdir()
    for number, pixels in enumerate(levels):
        Image.fromarray(pixels).save(tmp_path / "scans" / f"{number}.png")
    overrides = ("model=dcgan", "model.generator.width=4", "model.discriminator.width=4", "augment=ada",
             "data=image_folder", f"data.root={tmp_path / 'scans'}", "metrics=none", "batch_size=4",
             "total_kimg=0.016", "trainer=cpu", f"trainer.precision={precision}",
             f"runs_dir={tmp_path}", "name=run")  # fmt: skip
    assert launch("train", list(overrides)) == 0
    made = tmp_path / "made"
    run = f"run={tmp_path / 'run'}"
    assert launch("generate", [run, "num_images=8", f"out={made}", "format=[files,npz,grid]"]) == 0
    with (made / "seed0_000000.png").open("rb") as file:
        pixels = read_levels(file)
    # 8 bits of this window would lie 8 levels apart
    assert pixels.dtype == np.uint16 and np.diff(np.unique(pixels)).min() == 1
    assert pixels.min() >= levels.min() and pixels.max() <= levels.max()
    assert np.load(made / "images.npz")["samples"].dtype == np.uint16
    assert launch("export", [run, f"out={tmp_path / 'exported'}"]) == 0
    gan = gan_lab.load(tmp_path / "exported")
    assert (gan.spec.decode(gan.sample(1))[0, 0].numpy() == pixels[..., 0]).all()


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_files_hold_every_channel(bits: Literal[16, 32], channels: int) -> None:
    kind = HighBitDepthImage(bits=bits, channels=channels, window=(0, 1))
    values = torch.rand(channels, 6, 7) * 60_000
    stored = values.to(torch.uint16) if bits == 16 else values
    assert torch.equal(kind.decoded(kind.encoded(stored)), stored)
