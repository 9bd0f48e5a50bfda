"""The projected discriminator against the authors', and in place of every model's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch.testing import assert_close

from gan_lab.commands.launch import launch
from gan_lab.config import build
from gan_lab.errors import InputError
from gan_lab.metrics.features import IMAGENET_MEAN, IMAGENET_STD
from gan_lab.metrics.features.dinov2 import VisionTransformer
from gan_lab.models.projected import Discriminator, EfficientNet
from gan_lab.training.building import describe_samples
from gan_lab.weights import from_published
from tests.helpers import small
from tests.helpers.dinov2 import dinov2_state
from tests.helpers.published import fixture, relative_error
from tests.helpers.samples import images_of
from tests.models.conftest import SMALL, fit

Compose = Callable[..., DictConfig]
RANDOM = ("discriminator=projected", "discriminator.weights=random", "discriminator.width=8")
MODELS = {
    "dcgan": SMALL["dcgan"],
    "fastgan": small.FASTGAN[:2],
    "gat": small.GAT[:5],
    "stylegan2": small.STYLEGANS["stylegan2"][:5],
}


def published() -> tuple[Any, list[torch.Tensor], dict[str, torch.Tensor]]:
    config, state, arrays = fixture("projected_d")
    given = {k: torch.from_numpy(v) for k, v in arrays.items() if k[:3] in ("in/", "out")}
    network = from_published(config, state)["D"]
    return network, [given[f"in/feature{i}"] for i in range(4)], given


def test_outputs_are_the_published_ones() -> None:
    network, maps, given = published()
    with torch.no_grad():
        mixed = network.mix(maps)
        assert relative_error(mixed[0], given["out/mixed0"]) < 1e-4
        assert relative_error(mixed[3], given["out/mixed3"]) < 1e-4
        assert relative_error(network.from_features(maps), given["out/logits"]) < 1e-4


def test_the_frozen_network_is_timms(tmp_path: Path) -> None:
    theirs = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    path = tmp_path / "lite0.pth"
    torch.save(theirs.state_dict(), path)
    ours = EfficientNet()
    ours.load(path)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs.forward_intermediates(images, intermediates_only=True)[1:]
        for made, wanted in zip(ours(images), expected, strict=True):
            assert_close(made, wanted)
    torch.save({"spam": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="EfficientNet-lite0"):
        ours.load(path)


def test_the_frozen_network_moves_with_the_rest_and_is_no_part_of_the_state() -> None:
    network = Discriminator(channels=3, width=8, weights="random")
    assert not any("features" in name or "frozen" in name for name in network.state_dict())
    assert not any(p.requires_grad for p in network.features.parameters())
    assert not any(p.requires_grad for p in network.mixing.parameters())
    network.double().train()
    assert next(network.features.parameters()).dtype == torch.float64
    assert not network.features.training


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("size", [32, [24, 48]], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size(size: Any, channels: int, classes: int) -> None:
    sides = [size, size] if isinstance(size, int) else size
    network = Discriminator(channels=channels, num_classes=classes, width=8, weights="random")
    labels = torch.tensor([0, 2]) if classes else None
    images = torch.randn(2, channels, *sides, requires_grad=True)
    logits = network(images, labels)
    assert logits.shape[0] == 2 and logits.shape[1] >= 64
    logits.sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    if labels is not None:
        assert not torch.equal(network(images, labels), network(images, labels.flip(0)))


@pytest.mark.parametrize("backbone", ["efficientnet-lite0", "dinov2-vit-s-14"])
@pytest.mark.parametrize("size", [[32, 48], [40, 24], [28, 100]], ids=str)
def test_rectangles_of_any_shape_are_seen(backbone: str, size: list[int]) -> None:
    """Maps double from coarse to fine, so none may be cut in the middle of a cell."""
    network = Discriminator(channels=3, backbone=backbone, width=8, weights="random").eval()
    images = torch.randn(1, 3, *size, requires_grad=True)
    logits = network(images)
    assert logits.shape[1] > 64 and logits.isfinite().all()
    logits.sum().backward()
    assert images.grad is not None and (images.grad != 0).double().mean() > 0.9


def test_dinov2_is_seen_at_four_depths_and_sizes(tmp_path: Path) -> None:
    state = dinov2_state(depth=8)
    path = tmp_path / "vits.pth"
    torch.save(state, path)
    given = {"channels": 3, "backbone": "dinov2-vit-s-14", "width": 8, "weights": str(path)}
    network = Discriminator(**given)
    assert not any("features" in name or "frozen" in name for name in network.state_dict())
    network.prepare()
    assert not any(p.requires_grad for p in network.features.parameters())
    assert network.features_of == "LVD-142M"
    images = torch.rand(1, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        maps = network.features(images)
        assert [tuple(x.shape[2:]) for x in maps] == [(64, 64), (32, 32), (16, 16), (8, 8)]
        mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        for depth, found in ((6, maps[2]), (8, maps[3])):
            cut = {
                name: value
                for name, value in state.items()
                if not name.startswith("blocks.") or int(name.split(".")[1]) < depth
            }
            whole = VisionTransformer.of(cut)
            tokens = whole.norm(whole.encode(((images + 1) / 2 - mean) / std))[:, 1:]
            wanted = tokens.transpose(1, 2).unflatten(2, (16, 16))
            assert_close(found, F.avg_pool2d(wanted, 2) if depth == 8 else wanted)
    # weights arrive in the type that the rest has been moved to
    moved = Discriminator(**given).double()
    moved.prepare()
    assert moved(torch.randn(1, 3, 32, 32, dtype=torch.float64)).dtype == torch.float64
    torch.save({"spam": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"vits\.pth"):
        network.prepare()


@pytest.mark.parametrize("model", list(MODELS))
def test_it_replaces_a_models_own_discriminator(compose: Compose, model: str) -> None:
    config = compose(f"model={model}", "batch_size=2", *MODELS[model], *RANDOM)
    assert config.loss._target_.endswith("Hinge") and not config.regularizer
    describe_samples(config, images_of(16, channels=3, classes=10))
    assert "weights" in config.model.discriminator and "patch" not in config.model.discriminator
    torch.manual_seed(0)
    module = build(config.model, total_images=2)
    before = [p.clone() for p in module.discriminator.discriminators.parameters()]
    frozen = [p.clone() for p in module.discriminator.mixing.parameters()]
    fit(module)
    assert isinstance(module.discriminator, Discriminator)
    after = list(module.discriminator.discriminators.parameters())
    assert sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) > len(after) / 2
    kept = module.discriminator.mixing.parameters()
    assert all(torch.equal(a, b) for a, b in zip(frozen, kept, strict=True))


def test_without_weights_it_refuses_to_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(request: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    overrides = ["model=dcgan", "discriminator=projected", "metrics=none", f"runs_dir={tmp_path}"]
    assert launch("train", [*overrides, "name=run"]) == 2
    message = capsys.readouterr().err
    assert "prefetch features=efficientnet" in message and "discriminator.weights=PATH" in message
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").glob("checkpoints/*"))
    assert launch("train", [*overrides, "name=run", "discriminator.weights=/none.pth"]) == 2
    assert "/none.pth" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"channels": 4}, "channels"),
        ({"channels": 3, "num_discriminators": 5}, "=5"),
        ({"channels": 3, "backbone": "spam"}, "backbone=spam"),
    ],
)
def test_what_does_not_fit(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Discriminator(**given)


def test_a_model_that_shows_codes_is_rejected() -> None:
    network = Discriminator(channels=3, width=8, weights="random")
    with pytest.raises(InputError, match="images only"):
        network((torch.randn(2, 3, 16, 16), torch.randn(2, 5)))
