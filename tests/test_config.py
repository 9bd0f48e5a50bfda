"""Names of runs, differences of configurations, hints for slips, and the configurations themselves."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from gan_lab.config import build, conf_dir, differences, run_name, suggestion, targets
from gan_lab.errors import InputError
from gan_lab.training.losses import Loss
from gan_lab.training.regularizers.base import Regularizer


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "default"),
        (["experiment=quickstart"], "quickstart"),
        (["model=dcgan", "loss=hinge", "seed=1"], "dcgan_hinge_seed-1"),
        (["total_kimg=5", "logger=csv", "trainer.devices=2", "name=x", "+trainer.precision=bf16-mixed"], "default"),
        (["regularizer=[r1,r2]", "model.generator.width=64"], "r1,r2_model.generator.width-64"),
        (["data=image_folder", "data.root=/my/photos"], "image_folder_data.root-my-photos"),
    ],
)  # fmt: skip
def test_a_run_is_named_by_what_was_asked_for(overrides: list[str], name: str) -> None:
    assert run_name(overrides) == name


def test_differences() -> None:
    old, new = (
        OmegaConf.create({"a": {"b": 1, "c": 2}, "d": [1]}),
        OmegaConf.create({"a": {"b": 1, "c": 3}, "e": 0}),
    )
    assert differences(old, new) == ["a.c: 2 -> 3", "e: absent -> 0", "d: [1] -> absent"]


def test_suggestions() -> None:
    keys = ["seed", "model.generator.width", "model.discriminator.width"]
    assert suggestion("sead", keys) == "; did you mean seed?"
    assert "model.generator.width or model.discriminator.width" in suggestion("width", keys)
    assert suggestion("zzz", keys) == ""


def test_an_input_error_comes_out_as_it_is() -> None:
    node = {"a": {"_target_": "gan_lab.training.regularizers.r1.R1", "weight": -1}}
    with pytest.raises(InputError, match="weight must be >= 0"):
        build(node)


def test_what_cannot_be_built_is_told_with_its_key_and_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets.py").write_text("class Net:\n    def __init__(self, *, a):\n        1 + a\n")
    node = OmegaConf.create({"model": {"net": {"_target_": "nets.Net", "a": "b"}}})
    with pytest.raises(InputError, match=r"^model\.net: nets\.Net cannot be imported .*PYTHONPATH"):
        build(node)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"^model\.net: nets\.Net .*TypeError: .*nets\.py:3\)$"):
        build(node)


def test_targets_are_found_at_any_depth() -> None:
    node = OmegaConf.create(
        {"_target_": "a.B", "x": [{"_target_": "c.D", "y": {"_target_": "e.F"}}]}
    )
    assert targets(node) == ["a.B", "c.D", "e.F"]


def options(group: str) -> list[str]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return GlobalHydra.instance().config_loader().get_group_options(group)  # type: ignore[no-any-return]


@pytest.mark.parametrize("loss", options("loss"))
def test_every_loss_is_built(compose: Callable[..., DictConfig], loss: str) -> None:
    built: Loss = build(compose(f"loss={loss}").loss)
    assert built.paired == (loss == "relativistic")


@pytest.mark.parametrize("regularizer", options("regularizer"))
def test_every_regularizer_is_built(compose: Callable[..., DictConfig], regularizer: str) -> None:
    built = build(compose(f"regularizer=[{regularizer}]").regularizer)
    assert all(isinstance(r, Regularizer) for r in built.values())
    assert len(built) == (regularizer != "none") and all(
        regularizer.startswith(name) for name in built
    )


def test_a_model_brings_its_loss_and_penalties_and_the_command_line_wins(
    compose: Callable[..., DictConfig],
) -> None:
    published = compose("model=wgan_gp")
    assert published.loss._target_.endswith("Wasserstein") and list(published.regularizer) == [
        "gradient_penalty"
    ]
    assert published.d_steps == 5
    chosen = compose("model=wgan_gp", "loss=hinge", "regularizer=[r1,r2]", "d_steps=1")
    assert chosen.loss._target_.endswith("Hinge") and list(chosen.regularizer) == ["r1", "r2"]
    assert chosen.d_steps == 1


def test_long_names_fit_into_a_file_system_and_differ() -> None:
    overrides = [f"model.generator.setting_{i}={i}" for i in range(40)]
    names = {run_name([*overrides, f"seed={seed}"]) for seed in range(3)}
    assert len(names) == 3 and max(map(len, names)) < 255
    assert names == {run_name([*overrides, f"seed={seed}"]) for seed in range(3)}
