"""What is ours of Lightning's processes and precisions."""

from typing import Any

import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed import broadcast

from gan_lab.layers.ranks import several_ranks


class Ranks(DDPStrategy):
    """Lightning's processes, devices and process group, without its wrapper around the whole module.

    DistributedDataParallel would look for gradients of G in a D step, and again in each penalty. The loop averages
    those of the player that steps, once a step and after the last micro-batch (`layers.ranks.average_gradients`).
    """

    def configure_ddp(self) -> None:
        """Wrap nothing; begin from rank 0's weights everywhere."""
        assert self.lightning_module is not None
        if several_ranks():
            with torch.no_grad():
                for tensor in self.lightning_module.state_dict().values():
                    if isinstance(tensor, torch.Tensor):
                        broadcast(tensor, src=0)

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Nothing: the sampler knows its rank."""
        return {}


class HalfPrecision(MixedPrecision):
    """float16 without Lightning's one scaler for all losses: the loop has one for each player.

    Args:
        device: type of the device.
    """

    def __init__(self, *, device: str) -> None:
        super().__init__("16-mixed", device)
        self.scaler = None
