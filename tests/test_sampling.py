"""Images depend on seed, index and label, and on nothing else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_lab.errors import InputError
from gan_lab.models import dcgan, gan, lsgan, wgan_gp
from gan_lab.models.networks import GeneratorNetwork
from gan_lab.sampling import Gan

FAMILIES = {
    "gan": lambda classes: gan.Generator(image_size=8, channels=1, num_classes=classes, width=32),
    "dcgan": lambda classes: dcgan.Generator(
        image_size=16, channels=3, num_classes=classes, width=8
    ),
    "lsgan": lambda classes: lsgan.Generator(
        image_size=16, channels=1, num_classes=classes, width=8
    ),
    "wgan_gp": lambda classes: wgan_gp.Generator(
        image_size=16, channels=3, num_classes=classes, width=16
    ),
}


def generator_of(family: str, classes: int) -> GeneratorNetwork:
    torch.manual_seed(0)
    return FAMILIES[family](classes).eval()


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("classes", [0, 5])
@settings(max_examples=8, deadline=None)
@given(batch_size=st.integers(1, 70), count=st.integers(1, 40))
def test_the_same_images_whatever_the_batch_size_and_the_number(
    family: str, classes: int, batch_size: int, count: int
) -> None:
    drawn = Gan(generator_of(family, classes))
    whole = drawn.sample(40, seed=3)
    assert torch.equal(drawn.sample(count, seed=3, batch_size=batch_size), whole[:count])


def test_another_seed_gives_other_images() -> None:
    drawn = Gan(generator_of("gan", 0))
    images = torch.cat([drawn.sample(50, seed=seed) for seed in (0, 1)])
    assert len(images.flatten(1).unique(dim=0)) == 100


def test_labels_follow_the_training_data() -> None:
    drawn = Gan(generator_of("gan", 3), class_counts=[1, 0, 3])
    labels = drawn.labels(4000)
    assert labels is not None
    share = torch.bincount(labels, minlength=3) / 4000
    torch.testing.assert_close(share, torch.tensor([0.25, 0, 0.75]), atol=0.03, rtol=0)
    assert torch.equal(labels[100:200], drawn.labels(100, start=100))  # type: ignore[arg-type]


def test_chosen_labels() -> None:
    drawn = Gan(generator_of("gan", 3))
    one = drawn.sample(4, labels=2)
    assert torch.equal(one, drawn.sample(4, labels=[2, 2, 2, 2]))
    assert not torch.equal(one, drawn.sample(4, labels=1))
    each = torch.cat(
        [labels for _, labels in drawn.batches(5, labels=[0, 1, 2, 0, 1], batch_size=2)]
    )  # type: ignore[misc]
    assert each.tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("classes", "arguments", "message"),
    [
        (3, {"labels": 3}, "class 3 is out of range: there are 3, 0 to 2"),
        (3, {"labels": 1.7}, "not whole numbers"),
        (3, {"labels": "1"}, "not whole numbers"),
        (3, {"labels": True}, "not whole numbers"),
        (3, {"labels": -1}, "class -1 is out of range"),
        (3, {"labels": [0, 1]}, "one for each of 4 images"),
        (0, {"labels": 0}, "generator without classes"),
        (0, {"batch_size": 0}, "must be at least 1"),
    ],
)
def test_bad_input(classes: int, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Gan(generator_of("gan", classes)).sample(4, **arguments)  # type: ignore[arg-type]


def test_the_global_random_state_is_left_alone() -> None:
    drawn = Gan(generator_of("gan", 3))
    before = torch.get_rng_state()
    drawn.sample(20)
    assert torch.equal(before, torch.get_rng_state())
