"""Every recipe composes, builds at full size with its paper's parameter count, and takes a small step."""

import inspect
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch import nn

from gan_lab.config import conf_dir, flatten
from gan_lab.data.image_folder import Zip
from gan_lab.data.sample import SampleSpec
from gan_lab.data.text import OneHot, Text
from gan_lab.training.auto import Facts, decide
from gan_lab.training.building import build_callbacks, build_model
from gan_lab.training.module import AdversarialModule
from tests.helpers.samples import images_of as image_spec
from tests.helpers.sounds import sound_spec
from tests.models.conftest import fit

Compose = Callable[..., DictConfig]

FOLDER = conf_dir() / "experiment"
ALL = sorted(p.relative_to(FOLDER).with_suffix("").as_posix() for p in FOLDER.rglob("*.yaml"))
# not of a paper: they train on what comes with the package
OWN = [
    n
    for n in ALL
    if n in ("few_shot", "photos", "quickstart", "stacked_digits")
    or n.startswith(("digits/", "emoji/", "phantoms/", "python_docs/", "tones/"))
]
PUBLISHED = [name for name in ALL if name not in OWN]


def lines(characters: int, length: int = 32) -> SampleSpec:
    """Describe lines of text in an alphabet of so many characters."""
    alphabet = "".join(chr(0x100 + i) for i in range(characters))
    return SampleSpec(
        kind=Text(alphabet=alphabet, length=length),
        shape=(length,),
        representation=OneHot(characters=characters),
    )


# what a recipe's samples are, where they are not images: at full size, and small
OTHERS = {
    # latents of 256x256 pixels
    "gat_imagenet256_b": (
        image_spec(32, channels=4, classes=1000),
        image_spec(8, channels=4, classes=10),
    ),
    "gat_imagenet256_xl": (
        image_spec(32, channels=4, classes=1000),
        image_spec(8, channels=4, classes=10),
    ),
    "python_docs/wgan_gp_text": (lines(102), lines(5, 6)),
    "text_billion_word": (lines(2048), lines(5, 6)),
}


class Images(NamedTuple):
    """What networks see of a recipe's data: height and width, of sound its length; channels, classes."""

    size: tuple[int, ...]
    classes: int = 0
    channels: int = 3


IMAGES = {
    "bigan_mnist": Images((28, 28), channels=1),
    "biggan_cifar10": Images((32, 32), 10),
    "biggan_deep_imagenet256": Images((256, 256), 1000),
    "biggan_imagenet128": Images((128, 128), 1000),
    "dcgan_celeba64": Images((64, 64)),
    "lsgan_lsun112": Images((112, 112)),
    **{f"emoji/{n}": Images((64, 64)) for n in ("dcgan", "fastgan", "r3gan", "stylegan2")},
    "few_shot": Images((256, 256)),
    "photos": Images((256, 256)),
    "phantoms/stylegan2": Images((64, 64), 3, channels=1),
    "progan_celebahq1024": Images((1024, 1024)),
    "r3gan_cifar10": Images((32, 32), 10),
    "r3gan_ffhq256": Images((256, 256)),
    "r3gan_ffhq64": Images((64, 64)),
    "r3gan_imagenet64": Images((64, 64), 1000),
    "sagan_imagenet128": Images((128, 128), 1000),
    "sngan_cifar10": Images((32, 32)),
    "specgan_sc09": Images((128, 128), channels=1),
    "stacked_digits": Images((16, 16)),
    "stylegan2_ada_afhq512": Images((512, 512)),
    "stylegan2_ada_cifar10": Images((32, 32), 10),
    "stylegan2_ffhq1024": Images((1024, 1024)),
    "stylegan2_ffhq256": Images((256, 256)),
    "stylegan2_lsun_car": Images((384, 512)),
    "stylegan3_r_afhqv2_512": Images((512, 512)),
    "stylegan3_t_ffhq1024": Images((1024, 1024)),
    "stylegan_ffhq1024": Images((1024, 1024)),
    "tones/stylegan2": Images((256, 32), 12, channels=1),
    "tones/wavegan": Images((4096,), 12, channels=1),
    "wavegan_sc09": Images((16384,), channels=1),
    "wgan_gp_cifar10": Images((32, 32)),
}

# trainable parameters of the published networks, where they are known to the digit
COUNTS: dict[str, tuple[int | None, int]] = {
    "biggan_imagenet128": (70_433_988, 87_982_370),
    "gat_imagenet256_b": (116_545_088, 104_480_256),
    "gat_imagenet256_xl": (601_936_640, 467_383_872),
    "progan_celebahq1024": (None, 23_087_249),  # the discriminator is StyleGAN's
    "r3gan_cifar10": (20_781_952, 21_280_512),
    "r3gan_ffhq256": (23_057_952, 23_009_568),
    "r3gan_ffhq64": (22_429_824, 22_381_440),
    "r3gan_imagenet64": (103_570_432, 107_205_120),
    "stylegan2_ada_afhq512": (30_276_583, 28_982_849),
    "stylegan2_ada_cifar10": (20_215_315, 23_089_664),
    "stylegan2_ffhq1024": (30_370_060, 29_012_513),
    "stylegan2_ffhq256": (30_034_338, 28_864_129),
    "stylegan3_t_ffhq1024": (22_313_167, 29_012_513),
    "stylegan_ffhq1024": (26_219_627, 23_087_249),
    "text_billion_word": (16_276_480, 14_177_793),
}

SMALL_STYLES = {"generator.z_dim": 8, "generator.w_dim": 8, "generator.mapping_layers": 2}
SMALL_PYRAMID = {
    "generator.channel_base": 64,
    "generator.channel_max": 8,
    "discriminator.channel_base": 64,
    "discriminator.channel_max": 8,
}
# per model: the same networks, narrow
SMALL: dict[str, dict[str, Any]] = {
    "bigan": {
        "generator.z_dim": 8,
        "generator.width": 4,
        "generator.encoder_width": 4,
        "discriminator.width": 4,
        "discriminator.code_width": 8,
    },
    "biggan": {"generator.width": 4, "generator.attention": [8], "generator.z_dim": 8},
    "biggan_deep": {
        "generator.width": 8,
        "generator.attention": [8],
        "generator.z_dim": 8,
        "generator.shared_dim": 8,
    },
    "dcgan": {"generator.width": 4, "discriminator.width": 4},
    "fastgan": {"generator.z_dim": 8, "generator.width": 4, "discriminator.width": 4},
    "gan": {"generator.width": 8, "discriminator.width": 4},
    "gat": {
        "generator.z_dim": 8,
        "generator.depth": 4,
        "generator.width": 16,
        "generator.heads": 2,
        "generator.patch": 4,
        "discriminator.label_dim": 8,
    },
    "lsgan": {"generator.width": 4, "generator.z_dim": 8, "discriminator.width": 4},
    "progan": {**SMALL_PYRAMID, "generator.z_dim": 8},
    "r3gan": {
        "generator.widths": 8,
        "generator.cardinalities": 2,
        "generator.blocks": 1,
        "discriminator.label_dim": 8,
    },
    "sagan": {"generator.width": 4, "generator.attention": [8]},
    "sngan": {"generator.width": 4, "discriminator.width": 4},
    "stylegan": {**SMALL_STYLES, **SMALL_PYRAMID},
    "stylegan2": {**SMALL_STYLES, **SMALL_PYRAMID, "discriminator.label_layers": 2},
    "stylegan3": {
        **SMALL_STYLES,
        **SMALL_PYRAMID,
        "generator.num_layers": 4,
        "generator.margin": 2,
        "discriminator.label_layers": 2,
    },
    "wavegan": {"generator.width": 4, "discriminator.width": 4},
    "wgan_gp": {"generator.width": 4, "discriminator.width": 4},
    "wgan_gp_text": {"generator.width": 4, "discriminator.width": 4},
}


def small_images(name: str) -> Images:
    """The shape and whether there are classes, at a size that takes no time."""
    full = images_of(name)
    if len(full.size) == 1:
        return full._replace(size=(256,))
    if full.size[0] == 112:
        return full._replace(size=(28, 28))
    if full.size[0] != full.size[1]:
        return full._replace(size=(12, 16))
    return full._replace(size=(16, 16), classes=min(full.classes, 10))


def images_of(name: str) -> Images:
    digits = Images((16, 16), classes=10, channels=1)
    return IMAGES.get(name, digits) if name in OWN else IMAGES[name]


def header(name: str) -> dict[str, str]:
    """The fields of a recipe's comment, `# Field: text`, with `#   ` before what goes on."""
    fields: dict[str, str] = {}
    last = ""
    for line in (FOLDER / f"{name}.yaml").read_text().splitlines()[1:]:
        if not line.startswith("#"):
            break
        if match := re.match(r"# ([A-Z]\w+): (.*)", line):
            last, fields[match[1]] = match[1], match[2]
        elif line.startswith("#   ") and last:
            fields[last] += " " + line[4:].strip()
        else:
            last = ""
    return fields


def spec_of(images: Images) -> SampleSpec:
    if len(images.size) == 1:
        return sound_spec(images.size[0], classes=images.classes)
    height, width = images.size
    return image_spec((height, width), channels=images.channels, classes=images.classes)


def full_spec(name: str) -> SampleSpec:
    return OTHERS[name][0] if name in OTHERS else spec_of(images_of(name))


def small_spec(name: str) -> SampleSpec:
    """As small as takes no time, with classes where there are some."""
    return OTHERS[name][1] if name in OTHERS else spec_of(small_images(name))


def on_meta(config: DictConfig, spec: SampleSpec) -> AdversarialModule:
    """Build the networks without memory for their weights."""
    with torch.device("meta"):
        return build_model(config, spec)


def decided(compose: Compose, name: str, *overrides: str) -> DictConfig:
    """Compose a recipe as it is once its images are known."""
    config = compose(f"experiment={name}", *overrides)
    facts = Facts(num_images=2_000, shape=full_spec(name).shape, device="cpu")
    decide(config, facts)
    return config


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", ALL)
def test_it_builds_at_full_size(compose: Compose, name: str) -> None:
    spec = full_spec(name)
    module = on_meta(decided(compose, name), spec)
    assert {p.device.type for p in module.parameters()} == {"meta"}
    assert module.conditional == (spec.num_classes > 0)
    if name in COUNTS:
        generator, discriminator = COUNTS[name]
        assert generator in (None, size(module.generator))
        assert discriminator == size(module.discriminator)


def test_the_count_of_stylegan3_r(compose: Compose) -> None:
    # known at 1024 pixels only
    config = compose("experiment=stylegan3_r_afhqv2_512", "data.image_size=1024")
    module = on_meta(config, spec_of(Images((1024, 1024))))
    assert size(module.generator) == 15_093_151


def test_the_count_of_progan(compose: Compose) -> None:
    # "23.1M in the traditional generator": Karras et al. 2019, section 2
    config = compose("experiment=progan_celebahq1024")
    module = on_meta(config, full_spec("progan_celebahq1024"))
    assert round(size(module.generator) / 1e6, 1) == 23.1


def test_the_rates_of_stylegan2_on_cifar10(compose: Compose) -> None:
    """As the authors' code has them: G's too is corrected for a path length step that never comes."""
    config = compose("experiment=stylegan2_ada_cifar10")
    optimizers = on_meta(config, spec_of(Images((32, 32), 10))).configure_optimizers()
    for optimizer, interval in zip(optimizers, (4, 16), strict=True):
        share = interval / (interval + 1)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0025 * share)
        assert optimizer.param_groups[0]["betas"] == pytest.approx((0, 0.99**share), abs=1e-5)


@pytest.mark.parametrize(
    ("name", "of_w", "of_magnitudes"),
    [
        ("stylegan2_ffhq1024", 0.995**2.25, None),
        ("stylegan3_t_ffhq1024", 0.998, 0.5 ** (32 / 20_000)),
        ("stylegan3_r_afhqv2_512", 0.998, 0.5 ** (32 / 20_000)),
    ],
)
def test_what_running_means_keep_in_a_step(
    compose: Compose, name: str, of_w: float, of_magnitudes: float | None
) -> None:
    """StyleGAN2's in the authors' D step, G step and, every fourth time, path length; StyleGAN3's in its D step."""
    config, spec = compose(f"experiment={name}"), spec_of(small_images(name))
    wanted = config.model.generator
    assert config.batch_size == 32
    config.update(batch_size=4, micro_batch_size=None, total_kimg=4 * 4 / 1000)
    for key, value in SMALL[str(config.model._target_).split(".")[2]].items():
        OmegaConf.update(config.model, key, value)
    module = build_model(config, spec)
    passes: dict[str, int] = {"w": 0, "magnitude": 0}

    def count(key: str) -> Callable[..., None]:
        def hook(network: nn.Module, inputs: Any) -> None:
            # the test's images are made by a pass, too
            passes[key] += module._trainer is not None and network.training

        return hook

    generator: Any = module.generator
    generator.mapping.register_forward_pre_hook(count("w"))
    if of_magnitudes is not None:
        generator.synthesis.layers[0].register_forward_pre_hook(count("magnitude"))
    fit(module)
    assert wanted.w_avg_beta ** (passes["w"] / 4) == pytest.approx(of_w, abs=1e-5)
    if of_magnitudes is not None:
        kept = wanted.magnitude_decay ** (passes["magnitude"] / 4)
        assert kept == pytest.approx(of_magnitudes, abs=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_it_takes_a_small_step(compose: Compose, name: str) -> None:
    config, spec = decided(compose, name), small_spec(name)
    d_steps = config.d_steps
    config.update(batch_size=4, micro_batch_size=2, total_kimg=4 * d_steps / 1000)
    for key, value in SMALL[str(config.model._target_).split(".")[2]].items():
        OmegaConf.update(config.model, key, value)
    torch.manual_seed(0)
    module = build_model(config, spec)
    before = [p.detach().clone() for p in module.parameters()]
    fit(module)
    assert module.images_seen == 4 * d_steps
    assert [player.steps_taken for player in module.players.values()] == [1, d_steps]
    for player in ("generator", "discriminator"):
        assert all(p.isfinite().all() for p in getattr(module, player).parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


@pytest.mark.parametrize("name", ALL)
def test_its_callbacks_and_data_take_what_it_sets(compose: Compose, name: str) -> None:
    config = decided(compose, name)
    callbacks: dict[str, Any] = build_callbacks(config)
    assert {"training_log", "samples", "evaluation", "checkpointing"} <= set(callbacks)
    for callback in ("samples", "evaluation", "checkpointing"):
        assert callbacks[callback].every_kimg <= config.total_kimg
    data = OmegaConf.to_container(config.data)
    assert isinstance(data, dict)
    wanted = {key: value for key, value in data.items() if not str(key).startswith("_")}
    inspect.signature(get_class(data["_target_"])).bind(split="train", **wanted)


@pytest.mark.parametrize("name", ALL)
def test_its_schedules_end_in_time(compose: Compose, name: str) -> None:
    config = decided(compose, name)
    settings = flatten(OmegaConf.to_container(config.model.schedules, resolve=True))
    ends = [v for k, v in settings.items() if k.endswith(".end_kimg")]
    ends += [v[-1] for k, v in settings.items() if k.endswith(".at_kimg")]
    assert len(ends) == sum(key.endswith("_target_") for key in settings)
    assert all(end <= config.total_kimg for end in ends)


@pytest.mark.parametrize("name", ALL)
def test_it_says_how_far_it_was_run(name: str) -> None:
    assert header(name).get("Status"), name


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_says_what_it_reproduces(name: str) -> None:
    fields = header(name)
    assert re.search(r"https://arxiv\.org/abs/\d{4}\.\d{4,5}", fields["Paper"])
    figure = re.search(r"\d+\.\d", fields["Expected"])
    assert figure or re.search(r"none published|not checked", fields["Expected"])
    assert fields["Hardware"] and fields["Data"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_command_in_its_header(compose: Compose, name: str) -> None:
    program, command, *overrides = shlex.split(header(name)["Run"])
    assert (program, command) == ("gan-lab", "train")
    assert overrides[0] == f"experiment={name}"
    # nothing but the data is left to the user
    (root,) = OverridesParser.create().parse_overrides(overrides[1:])
    assert root.key_or_group == "data.root" and root.value()
    assert "root" in compose(overrides[0]).data


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name not in OTHERS])
def test_the_data_are_as_the_table_says(compose: Compose, name: str) -> None:
    config, images = compose(f"experiment={name}"), IMAGES[name]
    wanted = config.data.get("image_size")
    if wanted is not None:
        assert tuple([wanted] * 2 if isinstance(wanted, int) else wanted) == images.size
    assert config.conditional == (images.classes > 0)


FOLDERS = [n for n in PUBLISHED if "data: image_folder" in (FOLDER / f"{n}.yaml").read_text()]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_packed_folder_serves_as_well(name: str) -> None:
    wanted = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml").data)
    assert isinstance(wanted, dict)
    inspect.signature(Zip).bind(split="train", root="x.zip", **wanted)


@pytest.mark.parametrize("name", PUBLISHED)
def test_its_batches_fit_together(compose: Compose, name: str) -> None:
    config = compose(f"experiment={name}")
    micro = config.micro_batch_size or config.batch_size
    assert config.batch_size % micro == 0
    group = config.model.discriminator.get("mbstd_group_size")
    assert group is None or micro % group == 0


def test_all_are_in_the_table() -> None:
    assert set(PUBLISHED) <= {*IMAGES, *OTHERS} >= set(COUNTS)
    assert Path(FOLDER / "quickstart.yaml").exists() and len(OWN) > 1
