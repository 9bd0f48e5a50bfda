"""Custom Lightning strategy and precision plugins."""

from typing import Any

import torch
from lightning.pytorch.plugins import LayerSync, MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.distributed import broadcast

from gan_lab.distributed.batch_norm import share_statistics
from gan_lab.layers.collectives import several_ranks


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
