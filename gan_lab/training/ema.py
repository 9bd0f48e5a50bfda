"""Exponential moving average of the generator's weights, and post-hoc EMA."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gan_lab.console import warn
from gan_lab.errors import InputError
from gan_lab.training.checkpoint import DamagedCheckpointError, read_archive

Buffers = Literal["copy", "average"]


class ExponentialMovingAverage:
    """Averages parameters with a half-life in images; buffers are copied or averaged.

    beta = 0.5 ^ (images / half-life); Karras et al. 2018, section 5.1 and appendix A, https://arxiv.org/abs/1710.10196,
    with the half-life in images and the ramp-up of Karras et al. 2020 (ADA), https://arxiv.org/abs/2006.06676.

    A decay of beta per generator step is a half-life of ln 0.5 / ln beta steps, each of batch_size * d_steps images.

    Batch norm's running statistics are buffers of the raw generator. Copied, they are those of its last few steps,
    which suits short half-lives, and buffers that are no statistics of single steps (StyleGAN's running mean of w,
    vectors of the power method). Averaged, they change as slowly as the weights, as in
    https://github.com/ajbrock/BigGAN-PyTorch, which suits half-lives of many kimg. Standing statistics
    (`gan_lab.layers.networks`), measured with the averaged weights, are better than both.

    Args:
        half_life_kimg: half-life in thousands of real images; 0 copies the weights.
        rampup: limit of the half-life as a share of the images seen, for the start of training; null for none.
        buffers: "copy" or "average"; integers are always copied.

    Raises:
        InputError: for invalid numbers, or another value of `buffers`.
    """

    def __init__(
        self, *, half_life_kimg: float, rampup: float | None = 0.05, buffers: Buffers = "copy"
    ) -> None:
        if half_life_kimg < 0 or (rampup is not None and rampup <= 0):
            raise InputError(
                f"EMA: half_life_kimg={half_life_kimg} must be >= 0 and rampup={rampup} positive or null"
            )
        if buffers not in get_args(Buffers):
            raise InputError(
                f"EMA: buffers={buffers!r} must be one of {', '.join(get_args(Buffers))}"
            )
        self.half_life_kimg = half_life_kimg
        self.rampup = rampup
        self.buffers = buffers

    def decay(self, *, images_seen: int, images: int) -> float:
        """Return beta for an update `images` after the last one, at `images_seen`."""
        half_life = self.half_life_kimg * 1000
        if self.rampup is not None:
            half_life = min(half_life, images_seen * self.rampup)
        return 0.5 ** (images / half_life) if half_life > 0 else 0.0

    @torch.no_grad()
    def update(
        self, average: nn.Module, network: nn.Module, *, images_seen: int, images: int
    ) -> None:
        """Move `average` towards `network`, which has the same structure."""
        decay = self.decay(images_seen=images_seen, images=images)
        old: list[Tensor] = list(average.parameters())
        new: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(old, new, 1 - decay)
        for kept, buffer in zip(average.buffers(), network.buffers(), strict=True):
            if self.buffers == "average" and buffer.is_floating_point():
                kept.lerp_(buffer, 1 - decay)
            else:
                kept.copy_(buffer)


# Post-hoc EMA: an average of any length, computed after training from two averages that were saved during training.
#
# A power function average at time t weights the parameters of time s by (gamma + 1) s^gamma / t^(gamma + 1). Its
# relative length sigma_rel, the standard deviation of that profile over t, is constant. Averages of other lengths are
# the linear combination of saved ones whose profile fits best. Karras et al. 2024, section 3 and appendix C,
# https://arxiv.org/abs/2312.02696.


LENGTHS = (0.05, 0.1)  # lengths of the saved averages, as in the paper
LONGEST = 0.28  # gamma = 0, the mean of all weights, has 0.2887
STATE = "PostHocAverages"  # name of the callback's state in a checkpoint
FOLDER, SUFFIX = "ema", ".pt"

_POOR = 0.1  # relative error of a profile above which there is a warning
_RANK = (
    1e-12  # smaller singular values, relative to the largest, count as 0 (nearly equal profiles)
)


def exponent(length: float) -> float:
    """Return gamma of a relative length: sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), equation 123.

    Raises:
        InputError: for an unknown length.
    """
    if not 0 < length <= LONGEST:
        raise InputError(
            f"ema={length} must lie above 0 and be at most {LONGEST}, a share of the training"
        )
    precision = length**-2
    return float(np.roots([1, 7, 16 - precision, 12 - precision]).real.max())


def decay(gamma: float, *, images_seen: int, images: int) -> float:
    """Return beta of an update `images` after the last one: (1 - images / images_seen)^(gamma + 1), equation 127."""
    return (1 - min(images / images_seen, 1)) ** (gamma + 1)


Numbers = NDArray[np.float64]


def products(times: Numbers, gammas: Numbers, others: Numbers, exponents: Numbers) -> Numbers:
    """Return the inner products [A, B] of profiles (times, gammas) [A] with profiles (others, exponents) [B]."""
    a, b = np.log(times)[:, None], np.log(others)[None]
    p, q = gammas[:, None], exponents[None]
    log = np.log((p + 1) * (q + 1) / (p + q + 1)) + (p + q + 1) * np.minimum(a, b)
    return np.exp(log - (p + 1) * a - (q + 1) * b)


def coefficients(
    times: Sequence[float], gammas: Sequence[float], *, time: float, gamma: float
) -> tuple[Numbers, float]:
    """Return the coefficients of the saved profiles for a wanted one, and the relative error.

    Args:
        times: ends of the saved profiles, in any unit.
        gammas: of the saved profiles.
        time: end of the wanted profile.
        gamma: of the wanted profile.
    """
    kept = np.array(times, dtype=np.float64) / time, np.array(gammas, dtype=np.float64)
    wanted = np.array([1.0]), np.array([gamma])
    sides, target = products(*kept, *wanted)[:, 0], products(*wanted, *wanted)[0, 0]
    found = np.linalg.lstsq(products(*kept, *kept), sides, rcond=_RANK)[0].astype(np.float64)
    return found, float(max(1 - sides @ found / target, 0.0)) ** 0.5


@dataclass(frozen=True)
class Snapshot:
    """The averages of one time.

    Attributes:
        images_seen: the time.
        averages: length -> weights by name.
        buffers: of the generator, by name.
    """

    images_seen: int
    averages: Mapping[float, Mapping[str, Tensor]]
    buffers: Mapping[str, Tensor]

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Snapshot":
        """Build a snapshot from `as_dict`'s result."""
        averages = {float(length): values for length, values in state["averages"].items()}
        return cls(int(state["images_seen"]), averages, state["buffers"])

    def as_dict(self) -> dict[str, Any]:
        """Return plain containers and tensors."""
        averages = {str(length): dict(values) for length, values in self.averages.items()}
        return {
            "images_seen": self.images_seen,
            "averages": averages,
            "buffers": dict(self.buffers),
        }


def snapshot_path(run_dir: Path, kimg: float) -> Path:
    """Return the path of a snapshot."""
    return run_dir / FOLDER / f"kimg{kimg:010.3f}{SUFFIX}"


def read_snapshot(path: Path) -> Snapshot:
    """Read a snapshot of the run folder.

    Raises:
        InputError: when it is missing, damaged or something else.
    """
    state = read_archive(path)
    try:
        return Snapshot.of(state["state_dict"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedCheckpointError(
            f"{path} is not a snapshot of averages; remove it to use the others"
        ) from error


def snapshot_kimg(path: Path) -> float:
    """Parse the kimg of a snapshot from its name."""
    return float(path.stem.removeprefix("kimg"))


def combined(run_dir: Path, state: Mapping[str, Any], length: float) -> dict[str, Tensor]:
    """Compute the generator's weights at a checkpoint as a post-hoc average of any length.

    Buffers (batch norm's statistics and the like) are those of the checkpoint.

    Args:
        run_dir: with the snapshots.
        state: of the checkpoint.
        length: of the average, as a share of the training up to there.

    Raises:
        InputError: when the run saved no averages, or for an invalid length.
    """
    gamma = exponent(length)
    own = state.get("callbacks", {}).get(STATE)
    if not own:
        raise InputError(
            f"ema={length}: {run_dir} saved no averages; train with callbacks=[default,post_hoc_ema]"
        )
    last = Snapshot.of(own)
    end = last.images_seen / 1000
    paths = sorted((run_dir / FOLDER).glob(f"kimg*{SUFFIX}"))
    earlier = [path for path in paths if snapshot_kimg(path) < end]
    kimgs = [*(snapshot_kimg(path) for path in earlier), end]
    lengths = sorted(last.averages)
    times = [kimg for kimg in kimgs for _ in lengths]
    gammas = [exponent(each) for _ in kimgs for each in lengths]
    weights, error = coefficients(times, gammas, time=end, gamma=gamma)
    if error > _POOR:
        warn(
            f"ema={length} can only be approximated, with an error of {error:.0%}; lengths from {lengths[0]:g} to "
            f"{lengths[-1]:g} are accurate, shorter ones need snapshots at shorter intervals"
        )
    total: dict[str, Tensor] = {}
    rows = weights.reshape(len(kimgs), len(lengths))
    for i, row in enumerate(rows):
        kept = last if i == len(earlier) else read_snapshot(earlier[i])
        for each, weight in zip(lengths, row.tolist(), strict=True):
            for name, value in kept.averages[each].items():
                part = value.double() * weight
                total[name] = total[name] + part if name in total else part
    found = {name: value.to(last.averages[lengths[0]][name].dtype) for name, value in total.items()}
    return {**last.buffers, **found}
