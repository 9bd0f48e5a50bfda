"""Averages of any length, put together after training from two that were kept.

A power function average at time t weighs the weights of time s by (gamma + 1) s^gamma / t^(gamma + 1). Its length, the
deviation of that profile, is always the same share of the training so far, sigma_rel. Averages of other lengths are
sums of those kept at several times, with the profiles that fit best. Karras et al. 2024, section 3 and appendix C,
https://arxiv.org/abs/2312.02696.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gan_lab.console import warn
from gan_lab.errors import InputError
from gan_lab.training.checkpoint import read

LENGTHS = (0.05, 0.1)  # that are kept: the paper's
LONGEST = 0.28  # gamma = 0, the mean of all weights, has 0.2887
STATE = "PostHocAverages"  # in a checkpoint: the name of the callback
FOLDER, SUFFIX = "ema", ".pt"

_POOR = 0.1  # relative error of a profile from which a warning is said
_RANK = 1e-12  # singular values below this share of the largest are 0: profiles that are nearly the same


def exponent(length: float) -> float:
    """Return gamma of a relative length: sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), equation 123.

    Raises:
        InputError: for a length that there is not.
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
    """Return what of each profile kept makes the one that is wanted, and the relative error of their sum.

    Args:
        times: of the profiles, of their ends; in any unit.
        gammas: of the profiles.
        time: of the one that is wanted.
        gamma: likewise.
    """
    kept = np.array(times, dtype=np.float64) / time, np.array(gammas, dtype=np.float64)
    wanted = np.array([1.0]), np.array([gamma])
    sides, target = products(*kept, *wanted)[:, 0], products(*wanted, *wanted)[0, 0]
    found = np.linalg.lstsq(products(*kept, *kept), sides, rcond=_RANK)[0].astype(np.float64)
    return found, float(max(1 - sides @ found / target, 0.0)) ** 0.5


@dataclass(frozen=True)
class Snapshot:
    """Averages that were kept at one time.

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
        """Read one as `as_dict` returns it."""
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
    """Return where a snapshot is kept."""
    return run_dir / FOLDER / f"kimg{kimg:010.3f}{SUFFIX}"


def snapshot_kimg(path: Path) -> float:
    """Return the time of a snapshot by its name."""
    return float(path.stem.removeprefix("kimg"))


def combined(run_dir: Path, state: Mapping[str, Any], length: float) -> dict[str, Tensor]:
    """Return the generator's weights by name, as an average of any length at a checkpoint would have them.

    Buffers (batch norm's statistics and the like) are those of the checkpoint.

    Args:
        run_dir: with the snapshots.
        state: of the checkpoint.
        length: of the average, as a share of the training up to there.

    Raises:
        InputError: when nothing was kept, or for a length that there is not.
    """
    gamma = exponent(length)
    own = state.get("callbacks", {}).get(STATE)
    if not own:
        raise InputError(
            f"ema={length}: {run_dir} kept no averages to make it of; train with callbacks=[default,post_hoc_ema]"
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
            f"ema={length}: the profile that was kept for it is off by {error:.0%}; lengths from {lengths[0]:g} to "
            f"{lengths[-1]:g} come out well, shorter ones with snapshots at shorter intervals"
        )
    total: dict[str, Tensor] = {}
    rows = weights.reshape(len(kimgs), len(lengths))
    for place, row in enumerate(rows):
        kept = last if place == len(earlier) else Snapshot.of(read(earlier[place])["state_dict"])
        for each, weight in zip(lengths, row.tolist(), strict=True):
            for name, value in kept.averages[each].items():
                part = value.double() * weight
                total[name] = total[name] + part if name in total else part
    found = {name: value.to(last.averages[lengths[0]][name].dtype) for name, value in total.items()}
    return {**last.buffers, **found}
