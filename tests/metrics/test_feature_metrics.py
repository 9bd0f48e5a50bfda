"""Keys of metrics, and their values on equal sets, collapse, shifts, dropped modes, copies."""

import math

import pytest
import torch

from gan_lab.errors import InputError
from gan_lab.metrics.feature_metrics import (
    ClassAccuracy,
    ClassFrechet,
    DensityCoverage,
    Diversity,
    Frechet,
    InceptionScore,
    Kernel,
    Memorization,
    MetricContext,
    Modes,
    PrecisionRecall,
    divergence_from_uniform,
)
from gan_lab.metrics.features.inception import Inception
from tests.helpers.features import NUM, PIXELS, WIDTH, as_set, context
from tests.helpers.sources import FixedImages, Projection


def normal(seed, num=NUM, shift=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, WIDTH, generator=generator) * scale + shift


def value(metric, real, fake, **changes):
    (found,) = metric.compute(as_set(real), as_set(fake), context(**changes))
    return found.value


@pytest.mark.parametrize(
    ("metric", "changes", "key"),
    [
        (Frechet(), {"fake": 50_000}, "fid50k_full"),
        (Frechet(), {"fake": 10_000, "real": 10_000, "all_real": False}, "fid10k"),
        (Frechet(), {"fake": 5_500, "real": 60_000, "all_real": False}, "fid5500_real60k"),
        (Frechet(output="spatial"), {"fake": 50_000}, "sfid50k_full"),
        (Frechet(output="features64"), {"fake": 80}, "fd_inception64_80_full"),
        (Frechet(key="mine"), {}, "mine"),
        (ClassFrechet(), {"fake": 50_000}, "class_fid50k_full"),
        (Kernel(), {"fake": 5000, "real": 70_000, "num_real_features": 50_000}, "kid5k_real50k"),
        (Kernel(), {"fake": 5000}, "kid5k_full"),
        (InceptionScore(), {"fake": 50_000}, "is50k"),
        (PrecisionRecall(), {"fake": 10_000}, "precision_inception_10k_full"),
        (ClassAccuracy(), {"fake": 1437}, "accuracy_inception_1437"),
    ],
)
def test_keys_carry_the_numbers_of_images(metric, changes, key):
    assert metric.key(context(extractor=Inception(), **changes)) == key


def test_what_is_not_comparable_is_not_called_fid():
    for extractor in (Inception(resizer="clean"), Inception(mixed_precision=True), Projection()):
        for metric in (
            Frechet(),
            Kernel(),
            InceptionScore(),
            Frechet(output="spatial"),
            ClassFrechet(),
        ):
            key = metric.key(context(extractor=extractor))
            assert not key.startswith(("fid", "kid", "is", "sfid", "class_fid")), key
    assert Frechet().key(context(extractor=Inception(resizer="clean"))) == "clean_fid2k_full"
    bfloat16 = Inception(mixed_precision=True)
    assert Frechet().key(context(extractor=bfloat16)) == "fd_inception_bf16_2k_full"


def test_identical_sets_are_at_no_distance():
    features = normal(0)
    assert value(Frechet(), features, features) == pytest.approx(0, abs=1e-9)
    precision, recall = PrecisionRecall().compute(as_set(features), as_set(features), context())
    assert precision.value == recall.value == 1


def test_a_shift_and_another_scale_move_the_distance_by_the_closed_form():
    # 1/4 + D (2 - 1)^2 for N(0, I) and N(m, 4 I) with |m| = 1/2
    shift = 0.5 / math.sqrt(WIDTH)
    found = value(Frechet(), normal(0, 100_000), normal(1, 100_000, shift=shift, scale=2.0))
    assert found == pytest.approx(0.25 + WIDTH, rel=0.01)


def test_a_collapsed_generator_is_precise_and_covers_nothing():
    real = normal(0)
    collapsed = normal(1, scale=0.02) + real[7]
    precision, recall = PrecisionRecall().compute(as_set(real), as_set(collapsed), context())
    density, coverage = DensityCoverage().compute(as_set(real), as_set(collapsed), context())
    assert precision.value > 0.99 and recall.value < 0.02
    assert coverage.value < 0.1 and density.value > 0.5
    (diversity,) = Diversity().compute(as_set(real), as_set(collapsed), context())
    assert diversity.value < 0.05 * diversity.detail["real"]


def test_coverage_falls_with_dropped_modes():
    modes = 20 * torch.eye(8, WIDTH)
    real = normal(0) + modes.repeat_interleave(NUM // 8, 0)
    found = []
    for kept in (8, 4, 1):
        fake = normal(1) + modes[:kept].repeat_interleave(NUM // kept, 0)
        _, coverage = DensityCoverage().compute(as_set(real), as_set(fake), context())
        _, recall = PrecisionRecall().compute(as_set(real), as_set(fake), context())
        found.append((coverage.value, recall.value))
    assert found[0][0] > 0.9 > found[1][0] > found[2][0]
    assert found[1][1] < 0.5 < found[0][1]


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_the_kernel_distance_has_no_bias_and_its_error_is_its_error(shift):
    def measure(i, num):
        sets = as_set(normal(2 * i, num)), as_set(normal(2 * i + 1, num, shift=shift))
        return Kernel(subsets=20, subset_size=100, seed=i).compute(*sets, context(num, num))[0]

    found = [measure(i, 300) for i in range(100)]
    values = torch.tensor([metric.value for metric in found])
    errors = torch.tensor([metric.uncertainty for metric in found])
    # moments of <y, y'> / D + 1 for y, y' ~ N(m, I), |m|^2 = d
    d, width = WIDTH * shift**2, WIDTH
    cube = d**3 + 3 * d * (2 * d + width) + 6 * d
    within = 1 + 3 * d / width + 3 * (d**2 + 2 * d + width) / width**2 + cube / width**3
    expected = 1 + 3 / width + within - 2 * (1 + 3 * (width + d) / width**2)
    assert abs(values.mean() - expected) < 3.5 * values.std() / 10
    assert found[0].uncertainty_kind == "se"
    if shift:
        assert errors.mean() == pytest.approx(values.std().item(), rel=0.25)
    else:  # equal distributions vary less than the formula for others says
        assert errors.mean() > values.std()


def test_memory_is_distinguished_from_chance():
    real = normal(0)
    other, copies = normal(1), real[:500] + normal(2, 500, scale=1e-3)
    (chance,) = Memorization().compute(as_set(real), as_set(other), context())
    (memory,) = Memorization().compute(as_set(real), as_set(copies), context())
    assert chance.value < 0.03 and memory.value == 1
    for pair in memory.detail["nearest"]:
        assert pair["generated"] == pair["real"] and pair["distance"] < 0.05
    assert memory.detail["median_distance"] < 0.1 * chance.detail["median_distance"]


def test_each_class_has_its_distance_and_a_wrong_class_shows():
    labels = torch.arange(NUM) % 4
    real = normal(0) + 3 * labels[:, None]
    fake = normal(1) + 3 * torch.where(labels == 2, 0, labels)[:, None]
    (found,) = ClassFrechet().compute(as_set(real, labels), as_set(fake, labels), context())
    classes = found.detail["classes"]
    assert classes["2"] == pytest.approx(36 * WIDTH, rel=0.05)
    assert max(classes[name] for name in "013") < 1
    assert found.value == pytest.approx(sum(classes.values()) / 4)


def test_a_class_of_few_images_is_rejected_unless_requested():
    labels = torch.tensor([0] * 50 + [1] * 10)
    sets = [as_set(normal(seed, 60), labels) for seed in range(2)]
    for images in sets:
        images.source.class_names = ("0", "1")
    try:
        with pytest.raises(InputError, match=r"class 1 has 10 real and 10 .* allow_singular=true"):
            ClassFrechet().compute(*sets, context(60, 60))
        (found,) = ClassFrechet(allow_singular=True).compute(*sets, context(60, 60))
        assert found.detail["singular_allowed"] and set(found.detail["classes"]) == {"0", "1"}
    finally:
        PIXELS.class_names = ("0", "1", "2", "3")


def test_label_sets_that_differ_are_rejected():
    three = FixedImages(PIXELS.images[:3], torch.tensor([0, 1, 2]))
    bare = FixedImages(PIXELS.images)
    with pytest.raises(InputError, match="4 classes and fixed images 3"):
        ClassFrechet().check(both(PIXELS, three))
    with pytest.raises(InputError, match="has no labels"):
        ClassFrechet().check(both(PIXELS, bare))
    names = ("cat", "dog", "fox", "owl"), ("cat", "fox", "dog", "owl")
    ours, theirs = (FixedImages(PIXELS.images, torch.arange(4), names=given) for given in names)
    with pytest.raises(InputError, match="class 1 is 'dog' of fixed images and 'fox' of"):
        ClassFrechet().check(both(ours, theirs))
    ClassFrechet().check(both(ours, PIXELS))  # whose names are only numbers
    with pytest.raises(InputError, match="knows 4 classes and fixed images has 3"):
        ClassAccuracy().check(both(PIXELS, three))


def both(real, fake):
    return MetricContext(
        extractor=Projection(width=WIDTH),
        num_fake=NUM,
        num_real=NUM,
        num_real_features=NUM,
        all_real=True,
        fake=fake,
        real=real,
    )


def test_accuracy_counts_and_is_absent_without_labels():
    labels = torch.arange(400) % 4
    logits = torch.nn.functional.one_hot(labels, 4).float()
    logits[:100] = torch.tensor([9.0, 0, 0, 0])
    (found,) = ClassAccuracy().compute(
        None, as_set(normal(0, 400), labels, logits), context(fake=400)
    )
    assert found.value == pytest.approx((300 + 25) / 400)
    assert found.uncertainty == pytest.approx(math.sqrt(0.8125 * 0.1875 / 400))
    assert ClassAccuracy().compute(None, as_set(normal(0, 400), None, logits), context()) == []


def test_modes_in_closed_form():
    assert divergence_from_uniform(torch.full((1000,), 7)) == pytest.approx(0, abs=1e-12)
    one = torch.zeros(1000).long()
    one[3] = 500
    assert divergence_from_uniform(one) == pytest.approx(math.log(1000))
    half = torch.cat([torch.full((500,), 4), torch.zeros(500)])
    assert divergence_from_uniform(half) == pytest.approx(math.log(2))
    drawn = as_set(torch.ones(2, 1))
    drawn.features["modes"] = (torch.arange(1000) % 250)[:, None].float()
    modes, divergence = Modes().compute(None, drawn, context())
    assert (modes.key, modes.value) == ("modes", 250)
    assert divergence.value == pytest.approx(math.log(4))


@pytest.mark.parametrize(
    ("metric", "changes", "message"),
    [
        (Frechet(), {"real": WIDTH}, "16 real images for 16 features"),
        (Frechet(), {"fake": WIDTH}, "16 generated images for 16 features.*kid_small"),
        (Kernel(), {"fake": 600}, "600 generated.*protocol=kid_small"),
        (InceptionScore(), {"fake": 9}, "splits=1"),
        (PrecisionRecall(), {"real": 3}, "more than 3 of each"),
        (Frechet(output="spatial"), {}, "no output 'spatial'; it has features, logits"),
        (Modes(), {"extractor": Projection(), "fake": 999}, "no output 'modes'"),
    ],
)
def test_what_cannot_be_measured_is_rejected_before_anything_is_extracted(metric, changes, message):
    with pytest.raises(InputError, match=message):
        metric.check(context(**changes))
    Frechet(allow_singular=True).check(context(WIDTH, WIDTH))
