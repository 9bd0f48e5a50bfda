"""Half precision for the finest resolutions, which cost most, and layers that stay in float32.

ADA, Karras et al. 2020, appendix D, https://arxiv.org/abs/2006.06676: activations of those layers are in half precision
and clamped; weights, styles, demodulation and images stay in single precision.
"""

from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available

from gan_lab.errors import InputError

FP16_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def find_fp16_dtype(name: str) -> torch.dtype:
    """Return the torch type of a name, "float16" or "bfloat16".

    Raises:
        InputError: for another name.
    """
    if name not in FP16_DTYPES:
        raise InputError(f"fp16_dtype={name!r} must be one of {', '.join(FP16_DTYPES)}")
    return FP16_DTYPES[name]


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Disable autocast on a device."""
    kind = device.type
    return torch.autocast(kind, enabled=False) if is_autocast_available(kind) else nullcontext()


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
    """Return the layers that compute in half precision; setting their `dtype` to None turns that off."""
    return [part for part in network.modules() if isinstance(vars(part).get("dtype"), torch.dtype)]


def keep_ends_in_float32(
    generator: nn.Module, discriminator: nn.Module, shape: tuple[int, ...]
) -> None:
    """Keep the first and last layers in float32 under autocast, for samples with more than 8 bits.

    Args:
        generator: its layers with one output per channel (or value) of a sample.
        discriminator: its layers with one input per channel (or value).
        shape: of a sample, as networks see it.
    """
    for network, side in (generator, 0), (discriminator, 1):
        for part in network.modules():
            weight = getattr(part, "weight", None)
            if not isinstance(weight, Tensor) or weight.ndim < 2:
                continue
            axis = 1 - side if isinstance(part, nn.modules.conv._ConvTransposeNd) else side
            if weight.shape[axis] == (prod(shape) if weight.ndim == 2 else shape[0]):
                part.register_forward_pre_hook(_leave_autocast)
                part.register_forward_hook(_enter_autocast, always_call=True)


def _leave_autocast(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    # a pre-hook and a hook, since one hook cannot wrap the forward pass
    module.full_precision = full_precision(module.weight.device)
    module.full_precision.__enter__()
    return tuple(to_fp32(arg) if isinstance(arg, Tensor) else arg for arg in args)


def _enter_autocast(module: Any, args: tuple[Any, ...], made: Any) -> None:
    module.full_precision.__exit__(None, None, None)
    del module.full_precision
