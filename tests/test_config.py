"""Names of runs, differences of configurations, hints for slips, and the configurations themselves."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import hydra
import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from torch import nn

from gan_lab.config import (
    annotations_of,
    build,
    conf_dir,
    differences,
    import_name,
    literal,
    read_yaml,
    run_name,
    suggestion,
)
from gan_lab.errors import InputError
from gan_lab.training.losses import Loss
from gan_lab.training.regularizers import Regularizer


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
def test_a_run_is_named_by_what_was_requested(overrides: list[str], name: str) -> None:
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
    node = {"a": {"_target_": "gan_lab.training.regularizers.R1", "weight": -1}}
    with pytest.raises(InputError, match="weight must be >= 0"):
        build(node)


def test_what_cannot_be_built_is_reported_with_its_key_and_location(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets.py").write_text("class Net:\n    def __init__(self, *, a):\n        1 + a\n")
    node = OmegaConf.create({"model": {"net": {"_target_": "nets.Net", "a": "b"}}})
    with pytest.raises(InputError, match=r"^model\.net: nets\.Net cannot be imported .*PYTHONPATH"):
        build(node)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"^model\.net: nets\.Net .*TypeError: .*nets\.py:3\)$"):
        build(node)


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


@pytest.mark.parametrize(
    ("root", "options"),
    [
        ("train", ["name=x", "model=wgan_gp", "loss=hinge", "regularizer=[r1,r2]", "d_steps=1"]),
        ("train", ["experiment=digits/stylegan2", "name=x", "++model.generator.new=[1,a]"]),
        ("evaluate", ["run=a", "protocol=fid50k_full", "protocol.num_fake=3"]),
    ],
)
def test_what_the_tests_keep_of_a_composition_is_what_hydra_composes(
    tmp_path: Path, root: str, options: list[str]
) -> None:
    """Twice from the package's files, of which `tests.helpers.once` keeps parts, and once from others."""
    shutil.copytree(conf_dir(), tmp_path / "conf")
    found = []
    for folder in (conf_dir(), conf_dir(), tmp_path / "conf"):
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(folder), version_base="1.3"):
            config = hydra.compose(root, options, return_hydra_config=True)
        del config.hydra.runtime.config_sources
        found.append(OmegaConf.to_container(config))
    assert found[0] == found[1] == found[2]
    assert found[0]["hydra"]["overrides"]["task"] == options  # type: ignore[index,call-overload]


def test_long_names_fit_into_a_file_system_and_differ() -> None:
    overrides = [f"model.generator.setting_{i}={i}" for i in range(40)]
    names = {run_name([*overrides, f"seed={seed}"]) for seed in range(3)}
    assert len(names) == 3 and max(map(len, names)) < 255
    assert names == {run_name([*overrides, f"seed={seed}"]) for seed in range(3)}


def test_literal_texts_are_read_again_as_they_stand(tmp_path: Path) -> None:
    letters = [*"\\${}'\"a:[ #é\n\x1b", "oc.env:HOME", "${", "???"]
    draws = Random(0)
    for _ in range(300):
        text = "".join(draws.choices(letters, k=draws.randrange(9)))
        made = OmegaConf.create({"a": literal(text), "b": [literal(text)]})
        OmegaConf.save(made, tmp_path / "config.yaml")
        expected = {"a": text, "b": [text]}
        assert OmegaConf.to_container(made, resolve=True) == expected
        assert read_yaml(tmp_path / "config.yaml") == expected
        again = OmegaConf.load(tmp_path / "config.yaml")
        assert OmegaConf.to_container(again, resolve=True) == expected


def test_yaml_is_read_as_omegaconf_writes_it(tmp_path: Path) -> None:
    """Numbers, also those that YAML 1.1 takes for texts, and texts that look like numbers, dates and booleans."""
    values = {
        "floats": [1e-3, 1e-8, 1e20, -0.5, float("inf"), 0.1, 3.0],
        "ints": [0, -7, 2**63],
        "texts": ["1", "1e-3", "yes", "null", "~", "", "2026-11-28", "=", "<<", "0x1f", "1:30", "!a", "&a", "*a"],
        "rest": [True, False, None, [], {}],
    }  # fmt: skip
    OmegaConf.save(OmegaConf.create(values), tmp_path / "a.yaml")
    assert read_yaml(tmp_path / "a.yaml") == values
    (tmp_path / "b.yaml").write_text("lr: 1e-3\nbase: 2e+1\n")
    assert read_yaml(tmp_path / "b.yaml") == {"lr": 0.001, "base": 20.0}


class Base:
    """What is requested."""


class Kind(Base):
    """What there is."""

    def __init__(self, *, one: Base | None = None, many: Mapping[str, Base] | None = None,
                 made: Callable[..., Base] | None = None, number: int = 0, bare=None) -> None:  # type: ignore[no-untyped-def]  # fmt: skip
        self.given = (one, many, made, number, bare)


class Acts:
    """What may not be constructed."""

    def __init__(self) -> None:
        raise AssertionError("it was constructed")


@dataclass
class Sizes:
    """A dataclass, which its fields alone do not make."""

    width: int = 1


class Sized(Base):
    """Takes a dataclass."""

    def __init__(self, *, sizes: Sizes | None = None) -> None:
        assert sizes is None or isinstance(sizes, Sizes)


HERE = __name__


def test_the_fields_of_a_dataclass_are_none_without_its_target() -> None:
    node = {"_target_": f"{HERE}.Sized", "sizes": {"_target_": f"{HERE}.Sizes", "width": 2}}
    build(node, Base)
    del node["sizes"]["_target_"]  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"sizes=\{'width': 2\}.*Sizes"):
        build(node, Base)


@pytest.mark.parametrize(
    "where",
    [
        {"one": "node"},
        {"many": {"a": "node"}},
        {"made": "later"},
        {"made": "node"},
        {"number": "node"},
        {"one": ["node"]},
        {"one": {"a": "node"}},
        {"one": {"_target_": f"{HERE}.Kind", "one": "node"}},
        {"one": "later"},
    ],
)
@pytest.mark.parametrize("foreign", [False, True])
def test_a_class_is_checked_before_it_is_constructed(
    where: dict[str, Any], foreign: bool, tmp_path: Path
) -> None:
    nodes = {"node": {"_target_": f"{HERE}.Acts"}}
    nodes["later"] = {**nodes["node"], "_partial_": True}  # type: ignore[dict-item]

    def planted(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: planted(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [planted(inner) for inner in value]
        return nodes.get(value, value)

    rules: Any = {"origin": tmp_path / "file", "trust": [HERE.split(".")[0]]} if foreign else {}
    with pytest.raises(InputError, match=r"Acts .*(is no|does not belong)"):
        build({"_target_": f"{HERE}.Kind", **planted(where)}, Base, **rules)


def test_arguments_that_fit_are_built() -> None:
    kind = {"_target_": f"{HERE}.Kind"}
    node = {**kind, "one": kind, "many": {"a": kind}, "made": {**kind, "_partial_": True, "number": 3}}  # fmt: skip
    one, many, made, number, bare = build(node, Base, bare=Base).given
    assert isinstance(one, Kind) and isinstance(many["a"], Kind) and number == 0 and bare is Base
    assert made(number=4).given[3] == 4 and made().given[3] == 3
    by_position = {"_target_": "fractions.Fraction", "_args_": [6, 4]}
    assert build(by_position) == Fraction(3, 2)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "nowhere"}, "not a class"),
        ({"_target_": 3}, "not a class"),
        ({"_target_": "os.path.sep"}, "os.path.sep is not a class"),
        ({"_target_": f"{HERE}.Kind", "_recursive_": False}, "_recursive_"),
        ({"_target_": f"{HERE}.Kind", "_args_": 3}, "_args_=3"),
        ({"_target_": f"{HERE}.Kind", "_partial_": "no"}, "_partial_='no'"),
        ({"_target_": f"{HERE}.Kind", "_partial_": True, "unheard": 1}, "unheard"),
        ({"_target_": f"{HERE}.Kind", "unheard": 1}, "unheard"),
    ],
)
def test_nodes_that_are_none(node: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(node)


def test_a_file_names_modules_only_where_nothing_is_said(tmp_path: Path) -> None:
    rules: Any = {"origin": tmp_path / "file", "trust": [HERE.split(".")[0], "torch"]}
    inner = {"_target_": "torch.nn.Identity"}
    node = {"_target_": f"{HERE}.Kind", "bare": inner}
    assert isinstance(build(node, Base, **rules).given[4], nn.Module)
    others = (
        "gan_lab.data.packing.RestartableZip",
        "gan_lab.training.ema.ExponentialMovingAverage",
    )
    for acting in (*others, f"{HERE}.Acts"):
        with pytest.raises(InputError, match=f"{acting} is not a "):
            build({**node, "bare": {"_target_": acting}}, Base, **rules)
    for number in (float("nan"), float("inf"), 10**9):
        with pytest.raises(InputError, match="number="):
            build({"_target_": f"{HERE}.Kind", "number": number}, Base, **rules)


@pytest.mark.parametrize("name", sorted({
    line.partition("_target_:")[2].split("#")[0].split(",")[0].strip(" }\n")
    for path in conf_dir().rglob("*.yaml") for line in path.read_text().splitlines()
    if "_target_: gan_lab." in line and not line.lstrip().startswith("#")
}))  # fmt: skip
def test_constructors_have_annotations_that_can_be_read(name: str) -> None:
    """A node among the arguments is checked against them."""
    found = import_name(name)
    hints = annotations_of(found)
    assert hints.signature is not None
    unknown = [key for key in hints.signature.parameters if hints.of(key) is Any]
    assert unknown == []
