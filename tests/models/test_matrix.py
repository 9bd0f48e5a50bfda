"""Every loss with every penalty, augmentation and model: two steps change both players."""

import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from gan_lab.config import build, conf_dir, flatten
from gan_lab.data.images import ImageKind
from gan_lab.data.sample import SampleSpec
from gan_lab.errors import InputError
from gan_lab.layers.networks import samples_made
from gan_lab.training.building import describe_samples, drop_unchosen
from gan_lab.training.callbacks.checkpointing import PostHocAverages
from gan_lab.training.ema import combined
from gan_lab.training.module import AdversarialModule
from tests.helpers import growing, resnets, small
from tests.helpers.samples import images_of
from tests.models import conftest
from tests.models.conftest import Make, fit

SMALL = {
    **conftest.SMALL,
    **resnets.SMALL,
    **growing.TINY,
    **small.STYLEGANS,
    "bigan": small.BIGAN[2:],
    "fastgan": small.FASTGAN,
    "gat": small.GAT,
}
LOSSES = ("minimax", "nonsaturating", "least_squares", "hinge", "wasserstein", "relativistic")
REGULARIZERS = (
    "none", "r1", "r2", "gradient_penalty", "dragan", "weight_clipping", "orthogonal", "drift", "lecam",
    "consistency", "latent_consistency", "latent_diversity", "top_k", "path_length",
    "approximate_r1", "approximate_r2",
)  # fmt: skip
AUGMENTATIONS = ("none", "ada", "diffaugment", "blur")
STYLES = ("stylegan", "stylegan2", "stylegan3")

STEPS = ("d_steps=1", "batch_size=4")
# that an augmentation augments from the first step
P = {"ada": ("augment.ada.p=0.5",)}

Case = tuple[str, str, str, str]


def possible(model: str, regularizer: str) -> bool:
    """Whether the pair is valid; that others are rejected is tested below."""
    if regularizer == "path_length":
        return model in STYLES
    if regularizer == "orthogonal":
        return model not in ("progan", *STYLES)  # whose layers scale their weights
    return True


def pairwise() -> list[Case]:
    """Cases in which every two of model, loss, penalty and augmentation meet, as far as they can."""
    cases = []
    for (m, model), (r, regularizer) in itertools.product(
        enumerate(SMALL), enumerate(REGULARIZERS)
    ):
        if possible(model, regularizer):
            loss = LOSSES[(m + r) % len(LOSSES)]
            augment = AUGMENTATIONS[(m + r // 2) % len(AUGMENTATIONS)]
            cases.append((model, loss, regularizer, augment))
    return cases


def everything() -> list[Case]:
    return [
        case
        for case in itertools.product(SMALL, LOSSES, REGULARIZERS, AUGMENTATIONS)
        if possible(case[0], case[2])
    ]


def weights(network: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in network.parameters()]


def composed(compose: Callable[..., DictConfig], case: Case) -> DictConfig:
    """Compose a case as the command line would."""
    model, loss, regularizer, augment = case
    return compose(
        f"model={model}", *SMALL[model], f"loss={loss}", f"regularizer=[{regularizer}]", f"augment={augment}",
        *STEPS, *P.get(augment, ()),
    )  # fmt: skip


def put_together(compose: Callable[..., DictConfig], case: Case) -> DictConfig:
    """Compose a model and the parts each once for all cases, which takes Hydra a third of the time."""
    model, loss, regularizer, augment = case
    config = compose(f"model={model}", *SMALL[model], *STEPS)
    parts = {
        "loss": part(compose, f"loss={loss}"),
        "regularizer": part(compose, f"regularizer=[{regularizer}]"),
        "augment": part(compose, f"augment={augment}", *P.get(augment, ())),
    }
    OmegaConf.set_struct(config, False)
    for name, found in parts.items():
        config[name] = found[name]  # a copy
        config.model.schedules.merge_with(found.model.schedules)
    return config


@cache
def part(compose: Callable[..., DictConfig], *overrides: str) -> DictConfig:
    """Compose a part, which is only read."""
    return compose(*overrides)


def take_two_steps(config: DictConfig, regularizer: str) -> None:
    # unconditional for half of them, so that both ways are met with every loss and every model
    classes = 10 if REGULARIZERS.index(regularizer) % 2 else 0
    size = 16 if ".stylegan3." in config.model._target_ else 8
    describe_samples(config, images_of([size, size], channels=3, classes=classes))  # fmt: skip
    drop_unchosen(config)
    torch.manual_seed(0)
    module = build(config.model, total_images=8)
    before = weights(module.generator), weights(module.discriminator)
    fit(module)
    after = weights(module.generator), weights(module.discriminator)
    for old, new in zip(before, after, strict=True):
        assert any(not torch.equal(a, b) for a, b in zip(old, new, strict=True))
        assert all(torch.isfinite(p).all() for p in new)
    assert module.images_seen == module.total_images
    assert [player.steps_taken for player in module.players.values()] == [2, 2]


def test_the_short_list_covers_every_pair() -> None:
    met = {
        (a, b): {(case[a], case[b]) for case in pairwise()}
        for a, b in itertools.combinations(range(4), 2)
    }
    all_names = (tuple(SMALL), LOSSES, REGULARIZERS, AUGMENTATIONS)
    for (a, b), pairs in met.items():
        wanted = set(itertools.product(all_names[a], all_names[b]))
        if (a, b) == (0, 2):
            wanted = {pair for pair in wanted if possible(*pair)}
        if a:
            # of path length there are few cases only, one for each model that it fits
            wanted = {pair for pair in wanted if "path_length" not in pair}
        assert pairs >= wanted, (a, b, wanted - pairs)


@pytest.mark.parametrize("case", pairwise(), ids="-".join)
def test_two_steps(compose: Callable[..., DictConfig], case: Case) -> None:
    take_two_steps(put_together(compose, case), case[2])


def test_parts_put_together_are_what_is_composed(compose: Callable[..., DictConfig]) -> None:
    """But for values that a model's YAML sets of parts; the slow tests below compose every case as a whole."""
    for case in pairwise()[::40]:
        ours, theirs = (
            flatten(OmegaConf.to_container(made(compose, case)))
            for made in (put_together, composed)
        )
        brought = {key for key in ours.keys() | theirs.keys() if key.startswith("regularizer.")}
        assert {k: v for k, v in ours.items() if k not in brought} == {
            k: v for k, v in theirs.items() if k not in brought
        }


@pytest.mark.slow
@pytest.mark.parametrize("model", list(SMALL))
@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_two_steps_of_everything(
    compose: Callable[..., DictConfig], model: str, regularizer: str
) -> None:
    for case in everything():
        if (case[0], case[2]) == (model, regularizer):
            take_two_steps(composed(compose, case), regularizer)


@pytest.mark.parametrize(
    ("model", "regularizer"),
    [pair for pair in itertools.product(SMALL, REGULARIZERS) if not possible(*pair)],
)
def test_unsupported_combinations_are_rejected_before_the_first_step(
    compose: Callable[..., DictConfig], model: str, regularizer: str
) -> None:
    config = put_together(compose, (model, "nonsaturating", regularizer, "none"))
    describe_samples(config, images_of([16, 16], channels=3, classes=0))  # fmt: skip
    with pytest.raises(InputError, match=rf"(?i){regularizer}"):
        build(config.model, total_images=8)


MODELS = sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml"))
# what those make that make no images: samples of a shape, and the overrides that make them small
OTHERS: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "wavegan": ((1, 16_384), ("model.generator.width=2", "model.discriminator.width=2")),
    "wgan_gp_text": ((6, 8), ("model.generator.width=8", "model.discriminator.width=8")),
}


def small_module(
    compose: Callable[..., DictConfig],
    model: str,
    size: list[int],
    *overrides: str,
    attributes: int = 0,
) -> AdversarialModule:
    """Build a small model of any kind of sample, with labels of so many attributes."""
    shape, own = OTHERS.get(model, ((3, *size), SMALL.get(model, ())))
    config = compose(f"model={model}", *own, *overrides, "d_steps=1", "batch_size=4")
    names = tuple(f"a{i}" for i in range(attributes))
    describe_samples(config, SampleSpec(kind=ImageKind(), shape=shape, attributes=names))
    drop_unchosen(config)
    torch.manual_seed(0)
    return build(config.model, total_images=16)


def take_attributes(compose: Callable[..., DictConfig], model: str, *overrides: str) -> None:
    side = 16 if model == "stylegan3" else 8
    module = small_module(compose, model, [side, side], *overrides, attributes=2)
    fit(module, attributes=2)
    assert all(value.isfinite().all() for value in module.state_dict().values())
    generator = module.generator.eval()
    z = torch.randn(1, generator.z_dim).expand(3, -1)
    vectors = torch.tensor([[0.0, 0.0], [1.0, -2.0], [1.0, 0.5]])  # none of them a mixture
    samples = samples_made(generator(z, vectors))
    assert not torch.equal(samples[0], samples[1]) and not torch.equal(samples[1], samples[2])


@pytest.mark.parametrize("model", MODELS)
def test_every_architecture_takes_vectors(compose: Callable[..., DictConfig], model: str) -> None:
    take_attributes(compose, model)


@pytest.mark.parametrize(
    "kind", sorted(path.stem for path in (conf_dir() / "conditioning").glob("*.yaml"))
)
def test_every_conditioning_takes_vectors(compose: Callable[..., DictConfig], kind: str) -> None:
    take_attributes(compose, "sngan", f"conditioning={kind}")


@pytest.mark.parametrize("model", MODELS)
def test_every_generator_supports_post_hoc_ema(
    compose: Callable[..., DictConfig], model: str, tmp_path: Path
) -> None:
    """A post-hoc average has every weight of the generator, and equals the tracked average."""
    side = 16 if model == "stylegan3" else 8
    module = small_module(compose, model, [side, side])
    callback = PostHocAverages(run_dir=tmp_path, every_kimg=0.008)
    fit(module, callbacks=[callback])
    state = {"callbacks": {"PostHocAverages": callback.state_dict()}}
    generator = module.generator_ema
    for length, kept in callback.state_dict()["averages"].items():
        made = combined(tmp_path, state, float(length))
        generator.load_state_dict(made)
        for name, value in kept.items():
            torch.testing.assert_close(made[name], value, rtol=1e-3, atol=1e-4)
    generator.load_state_dict(combined(tmp_path, state, 0.08))
    samples = samples_made(generator.eval()(torch.randn(2, generator.z_dim)))
    assert samples.isfinite().all()


@pytest.mark.parametrize("model", [model for model in MODELS if model not in OTHERS])
@pytest.mark.parametrize(
    "size", [[16, 32], pytest.param([48, 32], marks=pytest.mark.slow)], ids=str
)
def test_rectangles(compose: Callable[..., DictConfig], model: str, size: list[int]) -> None:
    """Every architecture but StyleGAN3, whose input is the same in all directions, makes and discriminates them."""
    if model == "stylegan3":
        with pytest.raises(InputError, match="StyleGAN3 makes square"):
            small_module(compose, model, size)
        return
    module = small_module(compose, model, size)
    assert samples_made(module.generator(torch.randn(2, module.generator.z_dim))).shape[
        2:
    ] == torch.Size(size)
    fit(module)
    assert all(value.isfinite().all() for value in module.state_dict().values())


def test_all_regularizers_at_once(make: Make) -> None:
    possible_here = [r for r in REGULARIZERS if r not in ("none", "path_length")]
    module = make("wgan_gp", f"regularizer=[{','.join(possible_here)}]", "d_steps=1")
    fit(module)
    logged = {name for name in module.stats.take() if name.startswith("reg/")}
    without_penalty = ("weight_clipping", "top_k")
    assert logged == {f"reg/{name}" for name in possible_here if name not in without_penalty}


@pytest.mark.parametrize("model", list(conftest.SMALL))
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [4, 7, 8, 12, [8, 16], [24, 16]])
def test_sizes_and_channels(make: Make, model: str, channels: int, size: Any) -> None:
    module = make(model, channels=channels, size=size, classes=3)
    height, width = (size, size) if isinstance(size, int) else size
    labels = torch.tensor([0, 2, 1])
    images = module.generator(torch.randn(3, module.generator.z_dim), labels)
    assert images.shape == (3, channels, height, width)
    assert images.abs().max() <= 1
    assert module.discriminator(images, labels).shape == (3,)


@pytest.mark.parametrize("model", ["dcgan", "lsgan", "wgan_gp"])
@pytest.mark.parametrize(
    ("size", "remedy"), [(50, "48 or 56"), (3, "=4"), ([8, 9], "=8"), (36, "32 or 40")]
)
def test_unsupported_sizes(make: Make, model: str, size: Any, remedy: str) -> None:
    with pytest.raises(ValueError, match=r"set data.image_size=.*") as caught:
        make(model, size=size)
    assert remedy in str(caught.value.__cause__ or caught.value)
