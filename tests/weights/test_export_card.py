"""The model card is complete, and its code runs."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import gan_lab
from gan_lab.commands.launch import launch
from gan_lab.data.images import image_spec, to_uint8
from gan_lab.weights.export import card, code, in_a_cell
from gan_lab.weights.exported import file_sha256
from tests.helpers.generators import run_of

SECTIONS = ("How to use it", "Data", "Recipe", "Metrics", "Intended use and limits", "License")


def card_of(run: Path, *overrides: str) -> str:
    out = run.parent / "model"
    assert launch("export", [f"run={run}", f"out={out}", *overrides]) == 0
    return (out / "README.md").read_text()


def front_matter(card: str) -> dict[str, Any]:
    _, matter, _ = card.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(matter)
    return found


def result(run: Path, **changes: Any) -> dict[str, Any]:
    """A result of `gan-lab evaluate` on the run's best checkpoint."""
    fake = {
        "run": str(run),
        "checkpoint": "best.ckpt",
        "checkpoint_sha256": file_sha256(run / "checkpoints" / "best.ckpt"),
        "weights": "ema",
        "truncation": 0.5,
    }
    return {
        "protocol": "fid10k",
        "metrics": [
            {"key": "fid10k", "value": 12.345, "uncertainty": 0.5, "uncertainty_kind": "std"}
        ],
        "num_fake": 10000,
        "num_real": 5000,
        "fake": fake | changes,
        "real": {"images": "/data/somebody/photos"},
        "extractor": {"extractor": "Inception", "extractor_sha256": "0123456789abcdef"},
        "settings": {},
    }


def test_code_for_onnx_and_torch_runs(
    styled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (styled / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    for name in ("generator.onnx", "generator.pt2", "model.json", "model.safetensors"):
        (tmp_path / name).symlink_to(styled / name)
    monkeypatch.chdir(tmp_path)
    for block, count in zip(blocks, (16, 4, 4), strict=True):
        names: dict[str, Any] = {}
        exec(block, names)
        assert tuple(names["images"].shape) == (count, 1, 8, 8)
    with Image.open(tmp_path / "image.png") as image:
        assert (image.size, image.mode) == ((8, 8), "L")


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_the_image_of_the_onnx_example(
    channels: int, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(outputs: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [np.full((len(inputs["z"]), channels, 8, 6), 2.0, np.float32)]

    session = SimpleNamespace(InferenceSession=lambda path: SimpleNamespace(run=run))
    monkeypatch.setitem(sys.modules, "onnxruntime", session)  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    description = {
        "name": "faces",
        "gan_lab": "0.1",
        "git_revision": None,
        "license": None,
        "source": {"checkpoint": "best.ckpt"},
        "generator": {
            "network": {"_target_": "gan_lab.models.gan.Generator"},
            "parameters": 9,
            "weights": "ema",
        },
        "z_dim": 4,
        "sample": image_spec(channels=channels, image_size=(8, 6)).as_dict(),
        "kimg": 1.0,
        "truncation": {"kind": "threshold"},
        "standing_statistics": None,
        "programs": {"onnx": {"largest_difference": 1e-6}},
        "metrics": [],
        "best": None,
        "recipe": {"model": {"_target_": "gan_lab.models.gan.GAN"}, "total_kimg": 1.0},
    }
    text = card(description, caption="", repository=None)
    (code,) = re.findall(r"```python\n(import numpy.*?)```", text, re.DOTALL)
    exec(code, {})
    with Image.open(tmp_path / "image.png") as image:
        assert (image.size, image.mode) == ((6, 8), mode)
        assert image.getextrema() in ((255, 255), ((255, 255),) * channels)


def test_the_grid_is_of_the_first_images(styled: Path) -> None:
    with Image.open(styled / "grid.png") as grid:
        assert grid.size == (8 * 66 + 2, 3 * 66 + 2), "a class a row, 8 pixels shown as 64"
        corner = grid.getpixel((2 + 66, 2 + 66))
    first = to_uint8(gan_lab.load(styled).sample(24, labels=[0] * 8 + [1] * 8 + [2] * 8))
    assert corner == int(first[9, 0, 0, 0])


def test_contents_of_the_card(styled: Path) -> None:
    card = (styled / "README.md").read_text()
    assert re.findall("^## (.*)", card, re.MULTILINE) == list(SECTIONS)
    assert "a generator of 8 x 8 gray images: `stylegan2`" in card.lower()
    assert "1.5 kimg" in card and "| 2 | kind 2 | 7 |" in card
    assert "No metrics were measured" in card and "was not measured" in card
    matter = front_matter(card)
    assert matter["license"] == "unknown" and "Not stated." in card
    assert matter["library_name"] == "gan_lab"
    assert {"gan", "stylegan2", "class-conditional", "onnx"} <= set(matter["tags"])


@pytest.mark.parametrize(
    ("given", "matter"),
    [
        ("CC-BY-4.0", {"license": "cc-by-4.0"}),
        ("'Our own terms: ask'", {"license": "other", "license_name": "Our own terms: ask"}),
    ],
)
def test_licenses(given: str, matter: dict[str, str], tmp_path: Path) -> None:
    card = card_of(run_of("gan", tmp_path / "run"), f"license={given}", "name=faces")
    assert matter.items() <= front_matter(card).items()
    assert "\n# faces\n" in card and given.strip("'") in card.split("## License")[1]


def test_metrics_are_those_of_this_checkpoint(tmp_path: Path) -> None:
    run = run_of("gan", tmp_path / "run")
    others = [{"checkpoint_sha256": "0"}, {"weights": "raw"}, {"standing_statistics": 64}]
    results = [result(run), *(result(run, **other) | {"protocol": "other"} for other in others)]
    (run / "evaluation.json").write_text(json.dumps(results))
    lines = [
        {"kimg": 1.0, "metrics/kid5k": 7.5},
        {"kimg": 1.5, "metrics/fid10k": 12.0, "metrics/kid5k": 0.25, "metrics/kid5k_se": 0.125},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    card = card_of(run)
    (row,) = re.findall(r"^\| `fid10k`.*", card, re.MULTILINE)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:] == [
        "12.35 ± 0.5 (std)",
        "`fid10k`, truncation 0.5",
        "10,000 / 5,000",
        "Inception `0123456789ab`",
    ]
    (row,) = re.findall(r"^\| `kid5k`.*", card, re.MULTILINE)
    assert "0.25 ± 0.12 (se) | during training" in row
    assert "`other`" not in card and "by `fid50k` (12.5)" in card
    raw = card_of(run, "weights=raw", "overwrite=true")
    assert "`other`" in raw and "kid5k" not in raw and "by `fid50k`" not in raw


def test_no_local_paths_are_in_the_card(tmp_path: Path) -> None:
    run = run_of("gan", tmp_path / "run", classes=0)
    (run / "evaluation.json").write_text(json.dumps([result(run)]))
    card = card_of(run)
    description = (run.parent / "model" / "model.json").read_text()
    assert "from `photos`" in card and "The model has no classes." in card
    for text in (card, description):
        assert "somebody" not in text and str(tmp_path) not in text


def test_imported_weights_name_their_source(tmp_path: Path) -> None:
    run = run_of("gan", tmp_path / "run")
    with (run / "config.yaml").open("a") as file:
        file.write(
            "provenance: {source: a pickle of somebody, files: {net.pkl: abc123}, data: flowers}\n"
        )
    card = card_of(run)
    assert "a pickle of somebody; its file calls the data 'flowers'." in card
    assert (
        "- `net.pkl`, SHA-256 `abc123`" in card and "Not known: the weights were imported" in card
    )


def test_names_are_escaped() -> None:
    cell = in_a_cell("a|b\n# c\x1b[1m<script>`d` [e](f) \ud800")
    assert "\n" not in cell and "\x1b" not in cell and "<" not in cell and "\ud800" not in cell
    assert r"a\|b\\n# c\\x1b\[1m&lt;script" in cell and r"\`d\`" in cell
    assert code("a`b\nc") == r"`a'b\nc`"
