"""Text: every command on a small run."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import gan_lab
from gan_lab.commands.launch import launch
from gan_lab.data.builtin import PythonDocs
from gan_lab.data.text_files import TextFiles
from gan_lab.training.callbacks.checkpointing import Checkpointing
from gan_lab.training.loggers.files import read_metrics
from tests.commands.conftest import in_a_child
from tests.helpers.checkpoints import assert_same, final

SHORT = (
    *("model=wgan_gp_text", "model.generator.width=8", "model.discriminator.width=8"),
    *("model.generator.z_dim=8", "data.length=16", "data.alphabet_size=24", "metrics=text"),
    *("batch_size=16", "d_steps=2", "total_kimg=0.64", "trainer=cpu", "logger=[tensorboard]"),
    *("callbacks.training_log.every_kimg=0.16", "callbacks.samples.every_kimg=0.32"),
    *("callbacks.samples.rows=2", "callbacks.samples.columns=4"),
    *("callbacks.evaluation.every_kimg=0.32", "callbacks.checkpointing.every_kimg=0.16"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("text")
    assert launch("train", [*SHORT, f"runs_dir={root}/runs", "name=text"]) == 0
    return root / "runs" / "text"


def test_a_killed_and_resumed_run_is_the_same(run: Path, tmp_path: Path) -> None:
    overrides = [*SHORT, f"runs_dir={tmp_path}", "name=killed"]
    killed = tmp_path / "killed"
    save = Checkpointing.on_train_batch_end

    def save_and_die(self: Checkpointing, *arguments: Any) -> None:
        save(self, *arguments)
        if (killed / "checkpoints" / "last.ckpt").exists():
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpointing, "on_train_batch_end", save_and_die)
        child = in_a_child(overrides)  # forked, so that it alone dies
        child.join()
    assert child.exitcode == -signal.SIGKILL
    assert launch("train", overrides) == 0
    ours, theirs = final(killed), final(run)
    for key in ("state_dict", "optimizer_states", "clock"):
        assert_same(ours.get(key), theirs.get(key), key)


def test_metrics_and_their_references(run: Path) -> None:
    (last,) = (
        m for m in read_metrics(run / "metrics.jsonl") if m["kimg"] == 0.64 and "metrics/js4" in m
    )
    for n in range(1, 7):
        for key in (f"js{n}", f"js{n}_640"):
            names = [f"metrics/{key}{end}" for end in ("", "_real", "_bigram", "_unigram")]
            assert all(0 <= last[name] <= 1 for name in names)
    assert (
        last["metrics/js4_real"]
        < last["metrics/js4_bigram"]
        < last["metrics/js4_unigram"]
        < last["metrics/js4"]
    )
    assert last["metrics/words_real"] > last["metrics/words_bigram"]
    assert {"metrics/words", "metrics/copied", "metrics/distinct4"} <= set(last)
    assert (run / "checkpoints" / "best.ckpt").exists()
    assert launch("evaluate", [f"run={run}", "device=cpu"]) == 0
    (result,) = json.loads((run / "evaluation.json").read_text())
    found = {one["key"]: one["value"] for one in result["metrics"]}
    # evaluate measures the best checkpoint
    assert found["js4"] == min(
        m["metrics/js4"] for m in read_metrics(run / "metrics.jsonl") if "metrics/js4" in m
    )


def test_tensorboard_has_the_text(run: Path) -> None:
    (folder,) = {path.parent for path in run.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder))
    events.Reload()
    assert "samples/text_summary" in events.Tags()["tensors"]
    shown = events.Tensors("samples/text_summary")[-1].tensor_proto.string_val[0].decode()
    lines = [line.removeprefix("    ") for line in shown.split("\n") if line.strip()]
    assert len(lines) == 8 and all(len(line) <= 16 for line in lines)


def test_generate_and_load_make_the_same_lines(run: Path, tmp_path: Path) -> None:
    made, out = tmp_path / "made", tmp_path / "exported"
    overrides = [
        f"run={run}",
        "num_images=20",
        f"out={made}",
        "device=cpu",
        "format=[files,grid,npz]",
    ]
    assert launch("generate", overrides) == 0
    lines = (made / "samples.txt").read_text(encoding="utf-8").split("\n")[:-1]
    entries = [json.loads(line) for line in (made / "samples.jsonl").read_text().splitlines()]
    assert [entry["text"] for entry in entries] == lines and len(lines) == 20
    assert entries[3]["name"] == "seed0_000003" and (made / "grid.png").exists()
    assert launch("export", [f"run={run}", f"out={out}", "checkpoint=best"]) == 0
    gan = gan_lab.load(out)
    samples = gan.sample(20, seed=0)
    kind = gan.spec.kind
    assert [kind.text(one) for one in gan.spec.decode(samples)] == lines  # type: ignore[attr-defined]
    page = samples._repr_html_()  # type: ignore[attr-defined]
    assert page.count("<pre") == 16 and "and 4 more" in page


def test_interpolate_writes_a_list(run: Path, tmp_path: Path) -> None:
    overrides = [
        f"run={run}",
        "seeds=0-2",
        "frames=3",
        "format=[strip,files]",
        f"out={tmp_path}",
        "device=cpu",
    ]
    assert launch("interpolate", overrides) == 0
    lines = (tmp_path / "files" / "path0.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert len(lines) == 7 and (tmp_path / "strip.png").exists()


def test_compare_shows_the_text(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert launch("compare", [f"runs=[{run}]", f"out={page}", "device=cpu"]) == 0
    shown = page.read_text(encoding="utf-8")
    assert "<pre" in shown or "\\u003cpre" in shown


def test_dry_run_and_bench(run: Path, tmp_path: Path) -> None:
    overrides = [*SHORT, f"runs_dir={tmp_path}", "name=dry"]
    assert launch("train", [*overrides, "dry_run=true"]) == 0 and not (tmp_path / "dry").exists()
    out = tmp_path / "bench.json"
    fixed = [word for word in overrides if not word.startswith("logger")]
    assert launch("bench", [*fixed, f"out={out}", "rounds=1", "warmup=1", "parts=[steps]"]) == 0
    assert json.loads(out.read_text())["steps"]["phases"]["generator"]["flops"] > 0


def test_a_file_of_a_user_with_classes(tmp_path: Path) -> None:
    root = tmp_path / "texts"
    root.mkdir()
    for name in ("ab", "cd"):
        (root / f"{name}.txt").write_text("\n".join(f"{name} {i:03d}" for i in range(200)))
    packed = tmp_path / "packed.npz"
    data = ["data=text", "data.length=8", "data.classes=file", "data.val_fraction=0.3"]
    assert launch("prepare-data", [*data, f"data.root={root}", f"out={packed}"]) == 0
    assert TextFiles(split="train", root=packed).class_names == ["ab", "cd"]
    assert launch("prepare-data", [*data, f"data.root={root}", f"out={tmp_path}/lines.zip"]) == 2
    base = [word for word in SHORT if not word.startswith(("data.", "metrics=", "logger"))]
    overrides = [
        "data=text",
        f"data.root={packed}",
        "metrics=none",
        f"runs_dir={tmp_path}/runs",
        "name=own",
    ]
    assert launch("train", [*base, *overrides]) == 0
    made = tmp_path / "made"
    options = ["classes=all", "num_images=2", f"out={made}", "device=cpu"]
    assert launch("generate", [f"run={tmp_path}/runs/own", *options]) == 0
    entries = [json.loads(line) for line in (made / "samples.jsonl").read_text().splitlines()]
    assert [entry["class"] for entry in entries] == ["ab", "ab", "cd", "cd"]


@pytest.mark.parametrize(
    ("command", "overrides", "message"),
    [
        ("train", ["metrics=fid"], "images"),
        ("train", ["augment=[ada]"], "augments images"),
        ("train", ["regularizer=[path_length]"], "path_length"),
        ("train", ["model=dcgan", "data=python_docs"], "needs images"),
        ("generate", ["format=[zip]"], "format=zip"),
        ("generate", ["format=[png]"], "format=png"),
        ("interpolate", ["format=[mp4]"], "format=mp4"),
        ("project", ["images=x.png"], "works with 8-bit images"),
        ("mix", [], "styles"),
    ],
)
def test_unsupported_options_are_rejected(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    command: str, overrides: list[str], message: str,
) -> None:  # fmt: skip
    if command == "train":
        base = [w for w in SHORT if not (w.startswith("model") and "model=dcgan" in overrides)]
        overrides = [*base, *overrides, f"runs_dir={tmp_path}", "name=rejected"]
    else:
        overrides = [f"run={run}", f"out={tmp_path}/out", *overrides, "device=cpu"]
    assert launch(command, overrides) == 2
    assert message in "".join(capsys.readouterr())


@pytest.mark.slow
def test_a_sweep(tmp_path: Path) -> None:
    overrides = [*SHORT, f"runs_dir={tmp_path}", "sweep=both", "seed=0,1", "objective=metrics/js4"]
    assert launch("train", ["-m", *overrides]) == 0
    assert len(list((tmp_path / "both").glob("*/metrics.jsonl"))) == 2


def test_another_python_has_another_fingerprint(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = PythonDocs.content_digest
    monkeypatch.setattr(PythonDocs, "content_digest", lambda self: plain(self)[::-1])
    overrides = [*SHORT, f"runs_dir={run.parent}", "name=text", "total_kimg=0.96"]
    assert launch("train", overrides) == 2


def test_samples_have_their_probabilities(run: Path) -> None:
    samples = gan_lab.load(run).sample(3)
    assert samples.shape == (3, 24, 16)
    assert torch.allclose(samples.sum(1).as_subclass(torch.Tensor), torch.ones(3, 16))
