"""Half precision for the finest resolutions, where most of the work is.

ADA, Karras et al. 2020, appendix D, https://arxiv.org/abs/2006.06676: activations of those layers are in half precision
and clamped; weights, styles, demodulation and images stay in single precision.
"""

from typing import Any

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError

FP16_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def find_fp16_dtype(name: str) -> torch.dtype:
    """Return the type of that name.

    Raises:
        InputError: when it is not half as wide as float32.
    """
    if name not in FP16_DTYPES:
        raise InputError(f"fp16_dtype={name!r} must be one of {', '.join(FP16_DTYPES)}")
    return FP16_DTYPES[name]


def to_fp16(x: Tensor, half: torch.dtype | None) -> Tensor:
    """Return `x` in the type `half`, or in full precision for None.

    A CPU computes float16 slower than float32, so it stays at float32 there.
    """
    if half is None or (half == torch.float16 and x.device.type == "cpu"):
        return to_fp32(x)
    return x.to(half)


def to_fp32(x: Tensor) -> Tensor:
    """Return `x` in at least single precision."""
    return x.float() if x.dtype in FP16_DTYPES.values() else x


def half_precision_parts(network: nn.Module) -> list[Any]:
    """Return the layers that compute in half precision; `dtype` None brings them to single precision."""
    return [part for part in network.modules() if isinstance(vars(part).get("dtype"), torch.dtype)]
