"""Loading an untrusted run folder runs no code, with every command that opens one."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image

import gan_lab
from gan_lab.commands.launch import collect_paths, launch
from gan_lab.data.packing import RestartableZip
from gan_lab.errors import InputError
from gan_lab.run import HOLDER_FILE, living_holder
from gan_lab.training.loggers.files import JsonLogger
from tests.helpers.generators import TINY, run_of

ZIP = "gan_lab.data.packing.RestartableZip"
SECRET = "hunter2-of-the-environment"
BEFORE, ATTACK = b"what the user has written", b"what the attacker has written"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the user's, outside of the run."""
    path = tmp_path / "home" / "file"
    path.parent.mkdir()
    path.write_bytes(BEFORE)
    return path


@pytest.fixture
def run(tmp_path: Path, victim: Path) -> Path:
    """A run folder with a packing journal whose part file links to the file."""
    folder = run_of("dcgan", tmp_path / "run", classes=0)
    (folder / "x.zip.part").symlink_to(victim)
    state = {"plan": "p", "end": 0, "done": 0, "failed": []}
    (folder / "x.zip.journal").write_bytes(json.dumps(state).encode() + b"\n" + ATTACK)
    return folder


def test_the_attack_works_without_protection(run: Path, victim: Path) -> None:
    RestartableZip(out=run / "x.zip", plan="p").abandon()
    assert victim.read_bytes() == ATTACK


def commands(run: Path, out: Path) -> dict[str, list[str]]:
    """Every command that opens a run."""
    source = f"run={run}"
    return {
        "generate": [source, "num_images=1", f"out={out}"],
        "interpolate": [source, "seeds=0-1", f"out={out}"],
        "project": [source, "dataset_indices=0", f"out={out}"],
        "export": [source, f"out={out}", "with_discriminator=true"],
        "evaluate": [source, f"out={out}.json"],
        "compare": [f"runs=[{run}]", f"out={out}.html"],
        "train": [
            *("model=gan", "model.generator.width=4", "model.discriminator.width=4"),
            *("data.image_size=8", "metrics=none", "total_kimg=0.05", f"runs_dir={out}"),
            *("name=new", f"init_from={run}"),
        ],
    }


def plant(run: Path, **nodes: str) -> None:
    """Put texts in place of nodes of config.yaml, which are named with __ for a dot."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    for key in nodes:
        *parents, last = key.split("__")
        place = config
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = f"PLANTED_{key}"
    text = yaml.safe_dump(config)
    for key, node in nodes.items():
        assert text.count(f"PLANTED_{key}\n") == 1
        text = text.replace(f"PLANTED_{key}\n", f"{node}\n")
    (run / "config.yaml").write_text(text)


def open_by_all(run: Path, out: Path, *, compare: int) -> None:
    """Open an unreadable run by every command; compare shows the rest of it."""
    for command, overrides in commands(run, out).items():
        assert launch(command, overrides) == (compare if command == "compare" else 2), command
    for weights in ("ema", "raw"):
        with pytest.raises(InputError):
            gan_lab.load(run, weights=weights)


@pytest.mark.parametrize(
    "out", ["!!python/object/apply:pathlib.Path [{run}/x.zip]", "!!python/name:os.system ''"]
)
def test_yaml_runs_nothing(out: str, run: Path, victim: Path, tmp_path: Path) -> None:
    node = f"{{_target_: {ZIP}, plan: p, out: {out.format(run=run)}}}"
    plant(run, model__generator=node, model__discriminator=node, data=node, metrics=node)
    open_by_all(run, tmp_path / "out", compare=2)
    assert victim.read_bytes() == BEFORE


# where a node of a class that acts when it is constructed may stand, and how
PLACES: dict[str, tuple[str, str]] = {
    "generator": ("model__generator", "{%s}"),
    "later": ("model__generator", "{_partial_: true, %s}"),
    "argument": ("model__generator__width", "{%s}"),
    "argument in a list": ("model__generator__image_size", "[{%s}]"),
    "argument in a mapping": ("model__generator__num_classes", "{a: {%s}}"),
    "argument by position": ("model__generator___args_", "[{%s}]"),
    "argument that does not exist": ("model__generator__more", "{%s}"),
    "list of generators": ("model__generator", "[{%s}]"),
}


@pytest.mark.parametrize(("key", "shape"), PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("kind", [RestartableZip, JsonLogger])
def test_classes_are_checked_before_construction(
    key: str,
    shape: str,
    kind: type,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    constructed = []
    monkeypatch.setattr(kind, "__init__", lambda self, **given: constructed.append(given))
    name = f"{kind.__module__}.{kind.__qualname__}"
    plant(run, **{key: shape % f"_target_: {name}, out: {run}/x.zip"})
    with pytest.raises(InputError):
        gan_lab.load(run)
    assert launch("generate", commands(run, tmp_path / "out")["generate"]) == 2
    assert launch("compare", commands(run, tmp_path / "out")["compare"]) == 0
    assert constructed == []


def test_every_command_rejects_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constructed = []
    monkeypatch.setattr(RestartableZip, "__init__", lambda self, **g: constructed.append(g))
    node = f"{{_target_: {ZIP}, out: x}}"
    later = node.replace("}", ", _partial_: true}")
    plant(run, model__generator=node, model__discriminator=node, data=later, metrics=node)
    open_by_all(run, tmp_path / "out", compare=0)
    assert constructed == []


@pytest.mark.parametrize("key", ["metrics", "data"])
def test_data_and_metrics_of_a_run_are_checked_like_its_generator(
    key: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    constructed = []
    monkeypatch.setattr(RestartableZip, "__init__", lambda self, **g: constructed.append(g))
    digits = "{_target_: gan_lab.data.builtin.Digits, _partial_: true, image_size: 8}"
    plant(run, data=digits, metrics="{_target_: gan_lab.metrics.base.NoMetrics}", d_steps="1")
    for node in (f"{{_target_: {ZIP}, _partial_: true}}", f"{{_target_: {ZIP}, out: x, plan: p}}"):
        plant(run, **{key: node})
        assert launch("evaluate", commands(run, tmp_path / "out")["evaluate"]) == 2
        assert f"{ZIP} " in capsys.readouterr().err
    assert constructed == []


def test_an_export_is_checked_like_a_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert launch("export", [f"run={run}", f"out={tmp_path}/model"]) == 0
    path = tmp_path / "model" / "model.json"
    description = json.loads(path.read_text())
    constructed = []
    monkeypatch.setattr(RestartableZip, "__init__", lambda self, **g: constructed.append(g))
    node = {"_target_": ZIP, "out": str(run / "x.zip"), "plan": "p"}
    for network in (node, {**description["generator"]["network"], "width": node}):
        description["generator"]["network"] = network
        path.write_text(json.dumps(description))
        with pytest.raises(InputError, match=r"RestartableZip (is no|does not belong)"):
            gan_lab.load(path.parent)
    assert constructed == []


SMALL_FILES: dict[str, Callable[[Path], str]] = {
    "aliases": lambda run: "a: &a [x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]\n",
    "depth": lambda run: "a: " + "[" * 100_000,
    "depth by indentation": lambda run: "".join(" " * i + "a:\n" for i in range(1000)),
    "length": lambda run: "a: '" + "x" * 5_000_000 + "'",
    "digits": lambda run: f"total_kimg: {'9' * 5000}",
    "a large number": lambda run: f"total_kimg: {10**30}",
    "keys that have one hash": lambda run: "".join(
        f"{k * (2**61 - 1)}: 0\n" for k in range(100_000)
    ),
    "digits to the base of 60": lambda run: "a: 1" + ":1" * 1_500_000,
    "binary digits": lambda run: "a: 0b" + "1" * 3_000_000,
    "no text": lambda run: "a: \x00",
    "a key that is not text": lambda run: "? [a, b]\n: c",
    "a tag": lambda run: "a: !!binary aGVsbG8=",
    "a tag that is known to JSON": lambda run: "a: !!int no",
}


@pytest.mark.parametrize("text", SMALL_FILES.values(), ids=SMALL_FILES)
@pytest.mark.timeout(60)
def test_small_files_that_describe_huge_networks(text: Callable[[Path], str], run: Path) -> None:
    (run / "config.yaml").write_text(text(run))
    with pytest.raises(InputError, match=r"config\.yaml"):
        gan_lab.load(run)


@pytest.mark.parametrize("pid", ["1", 0, -1, 10**30, True, None, [1]])
def test_the_lock_file_is_read_as_untrusted(pid: Any, tmp_path: Path) -> None:
    holder = {"pid": pid, "host": socket.gethostname(), "since": "now"}
    (tmp_path / HOLDER_FILE).write_text(json.dumps(holder))
    assert living_holder(tmp_path) is None


@pytest.mark.timeout(60)
def test_a_pipe_instead_of_a_configuration(run: Path) -> None:
    (run / "config.yaml").unlink()
    os.mkfifo(run / "config.yaml")
    with pytest.raises(InputError, match=r"config\.yaml"):
        gan_lab.load(run)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mapping_layers", 10**9),
        ("mapping_layers", 10**7),
        ("z_dim", 10**9),
        ("style_mixing", float("nan")),
        ("w_avg_beta", float("inf")),
    ],
)
@pytest.mark.timeout(100)
def test_absurd_numbers_are_rejected(key: str, value: float, tmp_path: Path) -> None:
    run = run_of("stylegan2", tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert key in TINY["stylegan2"] or key in ("style_mixing", "w_avg_beta")
    config["model"]["generator"][key] = value
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match=r"config\.yaml"):
        gan_lab.load(run)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sample.class_counts", [-1, 5, 5]),
        ("sample.class_counts", [1, 2]),
        ("sample.class_counts", [0, 0, 0]),
        ("sample.class_counts", ["a"]),
        ("sample.class_counts", 10**9),
        ("sample.class_names", [1, 2, 3]),
        ("sample.class_names", ["a"] * 4),
        ("sample", None),
        ("model", []),
        ("model.generator", "a"),
        ("model.generator._target_", 7),
        ("model.generator._target_", "gan_lab.models..Generator"),
        ("model.generator._target_", "gan_lab.__main__"),
        ("model.generator._target_", "gan_lab.training.checkpoint.os.system"),
        ("model.generator._partial_", "yes"),
        ("model.generator._convert_", "all"),
        ("model.generator._args_", {"a": 1}),
    ],
)
def test_descriptions_of_runs_are_checked(key: str, value: Any, tmp_path: Path) -> None:
    run = run_of("dcgan", tmp_path / "run")
    config = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(config, key, value, merge=False, force_add=True)
    OmegaConf.save(config, run / "config.yaml")
    with pytest.raises(InputError, match=r"config\.yaml"):
        gan_lab.load(run)


def holds_secret(folder: Path) -> list[Path]:
    """Return what holds the secret, in its bytes or its name."""
    files = [path for path in folder.rglob("*") if not path.is_symlink()]
    return [
        path
        for path in files
        if SECRET in path.name or (path.is_file() and SECRET.encode() in path.read_bytes())
    ]


def test_names_from_data_are_not_interpolated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.chdir(tmp_path)
    names = ["${oc.env:TOKEN}", "\\${oc.env:TOKEN}", "${seed}", "???"]
    for number, name in enumerate(names):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            image = Image.new("L", (8, 8), 60 * number + i)
            image.save(tmp_path / "photos" / name / f"{i}.png")
    overrides = [
        *("model=gan", "model.generator.width=4", "model.discriminator.width=4", "batch_size=8"),
        *("data=image_folder", f"data.root={tmp_path}/photos", "metrics=none", "total_kimg=0.016"),
        *("trainer=cpu", "num_workers=0"),
    ]
    assert launch("train", [*overrides, "name=run"]) == 0
    run = tmp_path / "runs" / "run"
    assert sorted(gan_lab.load(run).class_names) == sorted(names)
    # also by whoever reads it with OmegaConf, and interpolates
    config = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"), resolve=True)
    assert sorted(config["sample"]["class_names"]) == sorted(names)  # type: ignore[call-overload,index]
    # going on reads it again, and finds nothing changed
    capsys.readouterr()
    assert launch("train", [*overrides, "name=run", "total_kimg=0.024"]) == 0
    out = capsys.readouterr().out
    assert "resuming from" in out and "class_names" not in out
    assert launch("generate", [f"run={run}", "num_images=4", "format=[png,zip]"]) == 0
    assert launch("export", [f"run={run}", f"out={tmp_path}/model"]) == 0
    strange = run.rename(run.with_name("${oc.env:TOKEN}"))
    assert (
        launch("compare", [*collect_paths([str(strange)], "runs"), f"out={tmp_path}/page.html"])
        == 0
    )
    assert "${oc.env:TOKEN}" in (tmp_path / "page.html").read_text()
    assert holds_secret(tmp_path) == []


def test_a_foreign_configuration_is_not_interpolated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.chdir(tmp_path)
    run = run_of("dcgan", tmp_path / "run", classes=2)
    text = (run / "config.yaml").read_text()
    text = text.replace("kind 0", "${oc.env:TOKEN}")
    assert "oc.env" in text
    (run / "config.yaml").write_text(
        text + "name: ${oc.env:TOKEN}\nnote: ${oc.decode:'${oc.env:TOKEN}'}\nloss: ${nowhere}\n"
    )
    assert gan_lab.load(run).class_names == ["${oc.env:TOKEN}", "kind 1"]
    everything = commands(run, tmp_path / "out")
    for command in ("generate", "export"):
        assert launch(command, everything[command][:2]) == 0
    assert launch("compare", everything["compare"]) == 0
    assert holds_secret(tmp_path) == []


def test_a_trusted_package_is_built_and_others_are_not_even_imported(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trusted_here.py").write_text(
        "from pathlib import Path\nfrom gan_lab.models import dcgan\n"
        f"Path({str(tmp_path / 'imported')!r}).touch()\n"
        "class Generator(dcgan.Generator):\n"
        "    def __init__(self, **rest):\n"
        "        super().__init__(**rest)\n"
        # not every network can be built without numbers, as ours are to look at their sizes
        "        self.scale = sum(float(p.sum()) for p in self.parameters())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    expected = gan_lab.load(run).sample(2)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("gan_lab.models.dcgan.", "trusted_here."))
    with pytest.raises(
        InputError, match=r"would run trusted_here.Generator.*trust=\['trusted_here'\]"
    ):
        gan_lab.load(run)
    assert not (tmp_path / "imported").exists()
    assert torch.equal(gan_lab.load(run, trust=["trusted_here"]).sample(2), expected)
