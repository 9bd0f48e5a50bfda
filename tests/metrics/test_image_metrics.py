"""Gray levels and utility: closed forms, real images as if generated, and what is rejected."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from gan_lab.config import build
from gan_lab.data.builtin import Digits, Phantoms
from gan_lab.errors import InputError
from gan_lab.metrics.base import direction
from gan_lab.metrics.cache import MemoryChunks
from gan_lab.metrics.feature_metrics import MetricValue
from gan_lab.metrics.features import NoFeatures
from gan_lab.metrics.image_metrics import GrayLevels, Utility
from gan_lab.metrics.protocol import Protocol
from gan_lab.metrics.sources import DatasetImages, ImageSource
from tests.helpers.sources import FixedImages

TRAINING, HELD_OUT = (DatasetImages(Digits(split=split)) for split in ("train", "val"))


def measured(
    fake: ImageSource, real: ImageSource, reference: ImageSource | None, metric: Any, num: int
) -> dict[str, MetricValue]:
    protocol = Protocol(
        name="quick",
        features=NoFeatures(),
        metrics={"it": metric},
        num_fake=num,
        reference_split="val",
    )
    protocol.check(real=real, fake=fake, reference=reference)
    protocol.load(torch.device("cpu"))
    protocol.measure_real(real, reference=reference)
    return {one.key: one for one in protocol.measure(fake, MemoryChunks())}


def levels(values: Tensor) -> FixedImages:
    return FixedImages(values.round().clamp(0, 65535).to(torch.uint16), endless=False)


def test_distance_of_gray_levels_is_that_of_their_distributions() -> None:
    random = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(64, 1, 16, 16, generator=random) for _ in range(2))
    found = measured(
        levels(30_000 + 500 * fake + 400), levels(30_000 + 500 * real), None, GrayLevels(), 64
    )
    # two normal distributions 0.8 deviations apart differ most in the middle between their means
    expected = 2 * norm.cdf(0.4) - 1
    assert found["ks_gray_64"].value == pytest.approx(expected, abs=0.02)


def test_all_bits_count() -> None:
    held_out = DatasetImages(Phantoms(split="val"))
    stored = held_out.stored(0, 512).int()
    finer = FixedImages((stored // 4 * 4).to(torch.uint16))  # what 10 bits keep
    found = measured(finer, held_out, held_out, GrayLevels(num_pixels=4096), 512)
    assert found["ks_gray_512_real"].value == 0
    assert found["ks_gray_512"].value > 0.005
    coarse = FixedImages((stored // 64 * 64).to(torch.uint16))  # and what 6 bits
    assert measured(coarse, held_out, None, GrayLevels(), 512)["ks_gray_512"].value > 0.1


def test_keys_say_which_way_is_better() -> None:
    assert direction("metrics/ks_gray_2048") == direction("copies_pixels_1000") == "min"
    assert direction("membership_discriminator") == "min"
    assert direction("utility_2k") == "max" and direction("utility_2k_real") is None


def test_utility_of_real_and_of_useless_images() -> None:
    again = FixedImages(TRAINING.read(0, 1437), TRAINING.labels(0, 1437))
    metric = Utility(seeds=2, steps=35)  # 0.94 on real digits
    found = measured(again, TRAINING, HELD_OUT, metric, 1437)
    assert found["utility_1437"].value == pytest.approx(found["utility_1437_real"].value, abs=0.01)
    assert found["utility_1437_real"].value > 0.9
    assert found["utility_1437"].uncertainty_kind == "std"
    detail = found["utility_1437"].detail
    assert detail["images"] == 1437 and detail["held_out"] == 360 and len(detail["accuracies"]) == 2
    wrong = torch.roll(torch.arange(10), 1)[TRAINING.labels(0, 1437)]  # type: ignore[index]
    useless = FixedImages(TRAINING.read(0, 1437), wrong)
    worse = measured(useless, TRAINING, HELD_OUT, Utility(seeds=2, steps=12), 300)
    assert worse["utility_300"].value < 0.1 < worse["utility_300_real"].value
    assert worse["utility_300"].detail["images"] == 300


def test_what_utility_needs(compose: Callable[..., Any]) -> None:
    labeled = FixedImages(TRAINING.read(0, 40), TRAINING.labels(0, 40))
    with pytest.raises(InputError, match="classes"):
        measured(FixedImages(TRAINING.read(0, 40)), TRAINING, HELD_OUT, Utility(), 40)
    with pytest.raises(InputError, match="held_out="):
        measured(labeled, TRAINING, None, Utility(), 40)
    three = FixedImages(TRAINING.read(0, 40), torch.arange(40) % 3)
    with pytest.raises(InputError, match="3 classes"):
        measured(three, TRAINING, HELD_OUT, Utility(), 40)
    with pytest.raises(InputError, match="seeds"):
        Utility(seeds=1)
    node = compose("protocol=utility", root="evaluate").protocol
    assert build(node, Protocol).real_needs == frozenset()
