"""The small classifier: the same weights for the same images and seed, independent of global random state."""

import torch

from gan_lab.data.builtin import Digits
from gan_lab.metrics.features.classifiers import as_seen, train_classifier


def test_deterministic_and_alone() -> None:
    batch = Digits(split="val").__getitems__(range(360))
    assert batch.labels is not None
    images = as_seen(batch.real)
    assert images.shape == (360, 1, 32, 32) and images.min() >= -1 and images.max() <= 1
    state = torch.get_rng_state()
    one, again, other = (
        train_classifier(images, batch.labels, num_classes=10, steps=30, seed=seed)
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    weights = [classifier.head.weight for classifier in (one, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert (one.predict(images) == batch.labels).double().mean() > 0.5
