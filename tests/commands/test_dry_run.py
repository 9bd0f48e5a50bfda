"""gan-lab train dry_run=true: measurements, report, and that nothing is written."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from gan_lab.bench.dry_run import CheckpointSize, Counting, Found, device_gib, moments, times_due
from gan_lab.commands import dry_run
from gan_lab.commands.dry_run import duration, rate, says_out_of_memory
from gan_lab.commands.launch import launch
from gan_lab.config import build
from gan_lab.data.sample import Batch
from gan_lab.training.building import describe_samples
from gan_lab.training.module import AdversarialModule
from gan_lab.training.player import Player
from tests.commands.conftest import ELSE, Train
from tests.helpers.growing import TINY
from tests.helpers.samples import images_of


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, list[str]]]]:
    """Images seen before each training step, and the lazy penalties of the step."""
    taken: list[tuple[int, list[str]]] = []
    plain, one_step = AdversarialModule.training_step, AdversarialModule._step

    def training_step(self: AdversarialModule, batch: Any, batch_idx: int) -> None:
        taken.append((self.images_seen, []))
        plain(self, batch, batch_idx)

    def step(
        self: AdversarialModule, player: Player, batch: Batch, lazy: str | None = None
    ) -> None:
        one_step(self, player, batch, lazy)
        if lazy is not None:
            taken[-1][1].append(lazy)

    monkeypatch.setattr(AdversarialModule, "training_step", training_step)
    monkeypatch.setattr(AdversarialModule, "_step", step)
    yield taken


def test_nothing_is_written_and_the_most_expensive_step_is_taken(
    train: Train,
    steps: list[tuple[int, list[str]]],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    overrides = (
        "regularizer=[r1,r2,gradient_penalty]",
        "regularizer.r1.interval=16",
        "augment=ada",
    )
    train(*overrides, "regularizer.r2.interval=7", "dry_run=true", "total_kimg=1")
    assert not (tmp_path / "runs").exists()
    # at both ends of training, one step to warm up and two to measure
    assert [seen for seen, _ in steps] == [0, 0, 0, 984, 984, 984]
    assert all(due == ["r1", "r2"] for _, due in steps), "both lazy penalties fall together"
    out = " ".join(capsys.readouterr().out.split())
    assert "r1" in out and "x 0.0625" in out and "x 0.143" in out
    for said in (
        "peak memory",
        "GiB in the most expensive step",
        "1 kimg",
        "to the end",
        "for 1 kimg",
    ):
        assert said in out
    assert "5 times:" in out, "evaluations each 0.2 kimg"
    assert "MiB, of which 3 are kept" in out


def test_without_metrics_there_are_no_evaluations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch("train", [*ELSE, "dry_run=true", "total_kimg=1", f"runs_dir={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "to the end" in out and "an evaluation" not in out


def test_a_run_that_has_begun_stays_as_it_is(
    train: Train, steps: list[tuple[int, list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = train()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    steps.clear()
    capsys.readouterr()
    train("total_kimg=1", "dry_run=true")
    assert [seen for seen, _ in steps] == [208] * 3 + [984] * 3
    assert "for 0.792 kimg" in " ".join(capsys.readouterr().out.split())
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    train("dry_run=true", status=2)
    assert "is trained: it has seen 0.208 kimg" in capsys.readouterr().err


def test_a_checkpoint_is_as_large_as_it_says(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    train("dry_run=true")
    out = " ".join(capsys.readouterr().out.split())
    said = float(out.split("a checkpoint ")[1].split()[0]) * 2**20
    run = train()
    # the means since the last entry of the log are a few numbers more or less
    assert said == pytest.approx((run / "checkpoints" / "last.ckpt").stat().st_size, rel=0.03)


def test_networks_that_grow_are_measured_on_the_way(
    train: Train, steps: list[tuple[int, list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    base = ("model=progan", *TINY["progan"], "batch_size=4", "data.image_size=16", "metrics=none")
    train("dry_run=true", base=base)
    assert [seen for seen, _ in steps][::3] == [0, 24, 49, 73, 98, 122, 147, 171, 196]
    assert "at first," in " ".join(capsys.readouterr().out.split())


def test_what_does_not_fit(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dry_run, "device_gib", lambda device: 1e-3)
    monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda path: Free())
    train("dry_run=true")
    out = " ".join(capsys.readouterr().out.split())
    assert "are nearly all or more than the 0.001 GiB" in out
    assert "3 checkpoints take" in out and "choose another runs_dir=" in out

    def exhausted(self: AdversarialModule, batch: Any, batch_idx: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(AdversarialModule, "training_step", exhausted)
    train("dry_run=true", status=2)
    err = capsys.readouterr().err
    assert "out of memory in the most expensive step (CUDA out of memory" in err
    assert "set micro_batch_size=8 or less" in err


class Free:
    free = 10


def test_other_errors_are_not_taken_for_it() -> None:
    assert says_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"))
    assert not says_out_of_memory(RuntimeError("expected m1 and m2 to have the same dtype"))


def test_bytes_are_counted_and_forgotten(tmp_path: Path) -> None:
    state = {"a": torch.arange(10_000.0), "b": [1, "two"]}
    torch.save(state, tmp_path / "state")
    sizes = CheckpointSize()
    sizes.save_checkpoint(state, tmp_path / "nowhere")
    assert sizes.written == pytest.approx((tmp_path / "state").stat().st_size, abs=300)
    assert not (tmp_path / "nowhere").exists()
    assert Counting().write(memoryview(b"12345")) == 5


def test_how_often_something_is_due() -> None:
    """As `AdversarialModule.due` has it: at multiples, and at the end."""
    assert [times_due(0, 1000, e) for e in (0.2, 0.3, 1, 5)] == [5, 4, 1, 1]
    assert times_due(208, 1000, 0.2) == 4
    assert times_due(1000, 1000, 0.3) == 0


def test_a_step_and_its_images(compose: Callable[..., DictConfig]) -> None:
    before = Found(step_seconds=[1.0, 3.0], loading_seconds=0.5)
    assert before.seconds == 2.5
    assert Found(step_seconds=[1.0, 3.0], loading_seconds=0.5, ahead=True).seconds == 2
    assert Found(step_seconds=[1.0, 3.0], loading_seconds=5.0, ahead=True).seconds == 5
    config = compose("model=gan", "batch_size=10", "model.generator.width=2")
    describe_samples(config, images_of([2, 2], channels=1, classes=0))  # fmt: skip
    module = build(config.model, total_images=100)
    assert moments(module, 0) == [0, 90] and moments(module, 95) == [95, 95]
    assert [duration(s) for s in (1.234, 120, 7200, 400_000)] == [
        "1.23 s",
        "2 min",
        "2 h",
        "4.6 days",
    ]
    assert duration(2e-6) == "below 0.01 s"
    assert [rate(r) for r in (0.88, 12.34, 99.96, 10_880.4)] == [
        "0.88 img/s",
        "12.3 img/s",
        "100 img/s",
        "10,880 img/s",
    ]
    assert device_gib(torch.device("cpu")) > 0.1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("callbacks.samples.every_kimg=0", "callbacks.samples.every_kimg=0"),
        ("init_from=runs/nope", "runs/nope"),
        ("+schedules.generator=1", "model.schedules"),
    ],
)
def test_what_training_rejects_is_rejected(
    override: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*ELSE, "total_kimg=0.1", f"runs_dir={tmp_path}", "dry_run=true", override]
    assert launch("train", given) == 2
    assert message in capsys.readouterr().err
