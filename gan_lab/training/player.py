"""A player: generator or discriminator with its optimizer, scaler, clipping and regularizers."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import Optimizer

from gan_lab.distributed.ranks import average_gradients
from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorNetwork, GeneratorNetwork
from gan_lab.training.regularizers import PlayerName, Regularizer

OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]

OPTIMIZER_NUMBERS = ("lr", "beta1", "beta2", "momentum", "eps", "weight_decay")
NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
NO_DECAY = ("norms", "biases")


@dataclass(frozen=True, kw_only=True)
class ParameterGroups:
    """Which parameters of a network its optimizer treats differently.

    Attributes:
        no_decay: parameters without weight_decay: "norms" (of normalization layers), "biases".
        rate_multipliers: module of the network -> multiplier of its learning rate, such as {"mapping": 0.01}; an inner
            module's multiplier replaces an outer one's.

    Raises:
        InputError: for an unknown name in `no_decay`, or a negative multiplier.
    """

    no_decay: Sequence[str] = ()
    rate_multipliers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if wrong := [kind for kind in self.no_decay if kind not in NO_DECAY]:
            raise InputError(f"no_decay={wrong[0]} is unknown; there are {', '.join(NO_DECAY)}")
        for name, multiplier in self.rate_multipliers.items():
            if multiplier < 0:
                raise InputError(f"rate_multipliers.{name}={multiplier} must not be negative")

    def split(self, network: nn.Module) -> list[dict[str, Any]]:
        """Return the trainable parameters of a network as an optimizer's parameter groups.

        Raises:
            InputError: for a rate multiplier of a module that the network does not have.
        """
        modules = dict(network.named_modules())
        for name in self.rate_multipliers:
            if name not in modules:
                known = ", ".join(name for name, _ in network.named_children())
                raise InputError(
                    f"rate_multipliers.{name}: there is no such module; there are {known}"
                )
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                owner, _, leaf = name.rpartition(".")
                is_norm = "norms" in self.no_decay and isinstance(modules[owner], NORMS)
                no_decay = is_norm or ("biases" in self.no_decay and leaf == "bias")
                groups.setdefault((self._multiplier(owner), no_decay), []).append(parameter)
        return [
            {
                "params": parameters,
                "rate_multiplier": multiplier,
                "no_decay": no_decay,
                **({"weight_decay": 0.0} if no_decay else {}),
            }
            for (multiplier, no_decay), parameters in groups.items()
        ]

    def _multiplier(self, module: str) -> float:
        """Return the multiplier of the innermost module with one."""
        while module not in self.rate_multipliers:
            if not module:
                return 1.0
            module = module.rpartition(".")[0]
        return self.rate_multipliers[module]


class Player:
    """The generator or the discriminator with its optimizer, scaler, clipping and regularizers.

    Attributes:
        optimizer: None until `build_optimizer`.
        scaler: of the loss in float16, otherwise None. Each player has its own: their losses differ in size.
        steps_taken: main optimizer steps so far; steps of lazy penalties do not count.

    Args:
        name: "generator" or "discriminator".
        network: the trained network.
        average: the network's moving average, or None.
        make_optimizer: maps parameter groups to the optimizer.
        groups: which parameters the optimizer treats differently.
        clip_norm: largest L2 norm of the gradient; None for no limit.
        regularizers: of both players, by name.

    Raises:
        InputError: for a regularizer that does not support the network.
    """

    def __init__(
        self,
        name: PlayerName,
        network: GeneratorNetwork | DiscriminatorNetwork,
        *,
        average: nn.Module | None = None,
        make_optimizer: OptimizerFactory,
        groups: ParameterGroups | None = None,
        clip_norm: float | None = None,
        regularizers: Mapping[str, Regularizer],
    ) -> None:
        self.name = name
        self.network = network
        self.average = average
        self.make_optimizer = make_optimizer
        self.groups = groups or ParameterGroups()
        self.clip_norm = clip_norm
        self.regularizers: dict[str, Any] = {
            n: r for n, r in regularizers.items() if r.player == name
        }
        self.optimizer: Optimizer | None = None
        self.scaler: torch.amp.GradScaler | None = None
        self.steps_taken = 0
        self._configured: list[dict[str, Any]] = []
        for regularizer in self.regularizers.values():
            regularizer.check(network)

    # Penalties

    def penalties(self, lazy: str | None = None) -> dict[str, Any]:
        """Return the penalties that are added to the loss of every step, or the lazy penalty of that name."""
        if lazy is not None:
            return {lazy: self.regularizers[lazy]}
        return {n: r for n, r in self.regularizers.items() if r.penalizes and r.interval == 1}

    def lazy_penalties_due(self) -> list[str]:
        """Return the names of lazy penalties that are due for their own optimizer step."""
        lazy = {
            n: r.interval for n, r in self.regularizers.items() if r.penalizes and r.interval > 1
        }
        return [name for name, interval in lazy.items() if self.steps_taken % interval == 0]

    @property
    def lazy_correction(self) -> float:
        """Share of main steps among the player's optimizer steps: c = 1 / (1 + sum 1/interval).

        Adam's lr becomes c * lr and each beta beta^c, which compensates for the steps of lazy penalties
        (Karras et al. 2020, appendix B, https://arxiv.org/abs/1912.04958, where c = k / (k + 1)).
        """
        lazy = [r for r in self.regularizers.values() if r.penalizes and r.interval > 1]
        return 1 / (1 + sum(1 / r.interval for r in lazy))

    # The optimizer

    def build_optimizer(self) -> Optimizer:
        """Build the optimizer, corrected for the steps of lazy penalties."""
        optimizer = self.make_optimizer(self.groups.split(self.network))
        correction = self.lazy_correction
        for group in optimizer.param_groups:
            group["lr"] *= group["rate_multiplier"] * correction
            if "betas" in group:
                group["betas"] = tuple(beta**correction for beta in group["betas"])
        self.optimizer = optimizer
        self._configured = [
            {key: value for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
        ]
        return optimizer

    def reset_optimizer(self) -> None:
        """Restore the configured lr and other settings, which loading an optimizer's state has overwritten."""
        assert self.optimizer is not None
        for group, configured in zip(self.optimizer.param_groups, self._configured, strict=True):
            group.update(configured)

    def has_number(self, name: str) -> bool:
        """Whether the built optimizer has this one of `OPTIMIZER_NUMBERS`."""
        assert self.optimizer is not None
        return ("betas" if name.startswith("beta") else name) in self.optimizer.defaults

    def set_number(self, name: str, value: float) -> None:
        """Set one of `OPTIMIZER_NUMBERS`, with the correction for lazy penalties, or `clip_norm`."""
        if name == "clip_norm":
            self.clip_norm = value
            return
        assert self.optimizer is not None
        correction = self.lazy_correction
        for group in self.optimizer.param_groups:
            if name == "lr":
                group["lr"] = value * group["rate_multiplier"] * correction
            elif name in ("beta1", "beta2"):
                betas = list(group["betas"])
                betas[int(name[-1]) - 1] = value**correction
                group["betas"] = tuple(betas)
            elif name != "weight_decay" or not group["no_decay"]:
                group[name] = value

    # A step

    def scaled(self, loss: Tensor) -> Tensor:
        """Scale a loss for float16."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def update(self, optimizer: LightningOptimizer, *, measure: bool = False) -> Tensor | None:
        """Average the gradient over ranks, clip it and step; then let regularizers act on the new weights.

        Args:
            optimizer: the player's, as Lightning wraps it.
            measure: whether to return the gradient's L2 norm before clipping.
        """
        parameters = list(self.network.parameters())
        average_gradients(parameters)
        if self.scaler is not None:
            self.scaler.unscale_(optimizer.optimizer)
        if self.network.half_precision:
            bound_gradients(parameters)
        norm = None
        if self.clip_norm is not None:
            norm = clip_grad_norm_(parameters, self.clip_norm)
        elif measure:
            norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.scaler is None:
            optimizer.step()
        else:
            # skips the step if a gradient is not finite, and lowers the scale
            self.scaler.step(optimizer.optimizer)
            self.scaler.update()
        for regularizer in self.regularizers.values():
            regularizer.after_step(self.network)
        return norm if measure else None

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return the state besides weights and optimizer."""
        scaler = None if self.scaler is None else self.scaler.state_dict()
        return {"steps_taken": self.steps_taken, "scaler": scaler}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`; a run resumed in another precision keeps its own scaler."""
        self.steps_taken = state["steps_taken"]
        if self.scaler is not None and state["scaler"] is not None:
            self.scaler.load_state_dict(state["scaler"])


def build_players(
    *,
    networks: tuple[GeneratorNetwork, DiscriminatorNetwork],
    optimizers: tuple[OptimizerFactory, OptimizerFactory],
    groups: tuple[ParameterGroups | None, ParameterGroups | None],
    clip_norms: tuple[float | None, float | None],
    averages: tuple[nn.Module | None, nn.Module | None],
    regularizers: Mapping[str, Regularizer],
) -> dict[str, Player]:
    """Build both players, "generator" and "discriminator", from pairs (G's, D's).

    Raises:
        InputError: for a regularizer that does not support its network.
    """
    names: tuple[PlayerName, PlayerName] = ("generator", "discriminator")
    pairs = zip(names, networks, optimizers, groups, clip_norms, averages, strict=True)
    return {
        name: Player(
            name,
            network,
            average=average,
            make_optimizer=optimizer,
            groups=split,
            clip_norm=clip_norm,
            regularizers=regularizers,
        )
        for name, network, optimizer, split, clip_norm, average in pairs
    }


def bound_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace non-finite gradients of half precision, which would stay in the optimizer's averages.

    As in the published StyleGAN2-ADA and StyleGAN3, which train float16 layers without loss scaling and clamp
    activations (ADA, https://arxiv.org/abs/2006.06676, appendix D).
    """
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.nan_to_num_(nan=0.0, posinf=1e5, neginf=-1e5)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Freeze a network's parameters within the block."""
    trained = [p for p in network.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
