"""Features as metrics take them."""

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
