"""gan-lab evaluate in several processes: one result, from rank 0."""

import json
import multiprocessing
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_lab.commands.launch import launch
from gan_lab.data.images import save_png
from gan_lab.distributed.processes import free_port
from gan_lab.metrics import extraction
from gan_lab.metrics.features import Extractor
from tests.commands.conftest import short_run
from tests.helpers.sources import textures

Metrics = dict[str, float]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_run(tmp_path_factory)


def as_torchrun(rank: int, port: int, folder: Path, overrides: list[str]) -> None:
    """A process of torchrun: output goes to this file, the number of images seen to another."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    seen = 0
    whole: Callable[..., dict[str, torch.Tensor]] = Extractor.__call__

    def counted(extractor: Any, images: torch.Tensor, outputs: Any) -> dict[str, torch.Tensor]:
        nonlocal seen
        seen += len(images)
        return whole(extractor, images, outputs)

    Extractor.__call__ = counted  # type: ignore[method-assign]
    with (folder / f"{rank}.log").open("w") as log, redirect_stdout(log):
        status = launch("evaluate", overrides)
    (folder / f"{rank}.seen").write_text(str(seen))
    os._exit(status)


def by_two(folder: Path, *overrides: str) -> tuple[Metrics, list[int]]:
    """Evaluate with two processes; return the metrics and the number of images that each has seen."""
    folder.mkdir()
    context, port = multiprocessing.get_context("fork"), free_port()
    given = ["device=cpu", f"out={folder}/all.json", *overrides]
    children = [
        context.Process(target=as_torchrun, args=(rank, port, folder, given)) for rank in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(300)
        assert child.exitcode == 0
    (result,) = json.loads((folder / "all.json").read_text())
    assert result["processes"] == 2
    return metrics(result), [int((folder / f"{rank}.seen").read_text()) for rank in range(2)]


def alone(folder: Path, *overrides: str) -> Metrics:
    folder.mkdir()
    assert launch("evaluate", ["device=cpu", f"out={folder}/all.json", *overrides]) == 0
    (result,) = json.loads((folder / "all.json").read_text())
    assert result["processes"] == 1
    return metrics(result)


def metrics(result: dict[str, Any]) -> Metrics:
    return {metric["key"]: metric["value"] for metric in result["metrics"]}


def check(found: list[Metrics]) -> None:
    """To 1e-6."""
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-6, abs=0)


def test_one_or_two_processes_give_the_same_metrics_and_batches_change_rounding_alone(
    run: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "CHUNK", 64)
    overrides = (
        f"run={run}",
        "protocol=digits",
        "protocol.num_fake=300",
        "protocol.reference_split=null",
    )
    found = [alone(tmp_path / f"one{size}", *overrides, f"batch_size={size}") for size in (8, 100)]
    assert found[0]["fd_digits"] > 0
    for size in (8, 100):
        (own_cache / "features").rename(tmp_path / f"features{size}")
        shared, seen = by_two(tmp_path / f"two{size}", *overrides, f"batch_size={size}")
        assert sum(seen) == 360 + 300 and min(seen) > 200
        assert shared == pytest.approx(found[(8, 100).index(size)], rel=1e-6, abs=0)
        first, second = ((tmp_path / f"two{size}" / f"{rank}.log").read_text() for rank in range(2))
        assert "wrote" in first and "fd_digits" in first
        assert second == "", "the first process speaks for all"
    for other in found[1:]:  # a pixel may round to the next of 256 levels
        assert other == pytest.approx(found[0], rel=1e-2, abs=1e-4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"devices": "devices=2"}, "r.npz does not exist"),
        ({"devices": "devices=0"}, "devices=0"),
        ({"devices": "devices=2", "truncations": "truncations=[1,2]"}, "set plots=true"),
    ],
)
def test_errors_are_reported_before_processes_start(
    run: Path,
    overrides: dict[str, str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gan_lab.distributed.processes.run_on", None)
    given = {"fake": f"run={run}", "protocol": "protocol=kid5k", "real": "real=r.npz", **overrides}
    assert launch("evaluate", ["device=cpu", *given.values()]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_processes_alone(run: Path, tmp_path: Path, own_cache: Path) -> None:
    overrides = ["device=cpu", f"run={run}", "protocol=digits", "protocol.num_fake=100"]
    overrides += ["protocol.reference_split=null", "plots=true", "truncations=[0.5,2]", "devices=2"]
    assert launch("evaluate", [*overrides, f"out={tmp_path}/out/all.json"]) == 0
    results = json.loads((tmp_path / "out" / "all.json").read_text())
    assert [result["fake"]["truncation"] for result in results] == [None, 0.5, 2]
    assert {result["processes"] for result in results} == {2}
    assert (tmp_path / "out" / "truncation.png").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fid_of_one_or_two_processes_in_any_batches(
    inception_file: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FID itself, of Inception with random weights."""
    monkeypatch.setattr(extraction, "CHUNK", 16)
    for name, images in (("fake", textures(40, 1, contrast=0.6)), ("real", textures(44, 0))):
        for i, image in enumerate(images):
            save_png(image, tmp_path / name / f"{i:04d}.png")
    overrides = (f"fake={tmp_path}/fake", f"real={tmp_path}/real", "protocol=fid10k")
    overrides += ("protocol.num_fake=40", "+protocol.metrics.fid.allow_singular=true")
    overrides += (f"protocol.features.weights={inception_file}",)
    found = []
    for size in (4, 16, 64):
        for measure in (alone, by_two):
            here = measure(tmp_path / f"{measure.__name__}{size}", *overrides, f"batch_size={size}")
            found.append(here[0] if isinstance(here, tuple) else here)
            (own_cache / "features").rename(tmp_path / f"features{len(found)}")
    assert found[0]["fid40_full"] > 0
    check(found)
