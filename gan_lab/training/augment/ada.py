"""ADA: adaptive discriminator augmentation.

Every image for D, real or generated, is augmented, each operation with probability p. When D overfits, p rises, else it
falls:

    r_t = E[sign(D(real))],  p <- p + sign(r_t - target) * images / (speed_kimg * 1000)

Karras et al. 2020, section 3 (control) and appendix B (operations), https://arxiv.org/abs/2006.06676.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.layers.collectives import mean_over_ranks
from gan_lab.training.augment import Augmentation, Draws
from gan_lab.training.augment.geometry import BLITS, WARPS, move
from gan_lab.training.augment.pixels import COLORS, add_noise, cut_out, equalize, recolor

GROUPS = {
    "blit": BLITS,
    "geom": WARPS,
    "color": COLORS,
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
}

PIPES = {
    **{group: (group,) for group in GROUPS},
    **{group[0]: (group,) for group in ("blit", "geom", "color", "filter", "noise")},
    "bg": ("blit", "geom"),
    "bgc": ("blit", "geom", "color"),
    "bgcf": ("blit", "geom", "color", "filter"),
    "bgcfn": ("blit", "geom", "color", "filter", "noise"),
    "bgcfnc": ("blit", "geom", "color", "filter", "noise", "cutout"),
}

OPERATIONS = tuple(operation for group in GROUPS.values() for operation in group)


class ADA(Augmentation):
    """Augmentations of images with 1, 3 or 4 channels, each with probability p, which may be adaptive.

    Images without any operation are unchanged, bit for bit. Computes in at least float32, and returns the images'
    dtype.

    Args:
        pipe: operations: `blit geom color filter noise cutout`, of the first five also the first letter, or a
            set of them, `bg bgc bgcf bgcfn bgcfnc`.
        p: probability of each operation, from 0 to 1: the initial one if adaptive, else a constant or scheduled one.
        target: r_t for adaptive p (0.6 in the paper), None for a fixed p.
        speed_kimg: images in which p would go from 0 to 1.
        interval: D steps between two changes of p.
        strengths: operation -> multiplier of p for it, 1 for those of `pipe` and 0 for the others where not given.

    Raises:
        InputError: for unknown operations, or numbers out of range.
    """

    p: Tensor | float
    observed: Tensor
    signs: Tensor
    since: Tensor
    overfitting: Tensor

    def __init__(
        self,
        *,
        pipe: str = "bgc",
        p: float = 0.0,
        target: float | None = 0.6,
        speed_kimg: float = 500,
        interval: int = 4,
        strengths: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise InputError(f"ada: p={p} must be from 0 to 1")
        if target is not None and not -1 < target < 1:
            raise InputError(f"ada: target={target} must lie between -1 and 1; 0.6 is the paper's")
        if speed_kimg <= 0 or interval < 1:
            raise InputError(
                f"ada: speed_kimg={speed_kimg} must be positive and interval={interval} at least 1"
            )
        self.target = target
        self.speed_kimg = speed_kimg
        self.interval = interval
        self.strengths = choose_strengths(pipe, strengths or {})
        if target is None:
            self.p = p  # can be scheduled
        else:
            self.register_buffer("p", torch.tensor(float(p)))
        # sum and count of the logits' signs: of this D step on this rank, and of all ranks since the last change of p
        self.register_buffer("observed", torch.zeros(2), persistent=False)
        self.register_buffer("signs", torch.zeros(2))
        # D steps and images since the last change of p
        self.register_buffer("since", torch.zeros(2, dtype=torch.long))
        self.register_buffer("overfitting", torch.tensor(0.0))  # last r_t

    def forward(self, images: Tensor) -> Tensor:
        self._check(images)
        if self._idle(images):
            return images
        with torch.autocast(images.device.type, enabled=False):
            exact = images if images.dtype == torch.float64 else images.float()
            draws = Draws(exact, self._p_on_device(), self.strengths)
            changed = move(exact, draws)
            for change in (recolor, equalize, add_noise, cut_out):
                changed = change(changed, draws)
        return changed.to(images.dtype)

    @torch.no_grad()
    def observe(self, real_logits: Tensor) -> None:
        if self.target is not None:
            signs = real_logits.detach().float().sign().sum()
            # the numerator and denominator of r_t, section 3.1, equation 1
            self.observed += torch.stack([signs, torch.full_like(signs, real_logits.numel())])

    @torch.no_grad()
    def adapt(self, images: int) -> None:
        if isinstance(self.p, float | int):
            return
        assert self.target is not None
        # on the device and without a branch, so without synchronization
        self.since[0] += 1
        self.since[1] += images
        due = self.since[0] >= self.interval
        # every step, so that checkpoints are the same on all ranks
        self.signs += mean_over_ranks(self.observed)
        self.observed.zero_()
        total, number = self.signs
        seen = number > 0
        overfitting = torch.where(due & seen, total / number, self.overfitting)
        direction = torch.sign(overfitting - self.target) * seen
        moved = self.p + direction * self.since[1] / (self.speed_kimg * 1000)
        self.p.copy_(torch.where(due, moved.clamp(0, 1), self.p))
        self.overfitting.copy_(overfitting)
        self.signs *= ~due
        self.since *= ~due

    def metrics(self) -> Mapping[str, Tensor]:
        if self.target is None:
            return {"p": self._p_on_device()}
        return {"p": self._p_on_device(), "r": self.overfitting}

    def strengthen(self) -> None:
        if isinstance(self.p, Tensor):
            self.p.fill_(1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # on resuming with another target: a fixed p is the configured one, an adaptive one starts from it
        if isinstance(self.p, Tensor):
            state_dict.setdefault(f"{prefix}p", self.p)
        else:
            state_dict.pop(f"{prefix}p", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _p_on_device(self) -> Tensor:
        """Return p as a 0-dim tensor on the module's device."""
        return self.p if isinstance(self.p, Tensor) else torch.full_like(self.overfitting, self.p)

    def _idle(self, images: Tensor) -> bool:
        if isinstance(self.p, Tensor):
            # free on the CPU; elsewhere it would synchronize
            return images.device.type == "cpu" and self.p.item() <= 0
        return self.p <= 0

    def _check(self, images: Tensor) -> None:
        channels, height, width = images.shape[1:]
        if channels not in (1, 3, 4):
            raise InputError(f"ada: images have {channels} channels; it takes 1, 3 or 4")
        if min(height, width) < 2:
            raise InputError(f"ada: images of {height}x{width}; it takes 2x2 and larger ones")


def choose_strengths(pipe: str, strengths: Mapping[str, float]) -> dict[str, float]:
    """Return the multiplier of every operation.

    Raises:
        InputError: for an unknown set, an unknown operation or a negative multiplier.
    """
    if pipe not in PIPES:
        raise InputError(f"ada: pipe={pipe} is unknown; there are {', '.join(PIPES)}")
    for operation, strength in strengths.items():
        if operation not in OPERATIONS:
            raise InputError(
                f"ada: strengths.{operation} is unknown; there are {', '.join(OPERATIONS)}"
            )
        if strength < 0:
            raise InputError(f"ada: strengths.{operation}={strength} must not be negative")
    included = {operation for group in PIPES[pipe] for operation in GROUPS[group]}
    defaults = {operation: float(operation in included) for operation in OPERATIONS}
    return {**defaults, **strengths}
