"""What the files of networks name of Lightning, or stand-ins where it is not installed.

An architecture is one file, with its networks and its training loop. An exported model needs the networks alone, and is
drawn from on machines that have no Lightning; nobody can train there, and nobody can try: the loop's module has no
Trainer.
"""

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from lightning import LightningModule as LightningModule
    from lightning.pytorch.utilities import rank_zero_only as rank_zero_only
else:
    try:
        from lightning import LightningModule
        from lightning.pytorch.utilities import rank_zero_only
    except ModuleNotFoundError as error:
        if error.name != "lightning":  # it is there and lacks something itself
            raise
        LightningModule = nn.Module

        def rank_zero_only(function):
            """Return the function: without Lightning there is one process."""
            return function


__all__ = ["LightningModule", "rank_zero_only"]
