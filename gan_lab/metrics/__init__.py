"""Figures that say how good generated images are: pure functions of features, and what training calls."""

from gan_lab.metrics.base import Fakes, Metrics, NoMetrics
from gan_lab.metrics.frechet import (
    frechet_distance,
    frechet_distance_from_statistics,
    gaussian_statistics,
)
from gan_lab.metrics.inception_score import inception_score

__all__ = [
    "Fakes",
    "Metrics",
    "NoMetrics",
    "frechet_distance",
    "frechet_distance_from_statistics",
    "gaussian_statistics",
    "inception_score",
]
