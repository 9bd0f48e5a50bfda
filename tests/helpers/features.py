"""Features as metrics take them."""

from dataclasses import replace

import torch

from gan_lab.metrics.feature_metrics import MetricContext
from gan_lab.metrics.feature_set import FeatureSet
from gan_lab.metrics.functional import gaussian_statistics
from tests.helpers.sources import FixedImages, Projection, textures

NUM, WIDTH = 2000, 16


PIXELS = FixedImages(textures(4, 0, channels=1, size=8), torch.tensor([0, 1, 2, 3]))


def as_set(features, labels=None, logits=None):
    return FeatureSet(
        source=PIXELS,
        count=len(features),
        whole=True,
        features={"features": features, **({} if logits is None else {"logits": logits})},
        rows=torch.arange(len(features)) + 1000,
        statistics={"features": gaussian_statistics(features)},
        labels=labels,
    )


def context(real=NUM, fake=NUM, extractor=None, **changes):
    options = {
        "extractor": extractor or Projection(width=WIDTH),
        "num_fake": fake,
        "num_real": real,
        "num_real_features": real,
        "all_real": True,
    }
    return MetricContext(**(options | changes))


def compute_of_generator(images, metric, *, num, extractor):
    """Return the values of a generator's metric, without features."""
    extractor.load(torch.device("cpu"))
    given = replace(context(0, num, extractor, all_real=False), fake=images)
    metric.check(given)
    rows = torch.arange(num)
    empty = FeatureSet(source=images, count=num, whole=False, features={}, rows=rows, labels=None)
    return metric.compute(None, empty, given)
