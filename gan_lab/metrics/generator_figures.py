"""Figures of a generator, not of a set of its images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.metrics.feature_set import Needs
from gan_lab.metrics.figures import Measure, Setting
from gan_lab.metrics.images import GanImages, ImageSource
from gan_lab.metrics.ranks import Ranks


class GeneratorMeasure(Measure):
    """Needs a generator; extracts nothing.

    Args:
        key: of the figure; None makes it of what is measured.
    """

    def __init__(self, *, key: str | None = None) -> None:
        super().__init__(output="features", key=key)
        self.real: Needs = {}
        self.fake: Needs = {}

    def check(self, setting: Setting) -> None:
        super().check(setting)
        if setting.fake is not None:
            self.check_generator(drawn_by(setting.fake, self.kind))

    def check_generator(self, images: GanImages) -> None:
        """Refuse a generator that the figure means nothing to.

        Raises:
            InputError: with the reason.
        """


def drawn_by(images: ImageSource, kind: str) -> GanImages:
    """Return images as those of a generator.

    Raises:
        InputError: when they are files.
    """
    if not isinstance(images, GanImages):
        raise InputError(
            f"figures.{kind} measures a generator, and {images.name} are images; give run=, or leave it out"
        )
    return images


def in_turns(num: int, size: int, measure: Callable[[int, int], Tensor]) -> Tensor:
    """Measure `num` numbered things, `size` at a time, shared among processes.

    Args:
        num: how many.
        size: how many at a time.
        measure: (start, stop) -> a tensor [stop - start, ...] on the CPU, of these alone.

    Returns:
        [num, ...], the same in all processes and for any number of them.
    """
    ranks = Ranks.current()
    bounds = [(start, min(start + size, num)) for start in range(0, num, size)]
    found: list[Tensor] = []
    for turn in range(0, len(bounds), ranks.size):
        together = bounds[turn : turn + ranks.size]
        mine = measure(*together[ranks.rank]) if ranks.rank < len(together) else None
        found += [ranks.send(mine, source=owner) for owner in range(len(together))]
    return torch.cat(found)


@contextmanager
def single_precision(network: nn.Module) -> Iterator[None]:
    """Let a network compute in float32 throughout: differences of close images are lost in less."""
    halved = [
        part
        for part in network.modules()
        if isinstance(vars(part).get("working_type"), torch.dtype)
    ]
    before = [part.working_type for part in halved]
    try:
        for part in halved:
            vars(part)["working_type"] = None
        with (
            torch.autocast(next(network.parameters()).device.type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            yield
    finally:
        for part, working_type in zip(halved, before, strict=True):
            vars(part)["working_type"] = working_type
