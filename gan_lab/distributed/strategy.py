"""Custom Lightning strategy and precision plugins, and batch norm over all processes."""

from typing import Any

import torch
from lightning.pytorch.plugins import LayerSync, MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.autograd import Function
from torch.distributed import all_reduce, broadcast, get_world_size
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


class ManualDDPStrategy(DDPStrategy):
    """Data-parallel training in which the loop averages gradients itself, without DistributedDataParallel.

    That wrapper would look for gradients of G in a D step, and again in each penalty. The loop averages those of the
    player that steps, once a step and after the last micro-batch (`gan_lab.distributed.ranks.average_gradients`).
    """

    def configure_ddp(self) -> None:
        """Begin from rank 0's weights everywhere, and wrap nothing."""
        module = self.lightning_module
        assert module is not None
        if several_ranks():
            # not the whole state dict: a stage of growth in it lies on the CPU, where processes on GPUs cannot talk
            with torch.no_grad():
                for tensor in (*module.parameters(), *module.buffers()):
                    broadcast(tensor, src=0)

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Nothing: the sampler knows its rank."""
        return {}


class SyncBatchNorm(LayerSync):
    """Batch norm of the players over all processes; the moving average, always in evaluation mode, needs none."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Change a model's players in place, and return it."""
        for player in ("generator", "discriminator"):
            share_statistics(model.get_submodule(player))
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Return the model as it is: without other processes these layers are plain batch norm."""
        return model


class Float16Precision(MixedPrecision):
    """Mixed precision in float16 without Lightning's one scaler for all losses: each player has its own.

    Args:
        device: type of the device.
    """

    def __init__(self, *, device: str) -> None:
        super().__init__("16-mixed", device)
        self.scaler = None
