"""ProGAN and StyleGAN in training: growth, resuming during a fade-in, losses, samples during growth."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch.testing import assert_close

import gan_lab
from gan_lab.commands.train import run
from gan_lab.data.sample import Batch
from gan_lab.distributed.ranks import ManualDDPStrategy
from gan_lab.layers.resolutions import resize_to_stage, upsample_nearest
from gan_lab.models.progan import ProGAN
from gan_lab.models.stylegan import StyleGAN
from gan_lab.training.building import describe_samples
from tests.helpers.growing import TINY, set_stage, tiny
from tests.helpers.samples import images_of
from tests.models.conftest import fit

GAMES = [
    (),
    ("loss=wasserstein", "regularizer=[gradient_penalty,drift]"),
    ("loss=least_squares", "regularizer=[]"),
    ("loss=hinge", "regularizer=[r1_lazy]"),
    ("loss=minimax", "regularizer=[dragan]"),
    ("loss=relativistic", "regularizer=[r1,r2]", "augment=diffaugment"),
    ("loss=nonsaturating", "regularizer=[weight_clipping]", "conditioning=none"),
]

Compose = Callable[..., DictConfig]
pytestmark = pytest.mark.parametrize("model", list(TINY))


@pytest.mark.parametrize("game", GAMES, ids=" ".join)
def test_any_loss_trains_both_players_in_all_stages(
    compose: Compose, model: str, game: tuple[str, ...]
) -> None:
    """Phases of 1 step and fades of 2: from 4x4, all of 16x16 is there after 6."""
    phases = ("fade_kimg=0.008", "stable_kimg=0.004", "start_size=4")
    classes = 10 if GAMES.index(game) % 2 else 0  # both are met with either model
    module = tiny(
        compose, model, *(f"model.generator.{p}" for p in phases), *game, classes=classes, steps=7
    )
    players = (module.generator, module.discriminator)
    before = [[p.detach().clone() for p in player.parameters()] for player in players]
    fit(module)
    assert module.generator.stage.value == module.discriminator.stage.value == 2
    for player, old in zip(players, before, strict=True):
        new = list(player.parameters())
        assert all(p.isfinite().all() for p in new)
        moved = [not torch.equal(a, b) for a, b in zip(old, new, strict=True)]
        assert sum(moved) / len(moved) > 0.8


def test_auxiliary_classifiers_and_path_lengths(compose: Compose, model: str) -> None:
    penalty = "regularizer=[r1,path_length]" if model == "stylegan" else "regularizer=[r1]"
    module = tiny(compose, model, "conditioning=ac", penalty, classes=10, steps=5)
    fit(module)
    logged = module.stats.take()
    assert {"loss/d_class_real", "loss/d_class_fake", "loss/g_class"} <= set(logged)
    assert ("reg/path_length" in logged) == (model == "stylegan")
    assert all(p.isfinite().all() for p in module.parameters())


def test_unused_layers_do_not_change(compose: Compose, model: str) -> None:
    """Nor does their moving average, and the optimizers know nothing of them."""
    module = tiny(compose, model, "model.generator.start_size=4", steps=2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fit(module)
    first = "generator.synthesis.blocks.0" if model == "stylegan" else "generator.conv"
    changed = {n for n, v in module.state_dict().items() if not torch.equal(v, before[n])}
    assert {n for n in changed if n.startswith(first)}
    above = ("blocks.1", "torgb.1", "fromrgb.1", "blocks.2", "torgb.2", "fromrgb.2")
    if model == "progan":
        above += ("blocks.0",)
    unreached = {n for n in before if n.startswith(("gen", "disc")) and any(a in n for a in above)}
    if model == "stylegan":
        unreached |= {n for n in before if n.startswith("discriminator.blocks.0")}
    assert len(unreached) > 20 and not changed & unreached
    for optimizer in module.optimizers():
        known = {id(p) for p in optimizer.optimizer.state}
        named = dict(module.named_parameters())
        assert not known & {id(named[n]) for n in unreached if n in named}


def test_the_clock_sets_the_stage_of_all_networks(compose: Compose, model: str) -> None:
    module = tiny(compose, model, "model.generator.start_size=4", steps=13)
    stages: list[list[float]] = []
    resets: list[int] = []
    shapes: list[int] = []
    prepare, discriminate = module.prepare_step, module.discriminate

    def noted() -> None:
        known = sum(len(o.optimizer.state) for o in module.optimizers())
        prepare()
        if known and not any(o.optimizer.state for o in module.optimizers()):
            resets.append(module.images_seen // 4)
        networks = (module.generator, module.generator_ema, module.discriminator)
        stages.append([n.stage.value for n in networks])

    def seen(images: torch.Tensor, *rest: Any) -> Any:
        shapes.append(images.shape[2])
        return discriminate(images, *rest)

    module.prepare_step = noted  # type: ignore[method-assign]
    module.discriminate = seen  # type: ignore[method-assign]
    fit(module)
    # two steps of 4 images are stable, four fade
    expected = [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1.25, 1.5, 1.75, 2]
    assert stages == [[stage] * 3 for stage in expected]
    # moments are forgotten where a fade begins and where it ends
    assert resets == [3, 6, 9, 12]
    assert shapes == sorted(shapes) and set(shapes) == {4, 8, 16}


def test_d_sees_real_images_as_generated_ones_are(compose: Compose, model: str) -> None:
    module = tiny(compose, model)
    images, z = torch.randn(4, 1, 16, 16), torch.randn(4, 8)
    for stage in (1.0, 1.4, 2.0):
        set_stage(module, stage)
        real, fake = module.real(Batch(images)), module.fake(z, Batch(images))
        assert real.shape == fake.shape
        assert torch.equal(real, resize_to_stage(images, module.generator.stage, (4, 4)))
    assert torch.equal(module.real(Batch(images)), images)


def test_ranks_share_only_tensors_on_their_devices(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """NCCL rejects tensors on the CPU, where the stage is even if the networks are on GPUs."""
    module = tiny(compose, model)
    shared: list[torch.Tensor] = []
    monkeypatch.setattr("gan_lab.distributed.ranks.several_ranks", lambda: True)
    monkeypatch.setattr(
        "gan_lab.distributed.ranks.broadcast", lambda tensor, src: shared.append(tensor)
    )
    strategy = ManualDDPStrategy()
    strategy._lightning_module = module
    strategy.configure_ddp()
    placed_by_the_module = {t.data_ptr() for t in (*module.parameters(), *module.buffers())}
    assert {tensor.data_ptr() for tensor in shared} == placed_by_the_module
    assert all(tensor.is_contiguous() for tensor in shared)


def test_no_growth(compose: Compose, model: str) -> None:
    module = tiny(compose, model, "model.generator.growing=false")
    images = torch.randn(4, 1, 16, 16)
    assert torch.equal(module.real(Batch(images)), images)
    assert module.fake(torch.randn(4, 8), Batch(images)).shape == images.shape
    fit(module)
    assert module.generator.stage.value == 2
    assert all(p.isfinite().all() for p in module.parameters())


def test_a_run_that_ends_before_full_resolution_warns(
    compose: Compose, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    end = {"progan": 12, "stylegan": 6}[model]  # steps until all is there
    for steps, said in ((end, False), (end - 1, True)):
        module = tiny(compose, model, steps=steps)
        module.configure_optimizers()
        module.on_train_start()
        out = " ".join(capsys.readouterr().out.split())
        assert ("growing=false" in out) == said
    assert "model.generator.fade_kimg=0.016" in out


def test_mixed_precision(compose: Compose, model: str) -> None:
    module = fit(tiny(compose, model, steps=5), precision="bf16-mixed")
    assert module.generator.stage.fade < 1
    assert all(p.isfinite().all() and p.dtype == torch.float32 for p in module.parameters())


def test_micro_batches(compose: Compose, model: str) -> None:
    module = fit(tiny(compose, model, "micro_batch_size=2", "d_steps=2", steps=4))
    assert all(p.isfinite().all() for p in module.parameters())


def trained(compose: Compose, folder: Path, model: str, name: str, total_kimg: float) -> Path:
    config = compose(
        f"model={model}",
        *TINY[model],
        f"name={name}",
        f"runs_dir={folder}",
        f"total_kimg={total_kimg}",
        "batch_size=4",
        "metrics=none",
        "trainer=cpu",
        "callbacks.samples.rows=1",
    )
    run(config)
    return folder / name


def test_a_run_resumed_during_a_fade_in_equals_an_uninterrupted_one(
    compose: Compose, tmp_path: Path, model: str
) -> None:
    """And its samples midway are the moving average's, at full size."""
    # 16 of 24 images: the second half of the first fade; the end lies behind it, so that moments are forgotten
    halted = trained(compose, tmp_path, model, "halted", 0.016)
    state = torch.load(halted / "checkpoints" / "last.ckpt", weights_only=True)
    stage = state["state_dict"][
        "generator_ema.synthesis.stage._extra_state"
        if model == "stylegan"
        else "generator_ema._stage._extra_state"
    ]
    first = {"progan": 0, "stylegan": 1}[model]
    assert stage == first + 0.25  # of the last step, which 12 images were before

    gan = gan_lab.load(halted)
    images = gan.sample(4, seed=1)
    assert images.shape == (4, 1, 16, 16)
    generator = gan.generator
    small = generator.forward_at_stage(
        gan.latents(4, seed=1, space="z").values, gan.labels(4, seed=1)
    )
    assert small.shape[2] == 8 << first
    # the passes have 16 and 4 images, and sum in another order
    assert_close(images, upsample_nearest(small, 16 // small.shape[2]), rtol=0, atol=1e-4)

    trained(compose, tmp_path, model, "halted", 0.032)
    straight = trained(compose, tmp_path, model, "straight", 0.032)
    ends = [
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        for folder in (halted, straight)
    ]
    ours, theirs = (end["state_dict"] for end in ends)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for mine, other in zip(*(end["optimizer_states"] for end in ends), strict=True):
        assert mine["state"].keys() == other["state"].keys()
        for key, moments in other["state"].items():
            assert all(torch.equal(mine["state"][key][n], m) for n, m in moments.items())


def test_the_published_settings(compose: Compose, model: str) -> None:
    """Karras et al. 2018, appendix A.1; Karras et al. 2019, appendix C."""
    config = compose(f"model={model}")
    describe_samples(config, images_of([32, 32], channels=3, classes=0))
    growth, node = config.model.generator, config.model
    assert (growth.start_size, growth.fade_kimg, growth.stable_kimg) == {
        "progan": (4, 800, 800),
        "stylegan": (8, 600, 600),
    }[model]
    for optimizer in (node.generator_optimizer, node.discriminator_optimizer):
        assert (optimizer.lr, optimizer.betas) == (1e-3, [0, 0.99])
    losses = {"progan": "Wasserstein", "stylegan": "NonSaturating"}
    assert config.loss._target_.endswith(losses[model])
    penalties = {name: (r.weight, r.interval) for name, r in config.regularizer.items()}
    assert (
        penalties
        == {
            "progan": {"gradient_penalty": (10, 1), "drift": (0.001, 1)},
            "stylegan": {"r1": (10, 1)},
        }[model]
    )
    assert (config.d_steps, node.discriminator.get("filtered", False)) == (1, model == "stylegan")
    assert issubclass(StyleGAN, ProGAN)
