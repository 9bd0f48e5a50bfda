"""gan-lab evaluate: runs, files against files, interruptions, and the results."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gan_lab import run as results
from gan_lab.commands.launch import launch
from gan_lab.data.images import save_png
from gan_lab.metrics import extraction
from gan_lab.metrics.features.classifiers import DigitsFeatures
from tests.commands.conftest import ELSE, TINY, short_run
from tests.helpers.sources import textures

SMALL = ("protocol=all_digits", "protocol.num_fake=700", "protocol.dataset=null")
FEW = ("protocol=digits", "protocol.num_fake=400", "protocol.reference_split=null")
FILES = (*SMALL, "protocol.num_fake=80", "protocol.reference_split=null", "+protocol.metrics.kernel.subset_size=40",
         "~protocol.metrics.accuracy", "~protocol.metrics.class_frechet")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_run(tmp_path_factory)


def evaluate(*overrides: str, status: int = 0) -> None:
    assert launch("evaluate", ["device=cpu", *overrides]) == status


def metrics(result: dict[str, Any]) -> dict[str, float]:
    return {metric["key"]: metric["value"] for metric in result["metrics"]}


def latest(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())[-1]
    return found


def save_images(folder: Path, images: torch.Tensor) -> Path:
    for i, image in enumerate(images):
        save_png(image, folder / f"{i:04d}.png")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("images")
    return (
        save_images(root / "fake", textures(80, 1, contrast=0.6, size=16)),
        save_images(root / "real", textures(90, 0, size=16)),
    )


pytestmark = pytest.mark.usefixtures("own_cache")


# A run -----------------------------------------------------------------------------------------------------------


def test_agrees_with_training_and_records_how_it_was_made(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(f"run={run}", "checkpoint=last")
    result = latest(run / "evaluation.json")
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (trained,) = [line for line in logged if "metrics/fd_digits" in line]
    assert set(metrics(result)) == {"fd_digits", "fd_digits_real", "accuracy_digits"}
    for name, value in metrics(result).items():
        assert value == pytest.approx(trained[f"metrics/{name}"], rel=1e-9)
    assert 0 < trained["time/evaluation_share"] < 1
    assert result["protocol"] == "digits" and result["num_fake"] == 400
    assert result["seed"] == 0 and result["num_real"] == 360
    fake = result["fake"]
    assert (fake["checkpoint"], fake["weights"], fake["kimg"]) == (
        "last.ckpt",
        "ema",
        trained["kimg"],
    )
    for sha256 in (fake["checkpoint_sha256"], result["extractor"]["extractor_sha256"]):
        assert re.fullmatch("[0-9a-f]{64}", sha256)
    assert re.fullmatch(r"[0-9a-f]{40}\+?", result["git_revision"] or "0" * 40)
    assert torch.__version__.startswith(result["versions"]["torch"])
    assert {"gan_lab", "python", "torch", "torch-fidelity", "numpy"} <= set(result["versions"])
    assert result["time"].endswith("Z") and result["seconds"] > 0
    shown = capsys.readouterr().out
    assert "fd_digits" in shown and "± " in shown


def test_results_add_up_and_the_same_question_has_one_answer(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "results" / "all.json"
    for overrides in ([], ["seed=1"], [], ["weights=raw"], ["truncation=0.5"], ["batch_size=7"]):
        evaluate(f"run={run}", *FEW, f"out={out}", *overrides)
    found = json.loads(out.read_text())
    assert [(r["seed"], r["fake"]["weights"], r["fake"]["truncation"]) for r in found] == [
        (1, "ema", None),
        (0, "raw", None),
        (0, "ema", 0.5),
        (0, "ema", None),  # the last command's, as the batch size makes no difference
    ]
    assert len({metrics(r)["fd_digits"] for r in found}) == 4


def test_standing_statistics_are_recorded_and_used(tmp_path: Path) -> None:
    overrides = [*TINY, "model=dcgan", "model.generator.width=4", "total_kimg=0.05"]
    assert launch("train", [*overrides, f"runs_dir={tmp_path}", "name=normed"]) == 0
    for more in ([], ["standing_statistics=256", "truncation=0.5"]):
        evaluate(f"run={tmp_path}/normed", *FEW, *more)
    plain, standing = json.loads((tmp_path / "normed" / "evaluation.json").read_text())
    assert plain["fake"]["standing_statistics"] is None
    assert (standing["fake"]["standing_statistics"], standing["fake"]["truncation"]) == (256, 0.5)
    assert metrics(plain)["fd_digits"] != metrics(standing)["fd_digits"]


def test_all_metrics_in_one_pass_and_the_nearest_as_a_image(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "evaluation.json"
    evaluate(f"run={run}", *SMALL, f"out={out}", "+protocol.metrics.class_frechet.allow_singular=true",
             "+protocol.metrics.kernel.subset_size=500")  # fmt: skip
    found = {metric["key"]: metric for metric in latest(out)["metrics"]}
    assert {key.split("_digits")[0] for key in found} == {
        "fd", "accuracy", "kd", "fd_class", "precision", "recall", "density", "coverage",
        "memorized", "diversity",
    }  # fmt: skip
    assert found["kd_digits_700_full"]["uncertainty_kind"] == "se"
    assert set(found["fd_class_digits_700_full"]["detail"]["classes"]) == set("0123456789")
    with Image.open(tmp_path / "memorized_digits_700_full_nearest.png") as sheet:
        assert sheet.size == (16 * 66 + 2, 2 * 66 + 2), "8 pixels shown as 64"


def test_another_extractor_leaves_out_what_it_cannot(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "evaluation.json"
    overrides = ("protocol=fid10k", "features=digits", "protocol.num_fake=300", f"out={out}")
    evaluate(f"run={run}", *overrides)
    assert set(metrics(latest(out))) == {"fd_digits_300_full", "score_digits_300"}
    assert latest(out)["protocol"] == "fid10k_digits"
    evaluate(f"run={run}", *overrides, "+protocol.metrics.sfid._target_=gan_lab.metrics.feature_metrics.Frechet",
             "+protocol.metrics.sfid.output=spatial")  # fmt: skip
    assert "metrics.sfid is left out" in capsys.readouterr().out


# Files against files ---------------------------------------------------------------------------------------------


def test_folders_zips_and_arrays_are_the_same_images(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    fake, real = folders
    shutil.make_archive(str(tmp_path / "fake"), "zip", fake)
    arrays = textures(90, 0, size=16).permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "real.npz", arr_0=arrays)
    out = tmp_path / "evaluation.json"
    for pair in ((fake, real), (tmp_path / "fake.zip", real), (fake, tmp_path / "real.npz")):
        evaluate(f"fake={pair[0]}", f"real={pair[1]}", *FILES, f"out={out}")
    found = json.loads(out.read_text())
    assert len(found) == 3
    assert found[0]["metrics"] == found[1]["metrics"] == found[2]["metrics"]
    assert found[0]["seed"] is None and found[0]["num_real"] == 90
    assert metrics(found[0])["fd_digits"] > 0


def test_identical_sets_are_at_no_distance(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "evaluation.json"
    evaluate(
        f"fake={folders[1]}", f"real={folders[1]}", *FILES, "protocol.num_fake=90", f"out={out}"
    )
    found = metrics(latest(out))
    assert found["fd_digits"] == pytest.approx(0, abs=1e-6)
    assert found["precision_digits_90_full"] == found["recall_digits_90_full"] == 1
    assert found["memorized_digits_90_full"] > 0.9


def test_a_run_against_files_and_against_their_features(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = save_images(tmp_path / "real", textures(90, 0, size=8, channels=1))
    out, kept = tmp_path / "evaluation.json", tmp_path / "real.npz"
    overrides = ("protocol=kid5k", "features=digits", "protocol.num_fake=80", f"out={out}",
             "+protocol.metrics.kid.subset_size=40")  # fmt: skip
    evaluate(f"run={run}", f"real={real}", *overrides, f"save_real_features={kept}")
    shutil.rmtree(real)
    evaluate(f"run={run}", f"real={kept}", *overrides)
    first, second = json.loads(out.read_text())
    assert first["metrics"] == second["metrics"]
    assert second["real"]["features_from"] == str(kept)
    capsys.readouterr()
    evaluate(f"run={run}", f"real={kept}", "protocol=fid10k", "features=digits", status=2)
    assert "lacks statistics of features" in capsys.readouterr().err
    means = ("features=module", "features.name=flat", "features.module._target_=torch.nn.Flatten")
    width = "features.outputs={features: 64}"
    evaluate(
        f"run={run}", f"real={kept}", *overrides, *means, width, "features.channels=[1]", status=2
    )
    assert "made with extractor 'gan_lab digits classifier'" in capsys.readouterr().err


def test_an_exported_model_has_the_metrics_of_its_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("protocol=digits", "protocol.num_fake=300", "protocol.reference_split=null")
    assert launch("export", [f"run={run}", f"out={tmp_path}/model"]) == 0
    kept, out = tmp_path / "real.npz", tmp_path / "all.json"
    evaluate(f"run={run}", *overrides, f"save_real_features={kept}", f"out={out}")
    evaluate(f"run={tmp_path}/model", f"real={kept}", *overrides, f"out={out}")
    first, second = json.loads(out.read_text())
    assert first["metrics"] == second["metrics"]
    assert (second["fake"]["checkpoint"], second["fake"]["weights"]) == ("model.safetensors", "ema")
    assert first["fake"]["kimg"] == second["fake"]["kimg"]
    evaluate(f"run={tmp_path}/model", f"real={run}", *overrides, f"out={out}")
    against = latest(out)
    assert against["num_real"] == 300 and metrics(against)["fd_digits"] == pytest.approx(
        0, abs=1e-6
    )
    evaluate(f"run={tmp_path}/model", f"real={kept}", status=2)
    assert "protocol= is missing" in capsys.readouterr().err
    evaluate(f"run={tmp_path}/model", *overrides, status=2)
    assert "real= is missing" in capsys.readouterr().err
    evaluate(f"run={tmp_path}/model", f"real={kept}", *overrides, "weights=raw", status=2)
    assert "holds the ema weights alone" in capsys.readouterr().err


# Stopped and started again ---------------------------------------------------------------------------------------


class Counted:
    """Counts the images that the classifier gets, and interrupts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen = 0
        self.stop_after: int | None = None
        whole: Callable[..., dict[str, torch.Tensor]] = DigitsFeatures.__call__

        def counted(extractor: Any, images: torch.Tensor, outputs: Any) -> dict[str, torch.Tensor]:
            if self.stop_after is not None and self.seen + len(images) > self.stop_after:
                raise KeyboardInterrupt
            self.seen += len(images)
            return whole(extractor, images, outputs)

        monkeypatch.setattr(DigitsFeatures, "__call__", counted)
        monkeypatch.setattr(extraction, "CHUNK", 64)


def test_killed_in_the_middle_it_goes_on_to_the_same_metrics(
    run: Path,
    tmp_path: Path,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    overrides = (
        f"run={run}",
        "protocol=digits",
        "protocol.num_fake=300",
        "protocol.reference_split=null",
    )
    counted = Counted(monkeypatch)
    evaluate(*overrides, f"out={tmp_path}/straight.json")
    assert counted.seen == 360 + 300
    shutil.rmtree(own_cache / "features")
    counted.seen, seen = 0, []
    for stop_after in (100, 360 + 150):  # in the real images, then in the generated ones
        counted.stop_after = stop_after
        with pytest.raises(KeyboardInterrupt):
            evaluate(*overrides, f"out={tmp_path}/resumed.json")
        seen.append(counted.seen)
        assert "the same command resumes" in capsys.readouterr().out
    counted.stop_after = None
    evaluate(*overrides, f"out={tmp_path}/resumed.json")
    assert "features of" in capsys.readouterr().out
    # a chunk that was not complete is the only thing done twice
    assert 660 <= counted.seen <= 660 + 2 * 63
    straight, resumed = (latest(tmp_path / f"{name}.json") for name in ("straight", "resumed"))
    assert straight["metrics"] == resumed["metrics"]
    assert not list(own_cache.glob("features/fake-*/*")), "what was generated is cleared away"
    counted.seen = 0
    evaluate(*overrides, f"out={tmp_path}/again.json")
    assert counted.seen == 300, "real images are looked at once"


def test_preview_measures_and_writes_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = Counted(monkeypatch)
    evaluate(f"run={run}", "protocol=digits", "preview=true", f"out={tmp_path}/none.json")
    shown = capsys.readouterr().out
    assert "1,437" in shown and "minutes" in shown and "peak memory" in shown
    assert 0 < counted.seen <= 6 * 64
    assert not (tmp_path / "none.json").exists()


# Bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "run= is missing"),
        (["run={run}", "fake={fake}"], "give one of them"),
        (["fake={fake}", "real={real}"], "protocol= is missing"),
        (["fake={fake}", *FILES], "real= is missing"),
        (["fake={fake}", "real=/nowhere", *FILES], "/nowhere does not exist"),
        (
            ["fake={fake}", "real={real}", *FILES, "protocol.num_fake=81"],
            "set protocol.num_fake=80",
        ),
        (
            ["fake={fake}", "real={real}", *FILES, "protocol.num_fake=64"],
            "64 generated images for 64",
        ),
        (["run={run}", "protocol=fid10k"], "1437 real images for 2048 features"),
        (["run={run}", "protocol=digits", "truncation=0"], "truncation=0"),
        (["run={run}", "protocol=digits", "seed=-1"], "seed=-1"),
        (["run={run}", "protocol=digits", "device=quantum"], "use auto or cpu"),
        (["run={run}", "metrics=none"], "metrics"),
    ],
)
def test_bad_input(
    run: Path,
    folders: tuple[Path, Path],
    overrides: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    filled = [word.format(run=run, fake=folders[0], real=folders[1]) if "=" in word and "{" in word
              else word for word in overrides]  # fmt: skip
    assert launch("evaluate", filled) == 2
    assert message in capsys.readouterr().err


def test_files_that_cannot_be_measured(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rejected(folder: Path, *parts: str) -> None:
        evaluate(f"fake={folder}", f"real={folders[1]}", *FILES, status=2)
        error = capsys.readouterr().err
        assert all(part in error for part in parts), error

    mixed = save_images(tmp_path / "mixed", textures(80, 1, size=16))
    save_png(textures(1, 0, size=8)[0], mixed / "small.png")
    rejected(mixed, "2 different sizes", "files.image_size=64")
    (mixed / "small.png").unlink()
    save_png(textures(1, 0, size=16, channels=1)[0], mixed / "gray.png")
    rejected(mixed, "different channels", "files.channels=3")
    (mixed / "gray.png").unlink()
    (mixed / "notes.txt").write_text("not an image")
    (mixed / "film.mp4").write_bytes(b"not an image")
    evaluate(f"fake={mixed}", f"real={folders[1]}", *FILES, f"out={tmp_path}/e.json")
    assert "passed over 1 file: not an image (film.mp4)" in capsys.readouterr().out
    (mixed / "0001.png").write_bytes((mixed / "0001.png").read_bytes()[:60])
    rejected(mixed, "1 unreadable file", "0001.png")
    np.savez(tmp_path / "float.npz", arr_0=np.zeros((80, 8, 8, 3), dtype=np.float32))
    rejected(tmp_path / "float.npz", "type float32; expected uint8 [N, H, W, C]")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    rejected(tmp_path / "other.npz", "holds x")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:50])
    rejected(tmp_path / "cut.npz", "not a complete .npz")


def test_a_run_without_metrics_and_one_of_another_version(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for target, message in (
        ("gan_lab.metrics.base.NoMetrics", "trained without metrics; choose protocol="),
        ("gan_lab.metrics.gone.Gone", "choose protocol="),
    ):
        copy = tmp_path / target
        shutil.copytree(run, copy)
        config = (copy / "config.yaml").read_text()
        before = re.search(r"^metrics:\n(?:  .*\n)*", config, flags=re.MULTILINE)
        assert before is not None
        (copy / "config.yaml").write_text(
            config.replace(before.group(), f"metrics:\n  _target_: {target}\n")
        )
        evaluate(f"run={copy}", status=2)
        assert message in capsys.readouterr().err


def test_a_file_with_other_content_is_not_changed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes.json"
    path.write_text('{"notes": 1}')
    evaluate(f"run={run}", "protocol=digits", f"out={path}", status=2)
    assert "notes.json is damaged" in capsys.readouterr().err
    assert path.read_text() == '{"notes": 1}'


def test_outside_a_checkout_there_is_no_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "conf_dir", lambda: tmp_path / "conf")
    assert results.git_revision() is None


def test_plots_of_features_classes_and_truncation(run: Path, tmp_path: Path) -> None:
    overrides = (f"run={run}", *SMALL, f"out={tmp_path}/all.json", "plots=true")
    overrides += ("+protocol.metrics.class_frechet.allow_singular=true",)
    overrides += ("+protocol.metrics.kernel.subset_size=300", "truncations=[0.5,2]")
    evaluate(*overrides)
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert {"features.png", "truncation.png"} <= drawn
    assert sum("class" in name for name in drawn) == 1
    for name in drawn:
        with Image.open(tmp_path / name) as image:
            assert image.format == "PNG" and min(image.size) > 10
    records = json.loads((tmp_path / "all.json").read_text())
    assert [result["fake"]["truncation"] for result in records] == [None, 0.5, 2]
    shared = metrics(records[0]).keys()
    assert all(metrics(result).keys() == shared for result in records)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("truncations=[0.5,1]",), "set plots=true"),
        (("plots=true", "truncations=[1]"), "two values of truncation"),
    ],
)
def test_curves_that_cannot_be_drawn(
    run: Path,
    tmp_path: Path,
    overrides: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evaluate(f"run={run}", *SMALL, f"out={tmp_path}/all.json", *overrides, status=2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "all.json").exists()


def test_metrics_of_a_generator_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("protocol=ppl50k", "features=digits", "protocol.num_fake=20")
    overrides += ("protocol.metrics.ppl.epsilon=0.5", f"out={tmp_path}/all.json")
    evaluate(f"run={run}", *overrides, "protocol.metrics.ppl.space=z")
    assert "were extracted before" not in capsys.readouterr().out
    (record,) = json.loads((tmp_path / "all.json").read_text())
    assert metrics(record).keys() == {"path_digits_z_end_20"} and record["real"] is None
    assert record["settings"]["metrics"]["ppl"]["epsilon"] == 0.5
    evaluate(f"run={run}", *overrides, status=2)
    assert "no styles w; set space=z" in capsys.readouterr().err
    evaluate(f"run={run}", *overrides, "protocol.metrics.ppl.space=z", "preview=true")
    assert re.search(r"path +│ +20 │ +20 │ +[\d.e+]+ │", capsys.readouterr().out)


COPIES = ("protocol=memorization", "features=none", "protocol.metrics.copies.output=null",
          "protocol.num_fake=20")  # fmt: skip


def test_memorization_with_the_discriminator(
    train: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = (
        "model.generator.width=4",
        "model.generator.encoder_width=4",
        "model.generator.z_dim=8",
    )
    pairs = train(
        "model=bigan", *small, "model.discriminator.code_width=8", name="pairs", base=ELSE
    )
    for folder in (train(name="gan"), pairs):
        evaluate(f"run={folder}", *COPIES)
        record = latest(folder / "evaluation.json")
        values = metrics(record)
        names = ("copies_pixels_20", "copies_shifted_20", "membership_discriminator")
        assert all(0 <= values[name] <= 1 for name in names)
        (verdict,) = [m["detail"] for m in record["metrics"] if m["key"] == "memorization_20"]
        said = " ".join(capsys.readouterr().out.split())
        assert verdict["verdict"] in ("yes", "no") and verdict["text"] in said
        with Image.open(folder / "copies_pixels_20_nearest.png") as sheet:
            assert sheet.size[0] > 16 * 64
    out = f"out={tmp_path / 'exported'}"
    assert launch("export", [f"run={pairs}", out, "with_discriminator=true"]) == 0
    assert verdict["text"][1:] in (tmp_path / "exported" / "README.md").read_text()


def test_memorization_of_files(folders: tuple[Path, Path], tmp_path: Path) -> None:
    fake, real = folders
    held_out = save_images(tmp_path / "others", textures(60, 5, size=16))
    out = f"out={tmp_path}/all.json"
    evaluate(f"fake={real}", f"real={real}", *COPIES, out, status=2)
    evaluate(f"fake={real}", f"real={real}", f"held_out={held_out}", *COPIES, out)
    assert metrics(latest(tmp_path / "all.json"))["memorization_20"] == 1
    evaluate(f"fake={fake}", f"real={real}", f"held_out={held_out}", *COPIES, out)
    assert latest(tmp_path / "all.json")["metrics"][0]["detail"]["verdict"] == "no"
