"""Every command and every piece of Python in the README and in docs/ runs, and every link and path leads somewhere."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from PIL import Image

from gan_lab.commands.launch import (
    LISTED,
    POSITIONAL,
    add_key,
    collect_paths,
    expand_switches,
    flags_last,
    launch,
    quote_values,
)
from gan_lab.config import conf_dir, register_resolvers
from gan_lab.sweeps import register
from tests.helpers.published import network_pickle

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
LINKING = (*PAGES, ".github/CONTRIBUTING.md", "CHANGELOG.md", "slurm/README.md")

# the same commands, over in seconds
SHORT = {
    "train": ["total_kimg=0.1", "callbacks.samples.columns=2", "metrics=none", "num_workers=0"],
    "evaluate": ["protocol.num_fake=12", "+protocol.metrics.fid.allow_singular=true"],
    "import-weights": [],
    "generate": [],
    "prepare-data": [],
    "mix": [],
    "interpolate": ["frames=2", "columns=2"],
    "directions": ["samples=50", "count=2", "seeds=[0]"],
    "project": ["steps=2"],
    "export": [],
    "compare": ["columns=2"],
}
SMALL = ["model.generator.width=8", "model.discriminator.width=8", "batch_size=8"]
# those of the published file that the test writes
SMALL_STYLES = [
    "model.generator.z_dim=32",
    "model.generator.w_dim=32",
    *(f"model.{p}.channel_base=512" for p in ("generator", "discriminator")),
    *(f"model.{p}.channel_max=32" for p in ("generator", "discriminator")),
    "batch_size=8",
]


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str, *languages: str) -> Iterator[str]:
    """Yield code blocks; `bash` runs here, `sh` needs what is not here (GPUs, a cluster, weights)."""
    yield from re.findall(rf"```(?:{'|'.join(languages)})\n(.*?)```", text_of(page), re.DOTALL)


def commands(*languages: str, program: str = "gan-lab") -> list[str]:
    """Return the lines that call a program, of all pages, each once."""
    lines = [
        line.split(" #")[0].strip()
        for page in PAGES
        for block in blocks(page, *languages)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return list(dict.fromkeys(line for line in lines if line.startswith(f"{program} ")))


def parse_command(line: str) -> tuple[str, list[str]]:
    """Return the command and its overrides as the command line hands them to Hydra."""
    command, *options = shlex.split(line)[1:]
    options = [path for word in options for path in sorted(glob(word)) or [word]]
    return command, collect_paths(add_key(options, POSITIONAL.get(command)), LISTED.get(command))


def one_of_a_sweep(word: str) -> str | None:
    """Return an override with the first of the values that a sweep would try; None where they are drawn."""
    override = OverridesParser.create().parse_override(word)
    if not override.is_sweep_override():
        return word
    if not override.is_discrete_sweep():
        return None
    return f"{override.key_or_group}={next(override.sweep_string_iterator())}"


def photos(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (64, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.jpg")


@pytest.mark.parametrize(
    "line", [line for line in commands("bash", "sh") if "--config-dir" not in line]
)
def test_every_command_composes(line: str) -> None:
    """Every key and every option of a group is there."""
    command, options = parse_command(line)
    options = quote_values(flags_last(expand_switches(options, ("preview", "plots", "dry_run"))))
    overrides = [word for word in options if not word.startswith("-")]
    overrides = [word for word in map(one_of_a_sweep, overrides) if word is not None]
    if command == "train" and not any(word.startswith("name=") for word in overrides):
        overrides.append("name=test")
    register_resolvers()
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(command.replace("-", "_"), overrides)
    for word in overrides:
        key = word.partition("=")[0].lstrip("+")
        if not key.startswith("hydra") and not (conf_dir() / key).is_dir():
            OmegaConf.select(config, key, throw_on_missing=True)


@pytest.mark.slow
@pytest.mark.timeout(900)  # some thirty commands
def test_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inception_file: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")
    pickled = network_pickle("stylegan2_uncond_32", tmp_path / "it was run")
    (tmp_path / "stylegan2.pkl").write_bytes(pickled)
    lines = [line for line in commands("bash") if not line.endswith("dry_run=true")]
    assert {shlex.split(line)[1] for line in lines} == set(SHORT)
    # data before runs, and runs before what is made of them, whatever the order of the pages
    order = {"prepare-data": 0, "import-weights": 0, "train": 1}
    for line in sorted(lines, key=lambda line: order.get(shlex.split(line)[1], 2)):
        command, overrides = parse_command(line)
        overrides = [
            word for word in overrides if not word.startswith(("total_kimg=", "num_images="))
        ]
        if command == "generate" and not any(word.startswith("seeds=") for word in overrides):
            overrides.append("num_images=4")
        if command == "evaluate":
            overrides.append(f"protocol.features.weights={inception_file}")
        small = []
        if command == "train":
            styled = {"model=stylegan2", "experiment=digits/stylegan2"} & set(overrides)
            small = SMALL_STYLES if styled else SMALL
        if any(word.startswith("micro_batch_size") for word in overrides):
            overrides = [
                "micro_batch_size=2" if w.startswith("micro_batch_size") else w for w in overrides
            ]
        overrides = [word for word in overrides if not word.startswith("batch_size")]
        assert launch(command, [*overrides, *small, *SHORT[command]]) == 0, line
    assert (tmp_path / "compare.html").exists() and (tmp_path / "digits-gan" / "README.md").exists()
    assert (tmp_path / "runs" / "photos" / "evaluation.json").exists()
    generated = tmp_path / "runs" / "photos" / "generated"
    assert list(generated.glob("last_*kimg_ema_seed0/grid.png"))


def test_the_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What uses a trained model."""
    monkeypatch.chdir(tmp_path)
    overrides = ["experiment=quickstart", "name=demo", "total_kimg=0.1", "metrics=none", *SMALL]
    assert launch("train", overrides) == 0
    for page in PAGES:
        found: dict[str, object] = {}
        for block in blocks(page, "python"):
            if "gan_lab.load" in block:
                exec(re.sub(r'"runs/\w+"', '"runs/demo"', block), found)
        if page == "README.md":
            assert tuple(found["images"].shape) == (16, 1, 16, 16)  # type: ignore[attr-defined]


def test_an_architecture_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = (block for block in blocks("README.md", "python") if "class " in block)
    (config,) = blocks("README.md", "yaml")
    (tmp_path / "mynets.py").write_text(code)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text(config)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = [line for line in commands("sh") if "mine" in line]
    assert [shlex.split(line)[1] for line in lines] == ["train", "generate"]
    for line in lines:
        command, overrides = parse_command(line)
        short = {"train": ["total_kimg=0.1", "metrics=none"], "generate": ["num_images=2"]}[command]
        assert launch(command, [*overrides, *short]) == 0, line
    del sys.modules["mynets"]


def test_the_make_commands() -> None:
    targets = [line.split()[1] for line in commands("bash", program="make")]
    assert targets == ["demo", "test"]
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("page", LINKING)
def test_links_and_paths_lead_somewhere(page: str) -> None:
    text = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)", target.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}
    for path in re.findall(r"`((?:gan_lab|conf|tests|slurm|notebooks)/[\w./-]+)`", text):
        assert "<" in path or (ROOT / path).exists(), path


def test_the_table_of_options_is_complete() -> None:
    table = text_of("README.md").split("## Options")[1].split("\n\n")[1]
    for row in table.splitlines()[2:]:
        group, options = row.strip("|").split("|")[:2]
        (folder,) = (ROOT / "conf" / name for name in re.findall(r"`(\w+)=", group))
        options_of_row = set(re.findall(r"`([\w.]+)`", options))
        assert options_of_row <= {path.stem for path in folder.iterdir()}, row
        if folder.name in ("model", "loss", "data", "protocol", "augment"):
            assert options_of_row == {path.stem for path in folder.iterdir()}, row


def test_the_readme_stays_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 220
