import functools

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from gan_lab.config import build, conf_dir
from gan_lab.data.base import MemoryImages
from gan_lab.data.builtin import Digits
from gan_lab.errors import InputError
from gan_lab.metrics.cache import tensors_sha256
from gan_lab.metrics.features.classifiers import (
    DigitsRecipe,
    all_samples,
    load_digits_classifier,
    train_digits_classifier,
)
from tests.helpers.sources import FixedImages


@pytest.fixture(scope="session")
def real():
    """All training digits: uint8 [1437, 1, 16, 16] and labels."""
    return all_samples(Digits(split="train", image_size=16))


def digits_metrics(**changes):
    with initialize_config_dir(version_base=None, config_dir=str(conf_dir())):
        node = compose(overrides=["+metrics=digits"]).metrics
    return build(OmegaConf.merge(node, changes))


@pytest.fixture
def metrics(digits_data):
    metrics = digits_metrics()
    metrics.prepare(digits_data)
    return metrics


def test_classifier_is_accurate_on_held_out_digits():
    classifier, _ = load_digits_classifier()
    images, labels = all_samples(Digits(split="val", image_size=16))
    assert len(labels) == 360
    assert (classifier.measure(images)[1] == labels).double().mean() >= 0.97


def test_training_gives_the_same_bits_and_leaves_the_caller_alone(real):
    images, labels = all_samples(Digits(split="train", image_size=16))
    threads, hashes = torch.get_num_threads(), []
    try:
        for count, seed in ((1, 5), (2, 6)):
            torch.set_num_threads(count)
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                weights = train_digits_classifier(
                    DigitsRecipe(epochs=2), images, labels
                ).state_dict()
            hashes.append(tensors_sha256(weights))
            assert torch.equal(torch.get_rng_state(), before)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert hashes[0] == hashes[1]
    other = train_digits_classifier(DigitsRecipe(epochs=2, seed=1), images, labels)
    assert tensors_sha256(other.state_dict()) != hashes[0]


def test_loading_moves_no_random_state_and_a_damaged_file_gives_the_same_network(
    empty_cache, capsys
):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    recipe = DigitsRecipe(epochs=2, lowest_accuracy=0)
    _, first = load_digits_classifier(recipe)
    (file,) = empty_cache.glob("digits-classifier-*.pt")
    file.write_bytes(file.read_bytes()[:1000])
    _, again = load_digits_classifier(recipe)
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again
    assert "computed again" in " ".join(capsys.readouterr().out.split())


def test_another_recipe_is_another_entry(empty_cache):
    hashes = {
        load_digits_classifier(DigitsRecipe(epochs=epochs, lowest_accuracy=0))[1]
        for epochs in (1, 2)
    }
    assert len(hashes) == 2 == len(list(empty_cache.glob("digits-classifier-*.pt")))


def test_a_classifier_that_learned_nothing_is_not_used(empty_cache):
    with pytest.raises(RuntimeError, match="below 97%"):
        load_digits_classifier(DigitsRecipe(epochs=1, learning_rate=1e-9))


def test_real_digits_reach_the_reference(metrics, real):
    computed = metrics.compute(FixedImages(*real))
    assert computed["fd_digits"] == pytest.approx(computed["fd_digits_real"], rel=1e-4)
    assert computed["accuracy_digits"] > 0.99
    assert 0 < computed["fd_digits_real"] < 1


def test_one_image_a_class_is_accurate_and_far_away(metrics, real):
    images, labels = real
    first = [int((labels == digit).nonzero()[0]) for digit in range(10)]
    computed = metrics.compute(FixedImages(images[first], labels[first]))
    assert computed["accuracy_digits"] == 1
    assert computed["fd_digits"] > 30 * computed["fd_digits_real"]


def test_missing_digits_and_noise_move_the_distance(metrics, real):
    images, labels = real

    def distance(images):
        return metrics.compute(FixedImages(images))["fd_digits"]

    whole, without_a_nine, without_odd = (
        distance(images[keep]) for keep in (labels < 10, labels < 9, labels % 2 == 0)
    )
    noise = torch.randint(256, (1437, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    assert 3 * whole < without_a_nine < without_odd < distance(noise.to(torch.uint8))


def test_wrong_labels_are_chance_and_no_labels_no_accuracy(metrics, real):
    images, labels = real
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    assert metrics.compute(FixedImages(images, shuffled))["accuracy_digits"] == pytest.approx(
        0.1, abs=0.03
    )
    assert set(metrics.compute(FixedImages(images))) == {"fd_digits", "fd_digits_real"}


@pytest.mark.parametrize(
    "options",
    [{"image_size": 8}, {"image_size": 32, "channels": 3}, {"image_size": [24, 20], "channels": 4}],
)
def test_takes_digits_of_any_size_and_color(options, datamodule):
    data = datamodule(dataset=functools.partial(Digits, **options))
    metrics = digits_metrics()
    metrics.prepare(data)
    images, labels = all_samples(data.train)
    computed = metrics.compute(FixedImages(images, labels))
    assert computed["accuracy_digits"] > 0.9
    assert computed["fd_digits"] == pytest.approx(computed["fd_digits_real"], rel=1e-4)


def test_mirrored_training_digits_do_not_move_the_reference(metrics, datamodule, real):
    mirrored = digits_metrics()
    mirrored.prepare(datamodule(dataset=functools.partial(Digits, image_size=16, flip=True)))
    floors = [m.compute(FixedImages(*real))["fd_digits_real"] for m in (mirrored, metrics)]
    assert floors[0] == pytest.approx(floors[1], rel=1e-9)


def test_says_what_it_is(metrics, capsys, digits_data):
    metrics.prepare(digits_data)
    output = " ".join(capsys.readouterr().out.split())
    assert "fd_digits_real is 0." in output and "train split of Digits" in output
    assert metrics.best == "fd_digits" and metrics.mode == "min"
    assert metrics.provenance["num_images"] == 1437
    assert len(metrics.provenance["extractor_sha256"]) == 64


def test_other_data_are_rejected(datamodule):
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

    with pytest.raises(InputError, match=r"data are MemoryImages; choose other metrics"):
        digits_metrics().prepare(datamodule(dataset=dataset))


def test_too_few_images_are_rejected(digits_data):
    with pytest.raises(InputError, match="more than 64"):
        digits_metrics(num_fake=64).prepare(digits_data)
