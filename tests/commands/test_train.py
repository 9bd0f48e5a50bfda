"""gan-lab train: the files it writes, and the inputs it rejects."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from gan_lab import load
from gan_lab.commands.launch import launch
from gan_lab.commands.train import fit
from gan_lab.errors import InputError
from gan_lab.training.building import drop_unchosen
from tests.commands.conftest import ELSE, TINY, Train, entries
from tests.gpu.work import composed


def test_the_run_folder(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train("seed=0")  # trained here, for its output
    out = capsys.readouterr().out
    assert "1,437" in out and "3: 147" in out, (
        "size and class histogram are printed before the first step"
    )
    config = OmegaConf.load(run / "config.yaml")
    assert config.sample == {
        "kind": {"_target_": "gan_lab.data.images.ImageKind"},
        "representation": {"_target_": "gan_lab.data.sample.Representation"},
        "shape": [1, 8, 8],
        "num_classes": 10,
        "class_names": [str(i) for i in range(10)],
        "class_counts": [142, 146, 141, 147, 144, 146, 145, 143, 139, 144],
        "num_groups": 0,
        "attributes": [],
        "attribute_ranges": [],
        "label_vectors": [],
        "source": None,
    }
    for name in ("last.ckpt", "previous.ckpt", "best.ckpt"):
        state = torch.load(run / "checkpoints" / name, weights_only=True)
        assert "loops" not in state and not any("_orig_mod" in key for key in state["state_dict"])
    grids = sorted(path.name for path in (run / "samples").iterdir())
    assert grids == ["kimg000000.000.png", "kimg000000.208.png", "reals.png"]
    with Image.open(run / "samples" / "kimg000000.208.png") as grid:
        assert grid.size == (3 * 10 + 2, 10 * 10 + 2), "one row a class"
    lines = entries(run)
    assert [line["kimg"] for line in lines if "loss/d" in line] == [0.064, 0.112, 0.16, 0.208]
    (metrics,) = [line for line in lines if "metrics/fd_digits" in line]
    assert metrics["kimg"] == 0.208 and 0 <= metrics["metrics/accuracy_digits"] <= 1
    assert any("health/diversity" in line for line in lines)
    for name in ("loss/g", "logits/real", "logits/fake", "grad_norm/g", "grad_norm/d"):
        assert all(name in line for line in lines if "loss/d" in line)


def test_a_second_call_has_nothing_to_do(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train()
    before = (run / "checkpoints" / "last.ckpt").read_bytes(), entries(run)
    capsys.readouterr()
    train()
    assert "is trained: it has seen 0.208 kimg" in capsys.readouterr().out
    assert before == ((run / "checkpoints" / "last.ckpt").read_bytes(), entries(run))


def test_longer_training_is_the_same_as_training_long(train: Train) -> None:
    short = train()
    train("total_kimg=0.4")
    straight = train("total_kimg=0.4", name="straight")
    ours, theirs = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        for run in (short, straight)
    )
    for name, value in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], value), name
    assert ours["clock"] == theirs["clock"]


def test_a_changed_configuration_is_reported_key_by_key(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    train()
    capsys.readouterr()
    run = train("total_kimg=0.3", "model.generator_optimizer.lr=1e-5", "regularizer=[r1]")
    out = capsys.readouterr().out
    assert "total_kimg: 0.2 -> 0.3" in out
    assert "model.generator_optimizer.lr: 0.0002 -> 1e-05" in out
    assert "regularizer.r1.weight: absent -> 1.0" in out
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == 1e-5, "the new lr is in force"


def test_another_models_folder(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train()
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    train("model=dcgan", "model.generator.width=4", "model.discriminator.width=4", status=2)
    assert "holds a run of gan_lab.models.gan.GAN" in capsys.readouterr().err
    assert before == (run / "checkpoints" / "last.ckpt").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.generator.width=16", "generator.layers.0.weight has shape (8, 110), not (16, 110)"),
        ("model.generator_optimizer._target_=torch.optim.NAdam", "its optimizer is not NAdam"),
    ],
)
def test_a_checkpoint_that_does_not_fit(
    train: Train, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    run = train()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    extra = ["~model.generator_optimizer.fused"] if "optimizer" in change else []
    train("total_kimg=0.4", change, *extra, status=2)
    err = capsys.readouterr().err
    assert message in err and change.partition("=")[2] in err
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_checkpoint_cut_short_falls_back(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("total_kimg=0.4")
    last = run / "checkpoints" / "last.ckpt"
    whole = torch.load(last, weights_only=True)["state_dict"]
    last.write_bytes(last.read_bytes()[:1000])
    capsys.readouterr()
    train("total_kimg=0.4")
    out = capsys.readouterr().out
    assert "cut short" in out and "previous.ckpt takes its place" in out
    again = torch.load(last, weights_only=True)["state_dict"]
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_no_readable_checkpoint(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    run = train()
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(b"nothing")
    train("total_kimg=0.4", status=2)
    assert "no checkpoint in" in capsys.readouterr().err


def test_init_from_takes_weights_and_nothing_else(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    source = train()
    run = train(
        f"init_from={source}", "total_kimg=0.016", "model.generator_optimizer.lr=0", name="heir"
    )
    ours, theirs = (
        torch.load(r / "checkpoints" / n, weights_only=True)
        for r, n in ((run, "last.ckpt"), (source, "best.ckpt"))
    )
    assert ours["clock"]["images_seen"] == 16
    for name, value in theirs["state_dict"].items():
        if name.startswith("generator."):
            assert torch.equal(ours["state_dict"][name], value), name
    assert "0 new" in capsys.readouterr().out


def test_init_from_another_architecture(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    source = train()
    train(
        "model=wgan_gp",
        "~model.generator.width",
        "~model.discriminator.width",
        f"init_from={source}",
        name="no",
        status=2,
    )
    assert "none of its weights match" in capsys.readouterr().err


def test_divergence_names_the_loss_and_keeps_the_checkpoint(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("total_kimg=0.1")
    train("total_kimg=10", "loss=wasserstein", "model.discriminator_optimizer.lr=1e30", status=2)
    message = capsys.readouterr().err
    assert "training diverged at" in message and "loss/d is" in message
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(
        torch.isfinite(v).all() for v in kept["state_dict"].values() if v.is_floating_point()
    )


def test_all_loggers(train: Train) -> None:
    pytest.importorskip("tensorboard", reason="an extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train("logger=[csv,tensorboard]", "total_kimg=2", "callbacks.training_log.every_kimg=0.5")
    rows = (run / "metrics.csv").read_text().splitlines()
    assert rows[0].startswith("kimg,") and len(rows) == 1 + len(entries(run))
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    kimg = [e.value for e in events.Scalars("kimg")]
    assert kimg == pytest.approx([line["kimg"] for line in entries(run)])
    assert [e.step for e in events.Scalars("kimg")] == [round(value) for value in kimg]
    assert events.Tags()["images"] == ["samples"]


def test_a_folder_of_images(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 256, (12, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    run = train(
        "data=image_folder", f"data.root={tmp_path}/photos", "data.image_size=8", "num_workers=0",
    )  # fmt: skip
    gan = load(run)
    assert gan.class_names == ["cats", "dogs"] and gan.sample(2).shape == (2, 3, 8, 8)
    shutil.rmtree(tmp_path / "photos" / "dogs")
    train(
        "data=image_folder", f"data.root={tmp_path}/photos", "data.image_size=8", "num_workers=0",
        "conditional=true", name="one", status=2,
    )  # fmt: skip
    assert "conditional=true, but the data have one class" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "one").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("modle=gan",), "did you mean model"),
        (("model=dcgn",), "did you mean model/dcgan"),
        (("loss=hing",), "did you mean loss/hinge"),
        (("model.generator.widht=3",), "did you mean width"),
        (("seeds=3",), "did you mean seed"),
        (("lr=3",), "model.generator_optimizer.lr"),
        (("micro_batch_size=5",), "batch_size=16 is not a multiple of micro_batch_size=5"),
        (("data.image_size=50", "model=dcgan"), "set data.image_size=48 or 56"),
        (("total_kimg=0",), "total_kimg=0 must be"),
        (("trainer.devices=0",), "give a number, a list such as [0,2] of GPUs, or auto"),
        (("trainer.strategy=fsdp",), "trainer.strategy=fsdp"),
        (("trainer.devices=100000",), "CPU cores here; set trainer.devices="),
        (("trainer.devices=[0,1]", "trainer=cpu"), "give a number, a list such as [0,2] of GPUs"),
        (("trainer.num_nodes=0",), "trainer.num_nodes=0 must be a whole number of machines"),
        (("trainer.num_nodes=2",), "by srun or by torchrun --nnodes=2 --nproc-per-node=1"),
        (
            ("callbacks.training_log.every_kimg=0",),
            "callbacks.training_log.every_kimg=0 must be positive",
        ),
        (("callbacks.samples.every_kimg=0",), "callbacks.samples.every_kimg=0 must be positive"),
        (
            ("callbacks.evaluation.every_kimg=-1",),
            "callbacks.evaluation.every_kimg=-1 must be positive",
        ),
        (("callbacks.checkpointing.every_kimg=0",), "callbacks.checkpointing.every_kimg=0 must be"),
        (("micro_batch_size=-4",), "micro_batch_size=-4 must be"),
        (("micro_batch_size=0",), "micro_batch_size=0 must be"),
        (("seed=-1",), "seed=-1 must be"),
        (("seed=5000000000",), "seed=5000000000 must be"),
        (("trainer=gpu",), "use trainer=auto or trainer=cpu"),
        (("batch_size=abc",), "batch_size='abc' must be a whole number"),
        (
            ("model.generator_optimizer.lr=fast",),
            "model.generator_optimizer.lr='fast' must be",
        ),
        (("model.generator.width=big",), "model.generator.width='big' must be"),
        (("name=../x",), "name='../x' must be"),
        (("trainer.precision=64-true",), "32, 32-true, bf16-mixed, 16-mixed"),
        (("data=image_folder", "data.root=nowhere"), "data.root=nowhere does not exist"),
    ],
)
def test_bad_input(
    train: Train,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    overrides: tuple[str, ...],
    message: str,
) -> None:
    train(*overrides, status=2, base=ELSE if "data=image_folder" in overrides else TINY)
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "runs").exists(), "nothing is left behind"


NETS = """
from torch import nn
from gan_lab.layers.networks import DiscriminatorNetwork, GeneratorNetwork

class Plain(nn.Linear):
    def __init__(self) -> None:
        super().__init__(8, 64)

class Silent(GeneratorNetwork):
    z_dim = 8

class OwnDiscriminator(DiscriminatorNetwork):
    num_classes = 0
"""


@pytest.mark.parametrize(
    ("generator", "expected"),
    [
        ("Plain", "model.generator: nets_of_mine.Plain is not a gan_lab"),
        ("Silent", "Silent has no num_classes"),
    ],
)
def test_networks_of_a_user(
    generator: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "nets_of_mine.py").write_text(NETS)
    (tmp_path / "model").mkdir()
    own = "  generator: {_target_: nets_of_mine.%s}\n  discriminator: {_target_: nets_of_mine.OwnDiscriminator}\n"
    rest = [f"  {player}_optimizer: ${{sgd}}\n" for player in ("generator", "discriminator")]
    (tmp_path / "model" / "mine.yaml").write_text(
        "# @package _global_\nsgd: {_target_: torch.optim.SGD, _partial_: true, lr: 0.1}\nmodel:\n"
        "  _target_: gan_lab.models.dcgan.DCGAN\n" + own % generator + "".join(rest)
    )
    monkeypatch.syspath_prepend(tmp_path)
    overrides = ["--config-dir", str(tmp_path), "model=mine", "data=random", "data.image_size=8"]
    assert launch("train", [*overrides, f"runs_dir={tmp_path}", "name=x", "metrics=none"]) == 2
    assert expected in capsys.readouterr().err


def test_settings_of_a_regularizer_that_is_not_chosen(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = "{_target_: gan_lab.training.schedules.Linear, start: 1, end: 0, end_kimg: 1}"
    run = train(
        "experiment=quickstart", "regularizer=[r2]", f"+model.schedules.r1.weight='{schedule}'",
        "metrics=none", base=[word for word in ELSE if not word.startswith("model=")],
    )  # fmt: skip
    out = capsys.readouterr().out
    assert "regularizer.r1 is set but not chosen" in out and "model.schedules.r1 is set" in out
    assert list(OmegaConf.load(run / "config.yaml").regularizer) == ["r2"]


@pytest.mark.parametrize("word", ["model.schedules=null", "~model.schedules"])
def test_schedules_of_a_recipe_can_be_left_out(word: str) -> None:
    config = composed("experiment=digits/r3gan", word)
    drop_unchosen(config)
    assert config.model.schedules == {}


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=r3gan", "regularizer.r1_lazy.weight=1"),
        ("model=gat", "++regularizer.r1.weight=1"),
        ("model=dcgan", "+augment.ada.p=1"),
    ],
)
def test_a_key_of_what_is_not_chosen(
    overrides: tuple[str, str], train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    train(overrides[1], "data=digits", "metrics=none", base=[overrides[0]], status=2)
    group, name = overrides[1].lstrip("+").split(".")[:2]
    error = capsys.readouterr().err
    assert overrides[1].lstrip("+") in error and f"{group}={name} is not chosen" in error


def test_metrics_jsonl_is_one_object_a_line(train: Train) -> None:
    for line in (train() / "metrics.jsonl").read_text().splitlines():
        assert isinstance(json.loads(line)["kimg"], float)


def test_a_loader_that_waits_too_long_is_not_a_lost_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(*_: object, **__: object) -> None:
        raise RuntimeError("DataLoader timed out after 300 seconds")

    monkeypatch.setattr("gan_lab.distributed.ranks.several_ranks", lambda: True)
    monkeypatch.setattr("gan_lab.distributed.ranks.get_rank", lambda: 0)
    monkeypatch.setattr("gan_lab.distributed.ranks.get_world_size", lambda: 2)
    trainer: Any = SimpleNamespace(loggers=[], fit=wait)
    nothing: Any = None
    with pytest.raises(InputError, match=r"300 seconds.*num_workers=0"):
        fit(OmegaConf.create({"run_dir": str(tmp_path)}), trainer, nothing, nothing, None)
