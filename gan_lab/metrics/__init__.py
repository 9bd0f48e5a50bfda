"""Metrics of generated samples: pure functions of features, and protocols for training and evaluation."""

from gan_lab.metrics.base import Metrics, NoMetrics
from gan_lab.metrics.functional import (
    density_coverage,
    diversity,
    frechet_distance,
    frechet_distance_from_statistics,
    gaussian_statistics,
    inception_score,
    kernel_distance,
    nearest,
    precision_recall,
)

__all__ = [
    "Metrics",
    "NoMetrics",
    "density_coverage",
    "diversity",
    "frechet_distance",
    "frechet_distance_from_statistics",
    "gaussian_statistics",
    "inception_score",
    "kernel_distance",
    "nearest",
    "precision_recall",
]
