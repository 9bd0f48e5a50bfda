"""WGAN-GP for text: the published sizes, and all supported losses and penalties."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from lightning import Trainer
from omegaconf import DictConfig
from torch import nn
from torch.utils.data import DataLoader

from gan_lab.config import conf_dir
from gan_lab.data.builtin import PythonDocs
from gan_lab.data.images import image_spec
from gan_lab.data.sample import Batch, SampleSpec
from gan_lab.errors import InputError
from gan_lab.models.wgan_gp_text import Discriminator, Generator
from gan_lab.training.building import build_model
from gan_lab.training.module import AdversarialModule

Compose = Callable[..., DictConfig]
LOSSES = sorted(path.stem for path in (conf_dir() / "loss").glob("*.yaml"))
REGULARIZERS = sorted(path.stem for path in (conf_dir() / "regularizer").glob("*.yaml"))
AUGMENTATIONS = sorted(path.stem for path in (conf_dir() / "augment").glob("*.yaml"))
REFUSED = {"consistency": "mirrors", "path_length": "path_length"}


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.fixture(scope="module")
def spec() -> SampleSpec:
    return PythonDocs(split="val", length=8, alphabet_size=12).spec.without_labels()


@pytest.mark.parametrize("characters", [50, 2048])
def test_published_sizes(characters: int) -> None:
    """Five blocks of two convolutions of width 5 and 512 channels, for 32 characters."""
    blocks = 5 * 2 * (512 * 512 * 5 + 512)
    with torch.device("meta"):
        shape = (characters, 32)
        assert parameters(Generator(sample_shape=shape)) == 16_384 * 129 + blocks + characters * 513
        critic = parameters(Discriminator(sample_shape=shape))
        assert critic == characters * 512 + 512 + blocks + 16_385
        labeled = Generator(sample_shape=shape, num_classes=7)
        assert parameters(labeled) == parameters(Generator(sample_shape=shape)) + 7 * 16_384


def test_published_settings(compose: Compose) -> None:
    config = compose("model=wgan_gp_text")
    assert config.d_steps == 10 and config.batch_size == 64
    assert list(config.regularizer) == ["gradient_penalty"]
    assert config.regularizer.gradient_penalty.weight == 10
    for player in ("generator", "discriminator"):
        optimizer = config.model[f"{player}_optimizer"]
        assert (optimizer.lr, list(optimizer.betas)) == (1e-4, [0.5, 0.9])
        assert config.model[player].width == 512


def test_a_line_is_made_of_probabilities_and_a_block_adds_a_part() -> None:
    torch.manual_seed(0)
    generator = Generator(sample_shape=(11, 8), num_classes=3, width=6)
    z, labels = torch.randn(5, 128), torch.arange(5) % 3
    made = generator(z, labels)
    assert made.shape == (5, 11, 8) and torch.allclose(made.sum(1), torch.ones(5, 8))
    assert not torch.allclose(made, generator(z, (labels + 1) % 3))
    critic = Discriminator(sample_shape=(11, 8), num_classes=3, width=6)
    assert critic(made, labels).shape == (5,)
    assert not torch.allclose(critic(made, labels), critic(made, (labels + 1) % 3))
    block = critic.blocks[0]
    x = torch.randn(2, 6, 8)
    inner = block.conv2(torch.relu(block.conv1(torch.relu(x))))
    assert torch.allclose(block(x) - x, 0.3 * inner, atol=1e-6)


def test_first_weights_have_the_published_variance() -> None:
    torch.manual_seed(0)
    generator = Generator(sample_shape=(40, 32), width=64)
    fan = 5 * 64
    for module in generator.modules():
        if isinstance(module, nn.Conv1d):
            fans = fan * 2 if module.kernel_size == (5,) else 64 + 40
            assert module.weight.var().item() == pytest.approx(4 / fans, rel=0.1)
        elif isinstance(module, nn.Linear):
            assert module.weight.var().item() == pytest.approx(2 / (128 + 64 * 32), rel=0.1)


def trained(compose: Compose, spec: SampleSpec, *overrides: str) -> AdversarialModule:
    config = compose(
        "model=wgan_gp_text", "model.generator.width=4", "model.discriminator.width=4",
        "d_steps=1", "batch_size=4", "total_kimg=0.008", *overrides,
    )  # fmt: skip
    torch.manual_seed(0)
    module = build_model(config, spec)
    before = [[p.detach().clone() for p in n.parameters()] for n in networks(module)]
    stored = torch.randint(0, len(spec.kind.alphabet), (8, *spec.shape), dtype=torch.uint8)  # type: ignore[attr-defined]
    labels = torch.arange(8) % spec.num_classes if spec.num_classes else None
    seen = spec.encode(stored)
    batches = [
        Batch(seen[i : i + 4], None if labels is None else labels[i : i + 4]) for i in (0, 4)
    ]
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(batches, batch_size=None))
    for old, network in zip(before, networks(module), strict=True):
        assert any(not torch.equal(a, b) for a, b in zip(old, network.parameters(), strict=True))
        assert all(p.isfinite().all() for p in network.parameters())
    return module


def networks(module: AdversarialModule) -> tuple[nn.Module, nn.Module]:
    return module.generator, module.discriminator


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_both_players(compose: Compose, spec: SampleSpec, loss: str) -> None:
    trained(compose, spec, f"loss={loss}")


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_every_penalty_trains_both_players_or_is_rejected(
    compose: Compose, spec: SampleSpec, regularizer: str
) -> None:
    if regularizer not in REFUSED:
        trained(compose, spec, f"regularizer=[{regularizer}]")
        return
    with pytest.raises(InputError, match=REFUSED[regularizer]):
        trained(compose, spec, f"regularizer=[{regularizer}]")


@pytest.mark.parametrize("augment", [name for name in AUGMENTATIONS if name != "none"])
def test_augmentations_are_rejected(compose: Compose, spec: SampleSpec, augment: str) -> None:
    with pytest.raises(InputError, match="augments images"):
        trained(compose, spec, f"augment=[{augment}]")


def test_with_classes(compose: Compose, spec: SampleSpec) -> None:
    module = trained(compose, replace(spec, num_classes=3, class_names=("a", "b", "c")))
    assert module.conditional


def test_images_are_rejected(compose: Compose) -> None:
    with pytest.raises(InputError, match="lines of text"):
        build_model(compose("model=wgan_gp_text"), image_spec(channels=1, image_size=(8, 8)))
