"""Feature networks, one file each: the Hydra group `features=`."""

from gan_lab.metrics.features.base import Extractor, WeightsUnavailable

__all__ = ["Extractor", "WeightsUnavailable"]
