"""Resolve `auto` values of a config from the data and the device, with the reason, and store them.

On GPUs batch, width, learning rate, R1 and average follow `--cfg=auto` of the authors' StyleGAN2-ADA,
https://github.com/NVlabs/stylegan2-ada-pytorch, for images of any shape. Lengths, intervals and values for CPUs
are our own choice.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import floor, log10, prod, sqrt
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from gan_lab.config import build, flatten
from gan_lab.console import say
from gan_lab.data.base import SampleDataset
from gan_lab.distributed.processes import world_size

AUTO = "auto"

_LIMITS = (64, 32)  # images per batch, and per device


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Input of the rules.

    Attributes:
        num_images: training images, without mirroring.
        shape: of one sample.
        device: "cpu", "cuda", ...
        devices: number of processes.
    """

    num_images: int
    shape: tuple[int, ...]
    device: str
    devices: int = 1

    @property
    def pixels(self) -> int:
        """Pixels of an image."""
        return prod(self.shape[1:])

    @property
    def side(self) -> float:
        """Side of a square with the same number of pixels."""
        return sqrt(self.pixels)

    @property
    def size(self) -> str:
        """Height and width, for messages."""
        return "x".join(map(str, self.shape[1:]))


Decided = tuple[float, str]  # a value and the reason
Rule = Callable[[DictConfig, Facts], Decided]


def _total_kimg(config: DictConfig, facts: Facts) -> Decided:
    if facts.device == "cpu":
        return 200, "a CPU: as long as one waits; a first impression"
    if facts.num_images < 1_000:
        return (
            5_000,
            f"{facts.num_images:,} images; experiment=few_shot is made for fewer than 1,000",
        )
    if facts.num_images < 10_000:
        return 5_000, f"{facts.num_images:,} images: below 10,000 little comes later"
    return 25_000, f"{facts.num_images:,} images: from 10,000 on as long as the papers"


def _batch_size(config: DictConfig, facts: Facts) -> Decided:
    each = max(1, min(4096 // round(facts.side), _LIMITS[1]))
    if facts.device == "cpu":
        return min(each, 16) * facts.devices, f"{facts.size} pixels on a CPU, whose steps are slow"
    found = max(min(facts.devices * each, _LIMITS[0]) // facts.devices, 1) * facts.devices
    return found, f"{facts.size} pixels on {facts.devices} device(s): 4096 / side, at most 32 each"


def _channel_base(config: DictConfig, facts: Facts) -> Decided:
    if facts.device == "cpu":
        return 2_048, "a CPU: a sixteenth of the paper's width"
    if facts.side >= 512:
        return 32_768, f"{facts.size} pixels: the paper's width from 512 on"
    return 16_384, f"{facts.size} pixels: half the paper's width below 512"


def _channel_max(config: DictConfig, facts: Facts) -> Decided:
    if facts.device == "cpu":
        return 128, "a CPU: a quarter of the paper's"
    return 512, "the paper's"


def _half_precision(config: DictConfig, facts: Facts) -> Decided:
    if facts.device == "cuda":
        return 4, "float16 at the four finest resolutions, as published for GPUs"
    return 0, f"{facts.device}: float16 is no gain"


def _learning_rate(config: DictConfig, facts: Facts) -> Decided:
    if facts.side >= 1024:
        return 0.002, f"{facts.size} pixels: from 1024 on"
    return 0.0025, f"{facts.size} pixels: below 1024"


def _stddev_group(config: DictConfig, facts: Facts) -> Decided:
    each = _each(config, facts)
    found = next(size for size in (4, 3, 2, 1) if each % size == 0)
    return found, f"{each} images at a time, at most 4 together"


def _gamma(config: DictConfig, facts: Facts) -> Decided:
    found = 0.0002 * facts.pixels / config.batch_size
    return found, (
        f"0.0002 x {facts.pixels:,} pixels / batch of {config.batch_size}; where samples collapse try 4 times as much, "
        "where they stay rough a quarter"
    )


def _half_life(config: DictConfig, facts: Facts) -> Decided:
    return config.batch_size * 10 / 32, f"10 kimg for 32 images: batch of {config.batch_size}"


def _ada_speed(config: DictConfig, facts: Facts) -> Decided:
    if config.get("init_from"):
        return 100, "init_from: D begins trained, and overfits sooner"
    found = min(500.0, config.total_kimg / 10)
    return found, f"the paper's 500, at most a tenth of the {config.total_kimg:g} kimg"


def _frozen_layers(config: DictConfig, facts: Facts) -> Decided:
    if not config.get("init_from"):
        return 0, "D starts untrained: there is nothing to freeze"
    # three convolutions per resolution (two and the shortcut), and one for the image
    halvings = max(round(sqrt(facts.pixels)).bit_length() - 3, 0)
    found = (3 * halvings + 1) // 2
    return (
        found,
        f"init_from: half of D's {3 * halvings + 1} layers stay as they are (Freeze-D; half is our choice)",
    )


def _frozen_blocks(config: DictConfig, facts: Facts) -> Decided:
    if not config.get("init_from"):
        return 0, "D starts untrained: there is nothing to freeze"
    # one for the image, and one for each halving down to 8 pixels
    found = max(round(facts.side).bit_length() - 3, 1)
    return (
        found // 2,
        f"init_from: half of the {found} parts of each of D's encoders stay as they are (Freeze-D)",
    )


def _every(share: int) -> Rule:
    """Return the rule for an interval: a number of times per run, rounded."""

    def rule(config: DictConfig, facts: Facts) -> Decided:
        found = rounded(config.total_kimg / share)
        return min(found, config.total_kimg), f"about {share} times in {config.total_kimg:g} kimg"

    return rule


# in order, since rules use earlier values
RULES: dict[str, Rule] = {
    "total_kimg": _total_kimg,
    "batch_size": _batch_size,
    "model.generator.channel_base": _channel_base,
    "model.generator.channel_max": _channel_max,
    "model.discriminator.channel_base": _channel_base,
    "model.discriminator.channel_max": _channel_max,
    "model.generator.num_fp16_res": _half_precision,
    "model.discriminator.num_fp16_res": _half_precision,
    "model.discriminator.mbstd_group_size": _stddev_group,
    "model.discriminator.frozen_layers": _frozen_layers,
    "model.discriminator.frozen_blocks": _frozen_blocks,
    "model.generator_optimizer.lr": _learning_rate,
    "model.discriminator_optimizer.lr": _learning_rate,
    "regularizer.r1.weight": _gamma,
    "model.ema.half_life_kimg": _half_life,
    "augment.ada.speed_kimg": _ada_speed,
    "callbacks.training_log.every_kimg": _every(500),
    "callbacks.samples.every_kimg": _every(50),
    "callbacks.evaluation.every_kimg": _every(25),
    "callbacks.checkpointing.every_kimg": _every(50),
}


def auto_keys(config: DictConfig) -> list[str]:
    """Return the keys to decide, in order."""
    found = []
    for key in RULES:
        node = OmegaConf.select(config, key.rpartition(".")[0]) if "." in key else config
        if OmegaConf.is_dict(node) and node.get(key.rpartition(".")[2]) == AUTO:
            found.append(key)
    return found


@contextmanager
def placeholders(config: DictConfig) -> Iterator[None]:
    """Put placeholders for `auto`, while types are checked."""
    keys = auto_keys(config)
    for key in keys:
        OmegaConf.update(config, key, 1)
    try:
        yield
    finally:
        for key in keys:
            OmegaConf.update(config, key, AUTO)


def decide(config: DictConfig, facts: Facts, before: Mapping[str, Any] | None = None) -> None:
    """Replace every `auto` by a value, and print it with the reason.

    Args:
        config: of a training command; changed in place.
        facts: of data and device.
        before: config of the interrupted run, whose values are kept, also on another machine.
    """
    kept = {} if before is None else flatten(before)
    for key in auto_keys(config):
        value, reason = kept.get(key), "as the run began"
        if isinstance(value, bool) or not isinstance(value, int | float):
            value, reason = RULES[key](config, facts)
        value = int(value) if float(value).is_integer() else value
        OmegaConf.update(config, key, value)
        say(f"auto: {key}={value:g} ({reason})")


def decide_by_data(config: DictConfig, before: Mapping[str, Any] | None = None) -> None:
    """Replace `auto` values; opens the training data if there are any.

    Args:
        config: of a training command; changed in place.
        before: as in `decide`.

    Raises:
        InputError: for data that cannot be read.
    """
    if not auto_keys(config):
        return
    dataset = build(config.data, Callable[..., SampleDataset])(split="train")
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    on_cpu = accelerator is None or config.trainer.get("accelerator") == "cpu"
    facts = Facts(
        num_images=dataset.num_stored,
        shape=dataset.spec.shape,
        device="cpu" if on_cpu or accelerator is None else accelerator.type,
        devices=world_size(config.trainer),
    )
    decide(config, facts, before)


def rounded(value: float) -> float:
    """Return 1, 2 or 5 times a power of ten, the largest that is not above a value."""
    power = 10.0 ** floor(log10(value))
    return next(step * power for step in (5, 2, 1) if step * power <= value * (1 + 1e-9))


def _each(config: DictConfig, facts: Facts) -> int:
    """Images per device."""
    return int(config.get("micro_batch_size") or config.batch_size // facts.devices)
