"""Floating-point operations of matrix products and convolutions, and how many of them a machine can do."""

import time
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

from gan_lab.bench.clock import synchronize

Shape = list[int]


class FlopCounter(TorchDispatchMode):
    """Counts what runs inside it: forward, backward and second derivatives alike.

    Two operations a multiplication with its addition, in matrix products, convolutions and attention; nothing for
    what works element by element. The formulas are torch's, but for convolutions: torch's takes the backward pass of
    a grouped one for one without groups. Its FlopCounterMode, besides, follows modules with hooks that a
    differentiation inside a loss does not bear.

    Attributes:
        total: operations so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        aten = torch.ops.aten
        self._formulas = {
            **flop_registry,
            aten.convolution: shape_wrapper(convolution_flops),
            aten.convolution_backward: shape_wrapper(convolution_backward_flops),
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def convolution_flops(
    x: Shape,
    weight: Shape,
    bias: Shape | None,
    stride: Shape,
    padding: Shape,
    dilation: Shape,
    transposed: bool,
    *rest: Any,
    out_shape: Shape,
    **settings: Any,
) -> int:
    """Return the operations of a convolution: every weight meets every pixel of the smaller side's grid once."""
    pixels = x[2:] if transposed else out_shape[2:]
    return 2 * x[0] * prod(pixels) * prod(weight)


def convolution_backward_flops(
    gradient: Shape,
    x: Shape,
    weight: Shape,
    bias: Shape | None,
    stride: Shape,
    padding: Shape,
    dilation: Shape,
    transposed: bool,
    output_padding: Shape,
    groups: int,
    output_mask: list[bool],
    **settings: Any,
) -> int:
    """Return the operations of the gradients by input and weight, as many as the convolution's for either."""
    pixels = x[2:] if transposed else gradient[2:]
    return 2 * x[0] * prod(pixels) * prod(weight) * sum(output_mask[:2])


def matmul_peak(
    device: torch.device, dtype: torch.dtype, *, seconds: float = 1.0
) -> tuple[float, float]:
    """Return the most operations that products of large square matrices reach on a device.

    Args:
        device: with the threads that torch has now.
        dtype: of the matrices.
        seconds: how long to try; the fastest product counts.

    Returns:
        Operations a second and operations a second of CPU time.
    """
    size = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    end = time.perf_counter() + seconds
    taken = [seconds_of_product(a, b)]
    while time.perf_counter() < end:
        taken.append(seconds_of_product(a, b))
    fastest, cheapest = (min(column) for column in zip(*taken, strict=True))
    return 2 * size**3 / fastest, 2 * size**3 / cheapest


def seconds_of_product(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Return the seconds and CPU seconds of one matrix product."""
    synchronize(a.device)
    begin = time.perf_counter(), time.process_time()
    torch.mm(a, b)
    synchronize(a.device)
    return time.perf_counter() - begin[0], time.process_time() - begin[1]
