"""`python -m tests.helpers.as_one train ...`: gan-lab with latents that do not depend on the number of processes."""

import pytest
import torch
from torch import Tensor

from gan_lab.cli import main
from gan_lab.data.sample import SampleSpec
from gan_lab.seeding import derive_seed
from gan_lab.training import checks
from gan_lab.training.module import AdversarialModule


def latents(self: AdversarialModule, count: int) -> Tensor:
    """Draw for all processes, by the clock alone, and take this one's part, as the sampler of images does."""
    world = self.trainer.world_size
    generator = torch.Generator().manual_seed(derive_seed(self.images_seen))
    drawn = torch.randn(
        count * world, self.generator.z_dim, generator=generator, dtype=torch.float64
    )
    return drawn.split(count)[self.global_rank]


def drawn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in double precision, in which the order of sums hardly matters."""
    monkeypatch.setattr(AdversarialModule, "sample_latents", latents)
    encode = SampleSpec.encode
    monkeypatch.setattr(SampleSpec, "encode", lambda spec, stored: encode(spec, stored).double())
    monkeypatch.setattr(checks, "PRECISIONS", (*checks.PRECISIONS, "64-true"))


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        drawn_alike(patch)
        main()
