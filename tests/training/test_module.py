"""The training loop against a handwritten one."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from gan_lab.errors import InputError
from gan_lab.seeding import derive_seed
from gan_lab.training.module import AdversarialModule
from gan_lab.training.regularizers import R1, DiscriminatorRegularizer, GeneratorRegularizer
from tests.models.conftest import Make, fit, images_for
from tests.models.conftest import make as make

# no batch norm and no dropout: a batch is the sum of its parts
PLAIN = ("model.discriminator.dropout=0",)


def states(module: AdversarialModule) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor], **tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(
            value, theirs[name], msg=lambda m, name=name: f"{name}: {m}", **tolerance
        )


def by_hand(module: AdversarialModule, gamma: float) -> None:
    """Non-saturating loss, R1 in every D step, Adam, moving average: as one would write it for one model."""
    g, d = module.generator, module.discriminator
    g_adam, d_adam = (
        torch.optim.Adam(n.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True) for n in (g, d)
    )
    seen = 0
    for batch in images_for(module):
        torch.manual_seed(derive_seed(module.seed, 0, seen))
        for part in batch.split(len(batch) // module.d_steps):
            real, y = part.real, part.labels
            with torch.no_grad():
                fake = g(torch.randn(len(real), g.z_dim), y)
            real = real.clone().requires_grad_()
            real_logits, fake_logits = d(real, y), d(fake, y)
            loss = (softplus(-real_logits) + softplus(fake_logits)).mean()
            (slope,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
            loss = loss + gamma / 2 * slope.square().sum((1, 2, 3)).mean()
            d_adam.zero_grad()
            loss.backward()
            d_adam.step()
            seen += len(real)
        g_loss = softplus(-d(g(torch.randn(len(real), g.z_dim), y), y)).mean()
        g_adam.zero_grad()
        g_loss.backward()
        g_adam.step()
        decay = 0.5 ** (len(batch) / min(5000, 0.05 * seen))
        with torch.no_grad():
            for kept, new in zip(module.generator_ema.parameters(), g.parameters(), strict=True):
                kept.mul_(decay).add_(new, alpha=1 - decay)
            for old, buffer in zip(module.generator_ema.buffers(), g.buffers(), strict=True):
                old.copy_(buffer)


@pytest.mark.parametrize("model", ["gan", "dcgan", "wgan_gp"])
@pytest.mark.parametrize("d_steps", [1, 3])
def test_against_a_loop_by_hand(make: Make, model: str, d_steps: int) -> None:
    adam = [
        f"model.{player}_optimizer.{setting}"
        for player in ("generator", "discriminator")
        for setting in ("lr=2e-4", "betas=[0.5,0.999]")
    ]
    overrides = (
        "loss=nonsaturating", "regularizer=[r1]", "regularizer.r1.weight=0.7", f"d_steps={d_steps}", *adam,
        *(PLAIN if model == "gan" else ()),
    )  # fmt: skip
    ours = fit(make(model, *overrides, steps=4))
    theirs = make(model, *overrides, steps=4).train()
    by_hand(theirs, gamma=0.7)
    assert_equal(states(ours), states(theirs), rtol=2e-5, atol=2e-6)


def test_micro_batches_equal_the_whole_batch(make: Make) -> None:
    overrides = (*PLAIN, "regularizer=[r1,r2,orthogonal]", "loss=relativistic")
    whole = fit(make("gan", *overrides, batch_size=8, steps=3))
    parts = fit(make("gan", *overrides, "micro_batch_size=2", batch_size=8, steps=3))
    assert_equal(states(whole), states(parts), rtol=1e-5, atol=1e-5)
    ours, theirs = whole.stats.take(), parts.stats.take()
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def test_each_step_changes_only_its_player(make: Make) -> None:
    still = "_target_=torch.optim.SGD"
    for player, other in (("generator", "discriminator"), ("discriminator", "generator")):
        frozen_optimizer = [
            f"~model.{player}_optimizer.betas", f"~model.{player}_optimizer.fused",
            f"model.{player}_optimizer.{still}", f"model.{player}_optimizer.lr=0",
        ]  # fmt: skip
        module = make("gan", *frozen_optimizer)
        before = states(module)
        fit(module)
        after = states(module)
        assert all(torch.equal(before[n], after[n]) for n in before if n.startswith(f"{player}."))
        assert any(
            not torch.equal(before[n], after[n]) for n in before if n.startswith(f"{other}.")
        )


def counting(base: type[Any], calls: list[int]) -> Any:
    """Return a penalty that records its calls: the mean of the first weight, whose gradient is known."""

    class Counting(base):  # type: ignore[misc]
        def forward(self, step: Any) -> Tensor:
            calls.append(1)
            return next(step.network.parameters()).mean()

    return Counting(weight=0.5, interval=4)


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_a_lazy_penalty_has_its_own_steps_of_interval_times_the_weight(
    make: Make, player: str
) -> None:
    module = make("gan", *PLAIN, steps=9)
    base = GeneratorRegularizer if player == "generator" else DiscriminatorRegularizer
    calls: list[int] = []
    module.players[player].regularizers["counting"] = counting(base, calls)
    steps = []
    network = module.players[player].network

    class Recorder(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            steps.append(next(network.parameters()).grad.clone())
            return super().step(closure)

    module.players[player].make_optimizer = lambda groups: Recorder(groups, lr=0.0)
    fit(module)
    assert len(calls) == 3
    assert len(steps) == 9 + 3
    # the lazy step comes right after the main one of steps 0, 4 and 8 and holds nothing but the penalty
    lazy = [steps[1], steps[6], steps[11]]
    for gradient in lazy:
        torch.testing.assert_close(gradient, torch.full_like(gradient, 0.5 * 4 / gradient.numel()))


def test_clipping_limits_the_gradient(make: Make) -> None:
    sgd = []
    for player in ("generator", "discriminator"):
        sgd += [
            f"~model.{player}_optimizer.betas", f"~model.{player}_optimizer.fused",
            f"model.{player}_optimizer._target_=torch.optim.SGD", f"model.{player}_optimizer.lr=1",
        ]  # fmt: skip
    module = make(
        "gan",
        *PLAIN,
        *sgd,
        "model.generator_clip_norm=1e-3",
        "model.discriminator_clip_norm=2e-3",
        steps=1,
    )
    before = states(module)
    fit(module)
    for player, limit in (("generator", 1e-3), ("discriminator", 2e-3)):
        moves = [
            (value - before[name]).flatten()
            for name, value in module.state_dict().items()
            if name.startswith(f"{player}.")
        ]
        assert float(torch.cat(moves).norm()) == pytest.approx(limit, rel=1e-3)


def test_gradient_norms_are_measured_on_request(make: Make) -> None:
    module = make("gan", steps=1)
    module.measure_gradients = True
    fit(module)
    metrics = module.stats.take()
    assert metrics["grad_norm/g"] > 0 and metrics["grad_norm/d"] > 0


def test_noise_differs_by_step_and_rank_and_not_by_call(make: Make) -> None:
    module = make("gan", steps=3)
    drawn: list[Tensor] = []
    sample = module.sample_latents

    def recorded(count: int) -> Tensor:
        drawn.append(sample(count))
        return drawn[-1]

    module.sample_latents = recorded  # type: ignore[method-assign]
    fit(module)
    assert len({tuple(z.flatten().tolist()) for z in drawn}) == len(drawn) == 6
    seeds = {derive_seed(0, rank, images) for rank in range(4) for images in range(0, 4000, 64)}
    assert len(seeds) == 4 * 63
    assert derive_seed(0, 1, 64) == derive_seed(0, 1, 64)


def test_the_clock(make: Make) -> None:
    module = make("gan", batch_size=300, steps=10)
    marks = []
    for seen in range(300, 3001, 300):
        module.images_seen = seen
        if module.due(1.0):
            marks.append(seen)
    assert marks == [1200, 2100, 3000]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_penalties_are_in_full_precision(make: Make, precision: str) -> None:
    module = make("gan", *PLAIN, "regularizer=[r1,gradient_penalty]", "regularizer.r1.interval=2")
    kinds = set()

    class Watching(R1):
        def forward(self, step: Any) -> Tensor:
            kinds.add((step.real_logits.dtype, torch.is_autocast_enabled("cpu")))
            return super().forward(step)

    regularizers = module.players["discriminator"].regularizers
    regularizers["r1"] = Watching(weight=1, interval=2)
    regularizers["always"] = Watching(weight=1)
    backward = module.manual_backward

    def watched(loss: Tensor) -> None:
        # autocast would lower the gradients of what was computed without it
        kinds.add((torch.float32, torch.is_autocast_enabled("cpu")))
        backward(loss)

    module.manual_backward = watched  # type: ignore[method-assign]
    fit(module, precision=precision)
    assert kinds == {(torch.float32, False)}


def test_the_moving_average_stays_in_evaluation_mode(make: Make) -> None:
    module = fit(make("dcgan"))
    assert module.generator.training and not module.generator_ema.training
    assert not any(p.requires_grad for p in module.generator_ema.parameters())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("micro_batch_size=3",), "batch_size=4 is not a multiple of micro_batch_size=3"),
        (("d_steps=0",), "d_steps=0"),
        (("micro_batch_size=1",), "needs at least 2 samples"),
        (("regularizer=[path_length]",), "path_length needs a generator with styles"),
        (("+model.schedules.generator.rate=1",), "schedules.generator.rate is unknown"),
    ],
)
def test_invalid_settings_are_rejected_in_the_constructor(
    make: Make, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make("dcgan", *overrides)
