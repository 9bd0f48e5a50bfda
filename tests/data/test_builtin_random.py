import pytest
import torch

from gan_lab.data.builtin import RandomImages
from gan_lab.errors import InputError


def test_an_image_follows_from_its_index_and_split() -> None:
    train, val = (RandomImages(split=split, image_size=[5, 7]) for split in ("train", "val"))
    images = train.__getitems__([3, 4, 3]).real
    assert images.shape == (3, 3, 5, 7) and images.dtype == torch.uint8
    assert torch.equal(images[0], images[2])
    assert torch.equal(RandomImages(split="train", image_size=[5, 7])[3].real[0], images[0])
    for other in (images[1], val[3].real[0]):
        assert (other == images[0]).float().mean() < 0.1
    assert (
        len({RandomImages(split="train", image_size=4, channels=c).fingerprint for c in (1, 3)})
        == 2
    )


def test_noise_is_uniform() -> None:
    image = RandomImages(split="train", image_size=256)[0].real[0]
    counts = torch.bincount(image.flatten().int(), minlength=256).double()
    expected = image.numel() / 256
    chi_squared = ((counts - expected).square() / expected).sum()
    assert abs(chi_squared - 255) < 6 * (2 * 255) ** 0.5
    # neighbors know nothing of each other
    pixels = image.double() - 127.5
    assert (
        pixels[..., 1:] * pixels[..., :-1]
    ).mean().abs() < 6 * 256**2 / 12 / image.numel() ** 0.5


def test_classes_go_round_and_mirror_images_follow() -> None:
    data = RandomImages(split="val", image_size=4, num_classes=3, num_images=7, flip=True)
    assert data.class_counts == [3, 2, 2] and data.num_classes == 3
    assert len(data) == 14 and torch.equal(data[7].real[0], data[0].real[0].flip(-1))
    assert RandomImages(split="val").class_names == ["all"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_classes": 0},
        {"num_classes": 5, "num_images": 4},
        {"image_size": None},
        {"channels": None},
        {"channels": 2},
        {"split": "test"},
    ],
)
def test_bad_options_are_rejected(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        RandomImages(**({"split": "train"} | wrong))  # type: ignore[arg-type]
