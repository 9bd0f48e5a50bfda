"""Sources: images by index, and fingerprints."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_lab.data.builtin import Digits
from gan_lab.data.images import image_spec, save_png, to_uint8
from gan_lab.errors import InputError
from gan_lab.layers.networks import GeneratorNetwork
from gan_lab.metrics.sources import DatasetImages, GanImages, ImageSource, NpzImages, open_files
from gan_lab.sampling.gan import Gan
from tests.helpers.samples import pair
from tests.helpers.sources import textures


class Painter(GeneratorNetwork):
    """Latents as an image, brighter by class."""

    z_dim, num_classes = 16, 3

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.1))

    def forward(self, z: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        assert labels is not None
        return (self.scale * z).view(-1, 1, 4, 4) + labels.view(-1, 1, 1, 1) / 3 - 0.5


def check_any_order(source: ImageSource, expected: torch.Tensor) -> None:
    for start, stop in ((0, len(expected)), (7, 12), (3, 4), (11, 20), (0, 5)):
        assert torch.equal(source.read(start, stop).cpu(), expected[start:stop])


SPEC = image_spec(
    channels=1, image_size=(4, 4), class_names=["a", "b", "c"], class_counts=[5, 3, 2]
)


def gan() -> Gan:
    return Gan(Painter().eval(), spec=SPEC)


def test_a_generator_has_the_images_and_labels_of_its_seed() -> None:
    source = GanImages(gan(), seed=4)
    images, labels = gan().sample(20, seed=4), gan().labels(20, seed=4)
    check_any_order(source, to_uint8(images))
    assert labels is not None
    assert torch.equal(source.labels(5, 9), labels[5:9])  # type: ignore[arg-type]
    assert (source.count, source.shape) == (None, (1, 4, 4))
    assert source.num_classes == 3 and source.class_names == ("a", "b", "c")
    held = GanImages(gan(), seed=4, truncation=0.3)
    check_any_order(held, to_uint8(gan().sample(20, seed=4, truncation=0.3)))


def test_all_that_changes_images_changes_the_fingerprint() -> None:
    changes = ({}, {"seed": 5}, {"truncation": 0.3}, {"origin": "another checkpoint"})
    assert len({GanImages(gan(), **{"seed": 4, **c}).fingerprint for c in changes}) == 4  # type: ignore[arg-type]


def test_a_data_set_gives_its_stored_images_or_a_choice_of_all_classes() -> None:
    digits = Digits(split="train", flip=True)
    images, labels = pair(digits.__getitems__(range(1437)))
    whole = DatasetImages(digits)
    assert whole.count == 1437 and whole.whole
    check_any_order(whole, images[:20])
    some = DatasetImages(digits, num=100)
    chosen = some.labels(0, 100)
    assert chosen is not None and chosen.bincount().min() > 3
    assert some.fingerprint != whole.fingerprint and not some.whole
    both = DatasetImages(digits, flips=True)
    assert both.count == 2874
    assert torch.equal(both.read(1437, 1440), images[:3].flip(-1))
    assert torch.equal(both.labels(1437, 1440), labels[:3])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="leave one of them out"):
        DatasetImages(digits, flips=True, num=5)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_read_in_any_order(tmp_path: Path, save) -> None:
    images = textures(20, 0, size=8)
    path = tmp_path / "samples.npz"
    save(path, arr_0=images.permute(0, 2, 3, 1).numpy(), arr_1=np.arange(20) % 4)
    source = NpzImages(path)
    check_any_order(source, images)
    assert (source.count, source.shape) == (20, (3, 8, 8))
    assert source.labels(4, 8).tolist() == [0, 1, 2, 3]  # type: ignore[union-attr]
    some = NpzImages(path, num=9)
    assert some.count == 9 and some.fingerprint != source.fingerprint
    found = [int((images == image).flatten(1).all(1).nonzero()) for image in some.read(0, 9)]
    assert found == sorted(found) and some.labels(0, 9).tolist() == [i % 4 for i in found]  # type: ignore[union-attr]
    copy = tmp_path / "copy.npz"
    copy.write_bytes(path.read_bytes())
    assert NpzImages(copy).fingerprint == source.fingerprint, "a copy needs no second look"


def test_labels_of_an_npz_may_be_one_hot_and_must_be_as_many(tmp_path: Path) -> None:
    images = textures(6, 0, size=4).permute(0, 2, 3, 1).numpy()
    labels = np.array([0, 2, 1, 1, 0, 2])
    np.savez(tmp_path / "a.npz", images=images, labels=np.eye(3, dtype=np.int64)[labels])
    assert NpzImages(tmp_path / "a.npz").labels(0, 6).tolist() == labels.tolist()  # type: ignore[union-attr]
    np.savez(tmp_path / "b.npz", images=images, labels=labels[:4])
    with pytest.raises(InputError, match="one for each of 6 images"):
        NpzImages(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", images=images)
    assert NpzImages(tmp_path / "c.npz").num_classes == 0


def claiming(path: Path, shape: tuple[int, ...], member: str = "images", **others: object) -> Path:
    """An .npz with an array whose header claims more than there is."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    np.savez(path, **others)  # type: ignore[arg-type]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{member}.npy", header.getvalue() + bytes(1000))
    return path


def test_an_npz_that_claims_more_than_it_holds_is_rejected_at_once(tmp_path: Path) -> None:
    for shape in ((10**12, 1, 1, 1), (10**6, 10**5, 10**5, 3), (2, 40, 40, 3)):
        with pytest.raises(InputError, match=r"images\.npy claims shape"):
            NpzImages(claiming(tmp_path / "a.npz", shape))
    images = np.zeros((6, 4, 4, 3), dtype=np.uint8)
    with pytest.raises(InputError, match=r"labels\.npy claims shape"):
        NpzImages(claiming(tmp_path / "b.npz", (6, 10**12), "labels", images=images))
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(InputError, match="not a regular file"):
        NpzImages(tmp_path / "pipe.npz")


@pytest.mark.parametrize("label", [10**9, -1, 0.5, np.nan])
def test_labels_of_an_npz_are_bounded(tmp_path: Path, label: float) -> None:
    images = np.zeros((3, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.array([0, 1, label]))
    with pytest.raises(InputError, match="whole numbers from 0 to 999,999"):
        NpzImages(tmp_path / "a.npz")


def test_an_npz_that_was_cut_short_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=textures(6, 0, size=4).permute(0, 2, 3, 1).numpy())
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[:200])
    with pytest.raises(InputError, match=r"not a complete \.npz"):
        NpzImages(tmp_path / "a.npz")


def test_a_folder_is_read_by_threads_in_order(tmp_path: Path) -> None:
    images = textures(21, 0, size=8)
    for i, image in enumerate(images):
        save_png(image, tmp_path / "all" / f"{i:02d}.png")
    check_any_order(open_files(tmp_path / "all"), images)
    small = open_files(tmp_path / "all", image_size=4, channels=1)
    assert (small.shape, small.num_classes) == ((1, 4, 4), 0)


def test_sub_folders_are_classes_unless_images_lie_beside_them(tmp_path: Path) -> None:
    images = textures(6, 0, size=8)
    for i, image in enumerate(images):
        save_png(image, tmp_path / "ab"[i % 2] / f"{i}.png")
    assert open_files(tmp_path).class_names == ("a", "b")
    save_png(images[0], tmp_path / "beside.png")
    assert open_files(tmp_path).num_classes == 0
