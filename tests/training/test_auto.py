"""Numbers that the data and the device decide."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from gan_lab.commands.launch import launch
from gan_lab.training.auto import RULES, Facts, auto_keys, decide, placeholders, rounded

Compose = Callable[..., DictConfig]

GPU = Facts(num_images=5_000, shape=(3, 256, 256), device="cuda")


def decided(compose: Compose, facts: Facts, *overrides: str) -> DictConfig:
    config = compose("experiment=photos", *overrides)
    decide(config, facts)
    return config


def test_the_rules_of_stylegan2_ada(compose: Compose) -> None:
    """What `--cfg=auto` gives there: its batch, R1 gamma, EMA, learning rate, widths."""
    for devices, side, batch, gamma, base, lr in (
        (1, 256, 16, 0.8192, 16_384, 0.0025),
        (8, 256, 64, 0.2048, 16_384, 0.0025),
        (8, 1024, 32, 6.5536, 32_768, 0.002),
        (2, 128, 64, 0.0512, 16_384, 0.0025),
    ):
        facts = Facts(num_images=5_000, shape=(3, side, side), device="cuda", devices=devices)
        config = decided(compose, facts)
        assert config.batch_size == batch
        assert config.regularizer.r1.weight == pytest.approx(gamma)
        assert config.model.ema.half_life_kimg == pytest.approx(batch * 10 / 32)
        assert config.model.generator.channel_base == base
        assert config.model.generator_optimizer.lr == lr
        assert config.model.discriminator.mbstd_group_size == min(batch // devices, 4)


def test_rectangles_count_their_pixels(compose: Compose) -> None:
    facts = Facts(num_images=5_000, shape=(3, 128, 512), device="cuda")
    assert decided(compose, facts).regularizer.r1.weight == pytest.approx(0.0002 * 65_536 / 16)


def test_what_is_set_stays_and_the_others_follow_it(compose: Compose) -> None:
    config = decided(compose, GPU, "batch_size=8", "total_kimg=100")
    assert (config.batch_size, config.total_kimg) == (8, 100)
    assert config.regularizer.r1.weight == pytest.approx(0.0002 * 65_536 / 8)
    assert config.augment.ada.speed_kimg == 10
    assert config.callbacks.samples.every_kimg == 2
    assert not auto_keys(config)


def test_where_a_run_goes_on_its_numbers_stay(compose: Compose) -> None:
    begun = OmegaConf.to_container(decided(compose, GPU), resolve=True)
    config = compose("experiment=photos", "total_kimg=9000")
    decide(config, Facts(num_images=9, shape=(3, 64, 64), device="cpu"), begun)  # type: ignore[arg-type]
    assert (config.batch_size, config.model.generator.channel_base) == (16, 16_384)
    assert config.total_kimg == 9000


def test_a_run_that_begins_from_another_freezes_layers(compose: Compose) -> None:
    assert decided(compose, GPU).model.discriminator.frozen_layers == 0
    config = decided(compose, GPU, "init_from=faces")
    assert (
        config.model.discriminator.frozen_layers == 9
    )  # of 3 layers at 256 to 8, and one of the image
    assert config.augment.ada.speed_kimg == 100
    few = compose("experiment=few_shot", "init_from=faces")
    decide(few, GPU)
    assert few.model.discriminator.frozen_blocks == 3  # of 6 at 256


def test_every_key_is_there_in_some_recipe_and_types_are_checked(compose: Compose) -> None:
    found = set()
    for name in ("photos", "few_shot"):
        config = compose(f"experiment={name}")
        keys = auto_keys(config)
        found |= set(keys)
        with placeholders(config):
            assert not auto_keys(config)
        assert auto_keys(config) == keys
    assert found == set(RULES)


@pytest.mark.parametrize(
    ("value", "expected"), [(1, 1), (1.99, 1), (2, 2), (0.07, 0.05), (499, 200), (500, 500)]
)
def test_intervals_are_round(value: float, expected: float) -> None:
    assert rounded(value) == pytest.approx(expected)


def test_a_folder_of_photographs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(12):
        pixels = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    overrides = [
        "experiment=photos", f"data.root={tmp_path}/photos", "total_kimg=0.032", "trainer=cpu", "name=run",
        "model.generator.channel_max=8", "model.discriminator.channel_max=8", "model.generator.z_dim=8",
        "model.generator.w_dim=8", f"runs_dir={tmp_path}", "metrics=none",
    ]  # fmt: skip
    assert launch("train", overrides) == 0
    config = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert config.batch_size == 16
    assert config.regularizer.r1.weight == pytest.approx(0.0002 * 16 * 24 / 16)
    assert "0.0002 x 384 pixels / batch of 16" in capsys.readouterr().out
    assert "auto" not in [config.model.ema.half_life_kimg, config.augment.ada.speed_kimg]
    assert (
        launch(
            "train", [*overrides, "model.generator.channel_base=auto", "model.generator.z_dim=auto"]
        )
        == 2
    )
    assert "z_dim" in capsys.readouterr().err
