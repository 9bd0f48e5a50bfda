"""What must be the same on a GPU as on the CPU; each test also runs on the CPU, so that it works the first time."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from lightning import Trainer
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader

from gan_lab.bench.steps import Repeated
from gan_lab.data.sample import Batch
from gan_lab.sampling.gan import Gan
from gan_lab.seeding import random_state, set_random_state
from gan_lab.training.building import build_model
from gan_lab.training.module import AdversarialModule
from tests.helpers import small
from tests.helpers.samples import images_of

Compose = Callable[..., DictConfig]

MODELS: dict[str, tuple[str, ...]] = {
    "gat": (*small.GAT, "augment.diffaugment.policy=[translation]"),
    "stylegan2": small.STYLEGANS["stylegan2"],
    "r3gan": (
        "model.generator.widths=[8,8]",
        "model.generator.cardinalities=[2,2]",
        "model.generator.z_dim=8",
        "model.discriminator.label_dim=8",
        "regularizer=[approximate_r1,approximate_r2]",
    ),
    "biggan": ("model.generator.width=2", "model.discriminator.width=2"),
}
SIZES = {"biggan": 32}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device(request.param)


def module_of(compose: Compose, model: str) -> AdversarialModule:
    config = compose(f"model={model}", "batch_size=4", *MODELS[model])
    torch.manual_seed(0)
    return build_model(config, images_of(SIZES.get(model, 8), channels=3, classes=3))


def batch_of(module: AdversarialModule, model: str) -> Batch:
    size = SIZES.get(model, 8)
    return Batch(torch.rand(4, 3, size, size) * 2 - 1, torch.tensor([0, 1, 2, 0]))


def train(
    module: AdversarialModule, batch: Batch, device: torch.device, *, steps: int, precision: Any
) -> None:
    trainer = Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision=precision,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(Repeated(batch, steps), batch_size=None))


@pytest.mark.parametrize("model", list(MODELS))
def test_networks_compute_the_same(compose: Compose, device: torch.device, model: str) -> None:
    module = module_of(compose, model).eval()
    moved = deepcopy(module).to(device)
    batch, z = batch_of(module, model), torch.randn(4, module.generator.z_dim)

    def outputs(module: AdversarialModule, batch: Batch, z: Tensor) -> list[Tensor]:
        images = module.generator(z, batch.labels)
        real = batch.real.clone().requires_grad_()
        logits = module.discriminator(real, batch.labels)
        (gradient,) = torch.autograd.grad(logits.sum(), real)
        return [images.detach(), logits.detach(), gradient]

    # tensor cores round to ten bits
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with exact, torch.random.fork_rng():
        theirs = outputs(module, batch, z)
        ours = outputs(moved, batch.to(device), z.to(device))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("model", list(MODELS))
def test_every_precision_trains(
    compose: Compose, device: torch.device, model: str, precision: Any
) -> None:
    if precision == "16-mixed" and device.type == "cpu":
        pytest.skip("Lightning has no float16 on a CPU without a plugin of its own")
    module = module_of(compose, model)
    before = [p.clone() for p in module.generator.parameters()]
    train(module, batch_of(module, model), device, steps=2, precision=precision)
    stats = module.stats.take()
    assert all(torch.isfinite(torch.tensor(v)) for v in stats.values()), stats
    after = list(module.generator.parameters())
    assert any(not torch.equal(a.cpu(), b) for a, b in zip(after, before, strict=True))
    for player in module.players.values():
        assert player.optimizer is not None and player.optimizer.defaults["fused"]


def test_samples_follow_from_seed_and_index(compose: Compose, device: torch.device) -> None:
    module = module_of(compose, "gat").eval()
    spec = images_of(8, channels=3, classes=3)
    here = Gan(module.generator, spec=spec).sample(4, seed=3)
    there = Gan(deepcopy(module.generator).to(device), spec=spec).sample(4, seed=3)
    torch.testing.assert_close(torch.Tensor(there).cpu(), torch.Tensor(here), rtol=1e-3, atol=1e-4)


def test_draws_are_repeated(device: torch.device) -> None:
    """What penalties by finite differences stand on."""
    state = random_state(device)
    first = torch.randn(8, device=device), torch.randn(8)
    between = torch.randn(8, device=device)
    set_random_state(device, state)
    again = torch.randn(8, device=device), torch.randn(8)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(torch.randn(8, device=device), between)


@pytest.mark.parametrize("model", list(MODELS))
def test_a_step_never_waits_for_the_device(
    compose: Compose, device: torch.device, model: str
) -> None:
    module = module_of(compose, model)
    plain, taken = module.training_step, []

    def step(batch: Batch, batch_idx: int) -> None:
        taken.append(batch_idx)
        if device.type != "cuda" or batch_idx < 2:
            plain(batch, batch_idx)  # the first steps keep what later ones find
            return
        torch.cuda.set_sync_debug_mode("error")
        try:
            plain(batch, batch_idx)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    module.training_step = step  # type: ignore[method-assign]
    batch = batch_of(module, model).to(device)
    train(module, batch, device, steps=3, precision="32-true")
    assert taken == [0, 1, 2]
