"""gan-lab compare: one page, also if some runs are broken."""

import json
import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from plotly.offline import get_plotlyjs

import gan_lab
from gan_lab.commands.launch import collect_paths, launch
from gan_lab.compare.page import embedded, page_data
from gan_lab.compare.runs import SampleGrid, data_uri, draw, read_run
from gan_lab.data.images import to_uint8
from gan_lab.data.media import grid
from gan_lab.data.sample import to_pil
from gan_lab.run import locked
from tests.compare.conftest import MakeRun

DRAWING: dict[str, Any] = {
    "columns": 3,
    "seed": 5,
    "checkpoint": None,
    "weights": "ema",
    "device": torch.device("cpu"),
    "trust": (),
}


def compare(*overrides: str, status: int = 0) -> None:
    assert launch("compare", collect_paths(list(overrides), "runs")) == status


def data_of(page: Path) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text())
    assert match is not None
    return json.loads(match[1])


def test_the_data_of_the_page(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run("a", "seed=1", best=2.0), make_run("b", "seed=2", best=1.0, seconds=None)]
    compare(*map(str, runs), f"out={tmp_path}/out/page.html", "columns=3")
    data = data_of(tmp_path / "out" / "page.html")
    assert [run["name"] for run in data["runs"]] == ["a", "b"]
    assert data["main"] == data["bests"][0]["key"] == "metrics/fd_digits"
    a, b = data["runs"]
    assert a["best"]["metrics/fd_digits"] == [2, 4] and a["status"] == "finished"
    assert (a["seconds"], a["perKimg"]) == (8, 2)
    assert (b["seconds"], b["perKimg"]) == (None, None)
    assert a["curves"]["metrics/fd_digits"] == {
        "k": [1, 2, 3, 4],
        "t": [2, 4, 6, 8],
        "v": [5, 4, 3, 2],
    }
    assert data["settings"] == [["seed", ["1", "2"]]]
    assert "the same one in all grids" in data["note"] and data["problems"] == []


def test_the_page_is_self_contained(make_run: MakeRun, tmp_path: Path) -> None:
    compare(str(make_run("a")), f"out={tmp_path}/page.html")
    text = (tmp_path / "page.html").read_text()
    assert not re.findall(r"(?:src|href)=[\"']?(?!#|data:)[^\"'>\s]", text.split("<script", 1)[0])
    # the browser rejects whatever a script, Plotly's included, would ask of others
    assert "default-src 'none'; img-src data: blob:;" in text
    assert "plotly.js v" in text and not re.findall(r"@@\w+@@", text)
    assert not re.findall(r"https?://[^\s\"')]+", text.replace(get_plotlyjs(), ""))


def test_all_runs_have_the_same_latents(make_run: MakeRun) -> None:
    path = make_run("a")
    sheet = draw(read_run(path, "a"), **DRAWING)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    expected = grid(to_uint8(gan_lab.load(path).sample(6, labels=labels, seed=5)), 3)
    assert sheet.image is not None and sheet.same
    assert np.array_equal(np.array(sheet.image), np.array(to_pil(expected)))
    assert sheet.origin == "best checkpoint, 4 kimg"
    # equal weights at equal latents are equal images
    again = draw(read_run(make_run("b"), "b"), **DRAWING)
    assert again.image is not None and data_uri(again.image) == data_uri(sheet.image)


def test_without_a_checkpoint_the_last_grid_of_training_is_shown(make_run: MakeRun) -> None:
    path = make_run("a", checkpoint=False)
    none = draw(read_run(path, "a"), **DRAWING)
    assert none.image is None and none.origin == "it has no checkpoint"
    (path / "samples").mkdir()
    for kimg, shade in ((2, 50), (10, 200)):
        Image.new("L", (9, 9), shade).save(path / "samples" / f"kimg{kimg:010.3f}.png")
    Image.new("L", (9, 9), 0).save(path / "samples" / "reals.png")
    last = draw(read_run(path, "a"), **DRAWING)
    assert last.image is not None and last.image.getpixel((0, 0)) == (200, 200, 200)
    assert not last.same and last.origin.startswith(
        "last grid of training, 10 kimg, at other latents"
    )
    (path / "checkpoints" / "last.ckpt").write_bytes(b"cut short")
    cut = draw(read_run(path, "a"), **DRAWING)
    assert not cut.same and "cut short" in cut.origin


def test_large_images_are_shrunk() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (640, 640, 3), np.uint8)
    uri = data_uri(Image.fromarray(noise))
    kind, _, data = uri.partition(";base64,")
    assert kind == "data:image/webp"
    with Image.open(BytesIO(b64decode(data))) as sheet:
        assert sheet.size == (640, 640)
    assert data_uri(Image.new("L", (640, 640))).startswith("data:image/png")


def test_a_broken_run_is_reported_and_the_others_are_compared(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("good")
    bad = make_run("bad")
    (bad / "config.yaml").write_text("a: [")
    hopeless = make_run("hopeless")
    (hopeless / "config.yaml").write_text("a: [")
    (hopeless / "metrics.jsonl").unlink()
    compare(str(tmp_path / "runs"), "nowhere", f"out={tmp_path}")
    data = data_of(tmp_path / "compare.html")
    assert [run["name"] for run in data["runs"]] == ["bad", "good"]
    problems = "\n".join(data["problems"])
    assert "nowhere does not exist" in problems and "hopeless: nothing can be read" in problems
    assert "bad: " in problems
    out = capsys.readouterr().out
    assert "warning: nowhere does not exist" in out


def test_text_of_a_run_cannot_end_the_script_element(make_run: MakeRun, tmp_path: Path) -> None:
    name, evil = "<script>alert(1) & <!-- \" ' \u2028", "</script><script>alert(1)</script>"
    metrics = [{"key": "fid", "value": 1.0}]
    make_run(name, evaluation=[{"protocol": evil, "metrics": metrics, "fake": {}}])
    compare(str(tmp_path / "runs"), f"out={tmp_path}")
    page = tmp_path / "compare.html"
    text = page.read_text()
    assert data_of(page)["runs"][0]["name"] == name
    assert data_of(page)["measured"][0]["protocol"] == evil
    assert "<script>alert" not in text and "\u2028" not in text.split('id="data"')[1]
    assert "<title>&lt;script&gt;" in text


def test_nan_and_infinity_become_null() -> None:
    text = embedded({"a": [1.23456789, float("nan"), float("inf")], "b": ("<", None, True)})
    assert json.loads(text) == {"a": [1.23457, None, None], "b": ["<", None, True]}
    assert "<" not in text


def test_the_training_process_is_shown(make_run: MakeRun) -> None:
    path = make_run("a", total_kimg=10)
    nothing = SampleGrid(origin="")
    with locked(path):
        run = read_run(path, "a")
        (shown,) = page_data([run], [nothing], [], seed=0)["runs"]
    assert shown["status"] == "of 10, training" and shown["holder"].startswith("process ")
    run = read_run(path, "a")
    (shown,) = page_data([run], [nothing], [], seed=0)["runs"]
    assert shown["status"] == "of 10" and shown["holder"] is None


def test_many_runs_make_a_page_of_moderate_size(make_run: MakeRun, tmp_path: Path) -> None:
    for i in range(3):
        make_run(f"run{i}", kimg=400)
    compare(str(tmp_path / "runs"), f"out={tmp_path}")
    few = data_of(tmp_path / "compare.html")["runs"][0]["curves"]["loss/d"]["k"]
    assert len(few) <= 602 and few[0] == 1 and few[-1] == 400


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "name runs or folders of runs"),
        (["nowhere"], "nowhere does not exist"),
        (["{run}", "out=page.pdf"], "must be a page"),
        (["{run}", "columns=0"], "columns=0 must be a whole number from 1 to 32"),
        (["{run}", "device=tpu9"], "cannot be used here"),
        (["{run}", "seed=-1"], "seed=-1"),
    ],
)
def test_bad_input(
    make_run: MakeRun, overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("a")
    compare(*(word.format(run=run) for word in overrides), status=2)
    assert message in capsys.readouterr().err


def test_arguments_without_a_key_are_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a=b").mkdir()
    assert collect_paths(["runs/a", "a=b", "seed=1", "it's", "--cfg", "job"], "runs") == [
        "runs=['runs/a','a=b','it\\'s']",
        "seed=1",
        "--cfg",
        "job",
    ]
    assert collect_paths(["--help"], "runs") == ["--help"]
    assert collect_paths(["seed=1"], None) == ["seed=1"]
