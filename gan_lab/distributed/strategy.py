"""What is ours of Lightning's processes and precisions."""

from typing import Any

import torch
from lightning.pytorch.plugins import LayerSync, MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.distributed import broadcast

from gan_lab.distributed.batch_norm import share_statistics
from gan_lab.layers.collectives import several_ranks


class Ranks(DDPStrategy):
    """Lightning's processes, devices and process group, without its wrapper around the whole module.

    DistributedDataParallel would look for gradients of G in a D step, and again in each penalty. The loop averages
    those of the player that steps, once a step and after the last micro-batch (`layers.ranks.average_gradients`).
    """

    def configure_ddp(self) -> None:
        """Wrap nothing; begin from rank 0's weights everywhere."""
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


class SharedStatistics(LayerSync):
    """Batch norm of the players over all processes; the moving average, always in evaluation mode, has no need."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Change a model's players in place, and return it."""
        for player in ("generator", "discriminator"):
            share_statistics(model.get_submodule(player))
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Return the model as it is: without other processes these layers are plain batch norm."""
        return model


class HalfPrecision(MixedPrecision):
    """float16 without Lightning's one scaler for all losses: the loop has one for each player.

    Args:
        device: type of the device.
    """

    def __init__(self, *, device: str) -> None:
        super().__init__("16-mixed", device)
        self.scaler = None
