"""Batch normalisation over the batches of all processes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.distributed import all_reduce, get_world_size
from torch.nn.modules.batchnorm import _BatchNorm

from gan_lab.layers.collectives import several_ranks
from gan_lab.layers.precision import to_fp32


class SharedBatchNorm(_BatchNorm):
    """Batch norm whose mean and variance are those of all processes' images, of which each has as many.

    `torch.nn.SyncBatchNorm` computes on GPUs alone. This one is made of differentiable operations: it runs wherever
    processes can talk, and penalties may differentiate it twice. Alone, and in evaluation, it is plain batch norm.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of [N, C, ...]."""
        if not (self.training and several_ranks()):
            return super().forward(x)
        kept = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        exact = to_fp32(x)
        mean = mean_everywhere(exact.mean(kept))  # [C]
        centred = exact - mean.view(shape)
        variance = mean_everywhere(centred.square().mean(kept))  # [C]
        self._keep(mean.detach(), variance.detach(), x.numel() // x.shape[1] * get_world_size())
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        y = centred * scale.view(shape)
        return (y + self.bias.view(shape) if self.affine else y).to(x.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics, as `nn.BatchNorm2d` does: towards the unbiased variance."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:  # the mean over all batches
            share = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        unbiased = variance * (count / (count - 1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of dimensions."""


def mean_everywhere(value: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes, differentiable as often as one likes."""
    total: Tensor = SumOverRanks.apply(value)
    return total / get_world_size()


class SumOverRanks(Function):
    """The sum over all processes; what each of them makes of it counts in every process's gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        """Return the sum of a tensor."""
        total = value.contiguous().clone()
        all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return the sum of the gradients, which may be differentiated again."""
        return SumOverRanks.apply(gradients[0])


def share_statistics(network: nn.Module) -> None:
    """Put a `SharedBatchNorm` in the place of each batch norm of a network, with its parameters and statistics."""
    for layer in list(network.modules()):
        for name, norm in layer.named_children():
            if isinstance(norm, _BatchNorm) and not isinstance(norm, SharedBatchNorm):
                setattr(layer, name, shared(norm))


def shared(norm: _BatchNorm) -> SharedBatchNorm:
    """Return a `SharedBatchNorm` of the same parameters and statistics as `norm`."""
    made = SharedBatchNorm(
        norm.num_features,
        eps=norm.eps,
        momentum=norm.momentum,
        affine=norm.affine,
        track_running_stats=norm.track_running_stats,
    )
    made._parameters.update(norm._parameters)
    made._buffers.update(norm._buffers)
    return made.train(norm.training)
