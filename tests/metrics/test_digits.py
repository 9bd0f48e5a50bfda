import functools

import pytest
import torch

from gan_lab.data.digits import Digits
from gan_lab.data.memory import MemoryImages
from gan_lab.errors import InputError
from gan_lab.images import to_float
from gan_lab.metrics.cache import tensors_sha256
from gan_lab.metrics.digits import DigitsMetrics
from gan_lab.metrics.digits_classifier import (
    Recipe,
    load_classifier,
    stored_images,
    train_classifier,
)


@pytest.fixture(scope="session")
def real():
    """All training digits: floats [1437, 1, 16, 16] and labels."""
    images, labels = stored_images(Digits(split="train", image_size=16))
    return to_float(images), labels


@pytest.fixture
def metrics(digits_data):
    metrics = DigitsMetrics()
    metrics.prepare(digits_data)
    return metrics


def generator(images, labels, batch_size=500):
    """A generator that "draws" the given images in turn."""

    def fakes(num):
        order = torch.arange(num) % len(images)
        for part in order.split(batch_size):
            yield images[part], None if labels is None else labels[part]

    return fakes


def test_classifier_knows_the_held_out_digits():
    classifier, _ = load_classifier()
    images, labels = stored_images(Digits(split="val", image_size=16))
    assert len(labels) == 360
    assert (classifier.measure(images)[1] == labels).double().mean() >= 0.97


def test_training_gives_the_same_bits_and_leaves_the_caller_alone(real):
    images, labels = stored_images(Digits(split="train", image_size=16))
    threads, hashes = torch.get_num_threads(), []
    try:
        for count, seed in ((1, 5), (2, 6)):
            torch.set_num_threads(count)
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                weights = train_classifier(Recipe(epochs=2), images, labels).state_dict()
            hashes.append(tensors_sha256(weights))
            assert torch.equal(torch.get_rng_state(), before)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert hashes[0] == hashes[1]
    other = train_classifier(Recipe(epochs=2, seed=1), images, labels)
    assert tensors_sha256(other.state_dict()) != hashes[0]


def test_loading_moves_no_random_state_and_a_damaged_file_gives_the_same_network(
    empty_cache, capsys
):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    recipe = Recipe(epochs=2, lowest_accuracy=0)
    _, first = load_classifier(recipe)
    (file,) = empty_cache.glob("digits-classifier-*.pt")
    file.write_bytes(file.read_bytes()[:1000])
    _, again = load_classifier(recipe)
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again
    assert "computed again" in " ".join(capsys.readouterr().out.split())


def test_another_recipe_is_another_entry(empty_cache):
    hashes = {load_classifier(Recipe(epochs=epochs, lowest_accuracy=0))[1] for epochs in (1, 2)}
    assert len(hashes) == 2 == len(list(empty_cache.glob("digits-classifier-*.pt")))


def test_a_classifier_that_learned_nothing_is_not_used(empty_cache):
    with pytest.raises(RuntimeError, match="below 97%"):
        load_classifier(Recipe(epochs=1, learning_rate=1e-9))


def test_real_digits_reach_the_floor(metrics, real):
    figures = metrics.compute(generator(*real))
    assert figures["fd_digits"] == pytest.approx(figures["fd_digits_real"], rel=1e-4)
    assert figures["accuracy_digits"] > 0.99
    assert 0 < figures["fd_digits_real"] < 1


def test_one_image_a_class_is_accurate_and_far_away(metrics, real):
    images, labels = real
    first = [int((labels == digit).nonzero()[0]) for digit in range(10)]
    figures = metrics.compute(generator(images[first], labels[first]))
    assert figures["accuracy_digits"] == 1
    assert figures["fd_digits"] > 30 * figures["fd_digits_real"]


def test_missing_digits_and_noise_move_the_distance(metrics, real):
    images, labels = real

    def distance(images):
        return metrics.compute(generator(images, None))["fd_digits"]

    whole, without_a_nine, without_odd = (
        distance(images[keep]) for keep in (labels < 10, labels < 9, labels % 2 == 0)
    )
    noise = torch.rand(1437, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert 3 * whole < without_a_nine < without_odd < distance(noise)


def test_wrong_labels_are_chance_and_no_labels_no_accuracy(metrics, real):
    images, labels = real
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    assert metrics.compute(generator(images, shuffled))["accuracy_digits"] == pytest.approx(
        0.1, abs=0.03
    )
    assert set(metrics.compute(generator(images, None))) == {"fd_digits", "fd_digits_real"}


def test_does_not_depend_on_the_batch_size(metrics, real):
    small, large = (metrics.compute(generator(*real, batch_size=size)) for size in (7, 1437))
    assert small == pytest.approx(large, rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"image_size": 8}, {"image_size": 32, "channels": 3}, {"image_size": [24, 20], "channels": 4}],
)
def test_takes_digits_of_any_size_and_colour(options, datamodule):
    data = datamodule(dataset=functools.partial(Digits, **options))
    metrics = DigitsMetrics()
    metrics.prepare(data)
    images, labels = stored_images(data.train)
    figures = metrics.compute(generator(to_float(images), labels))
    assert figures["accuracy_digits"] > 0.9
    assert figures["fd_digits"] == pytest.approx(figures["fd_digits_real"], rel=1e-4)


def test_mirrored_training_digits_do_not_move_the_floor(metrics, datamodule):
    mirrored = DigitsMetrics()
    mirrored.prepare(datamodule(dataset=functools.partial(Digits, image_size=16, flip=True)))
    assert mirrored._reference.floor == metrics._reference.floor


def test_says_what_it_is(metrics, capsys, digits_data):
    metrics.prepare(digits_data)
    told = " ".join(capsys.readouterr().out.split())
    assert "of the 360 held-out digits" in told and "fd_digits of the real" in told
    assert metrics.best == "fd_digits" and metrics.mode == "min"
    assert metrics.protocol["num_images"] == 1437
    assert len(metrics.protocol["extractor_sha256"]) == 64


def test_other_data_are_refused(datamodule):
    pixels = torch.zeros(20, 8, 8, 1, dtype=torch.uint8).numpy()
    plain = functools.partial(
        MemoryImages,
        pixels=pixels,
        labels=torch.arange(20).numpy() % 2,
        class_names=["a", "b"],
        image_size=None,
        crop="none",
        resample="bicubic",
        channels=None,
        flip=False,
    )

    def dataset(*, split, flip=False):
        return plain(split=split)

    with pytest.raises(InputError, match=r"MemoryImages; set metrics=fid.*data=digits"):
        DigitsMetrics().prepare(datamodule(dataset=dataset))


def test_too_few_images_and_broken_images_are_refused(metrics):
    with pytest.raises(InputError, match="more than 64"):
        DigitsMetrics(num_images=64)
    broken = torch.full((1437, 1, 16, 16), float("nan"))
    with pytest.raises(InputError, match="NaN"):
        metrics.compute(generator(broken, None))
