"""What all functions of features ask of them."""

import torch
from torch import Tensor

from gan_lab.errors import InputError


def check_features(features: Tensor, *, least: int = 1) -> None:
    """Refuse what is no set of features.

    Raises:
        InputError: for another shape than [N, D] with N >= `least`, and for NaN or infinity.
    """
    if features.ndim != 2 or len(features) < least:
        raise InputError(
            f"features have shape {list(features.shape)}; expected [N, D] with N >= {least}"
        )
    if not torch.isfinite(features).all():
        raise InputError(
            "features hold NaN or infinity: look at the images that they were made from"
        )


def check_pair(real: Tensor, fake: Tensor, *, least: int = 1) -> None:
    """Refuse two sets that cannot be compared.

    Raises:
        InputError: as `check_features`, and for unequal widths.
    """
    check_features(real, least=least)
    check_features(fake, least=least)
    if real.shape[1] != fake.shape[1]:
        raise InputError(
            f"features of unequal widths: {real.shape[1]} (real) and {fake.shape[1]} (generated)"
        )
