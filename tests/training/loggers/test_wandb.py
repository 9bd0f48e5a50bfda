"""W&B gets what metrics.jsonl has, under one id for the life of a run folder; training does not need it."""

import json
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gan_lab.commands.launch import launch
from gan_lab.data.audio import Audio
from gan_lab.data.media import Sheet
from gan_lab.training.building import describe_samples
from gan_lab.training.loggers import node_names
from gan_lab.training.loggers.files import read_metrics
from gan_lab.training.loggers.wandb import Wandb, has_wandb_key, run_id
from tests.commands.conftest import ELSE, TINY
from tests.helpers.samples import images_of
from tests.helpers.wandb_server import Server, online

__all__ = ["online"]

CONFIG = {"model": {"generator": {"width": 8}}, "seed": 0}


def test_the_id_belongs_to_the_run_folder(tmp_path: Path) -> None:
    assert run_id(tmp_path / "a") == run_id(tmp_path / "a") != run_id(tmp_path / "b")


def test_an_agent_of_a_sweep_brings_the_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    assert run_id(tmp_path / "alone") != "given"
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    assert run_id(tmp_path / "sweep") == "given"
    monkeypatch.setenv("WANDB_RUN_ID", "another")
    assert run_id(tmp_path / "sweep") == "given"


def test_a_key_is_found_in_the_environment_and_in_netrc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not has_wandb_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert has_wandb_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
    assert not has_wandb_key(), "that key is of another server"
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert has_wandb_key()


def test_tags_are_the_names_of_model_data_and_loss(compose: Callable[..., Any]) -> None:
    from omegaconf import OmegaConf

    config = compose("model=wgan_gp", "loss=hinge", "data=image_folder")
    describe_samples(config, images_of([8, 8], channels=1, classes=0))
    node = {name: OmegaConf.to_container(config[name]) for name in ("model", "data", "loss")}
    assert node_names(node) == {"model": "wgan_gp", "data": "imagefolder", "loss": "hinge"}
    assert node_names({"model": {}, "loss": None}) == {}


def chunks(file: Path) -> Iterator[bytes]:
    """Yield the records of a W&B file: LevelDB's log format, blocks of 32 KiB behind a header of 7 bytes."""
    data, block = file.read_bytes(), 32 * 1024
    position, record = 7, b""
    while position + 7 <= len(data):
        if block - position % block < 7:
            position += block - position % block
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def written_records(file: Path) -> list[Any]:
    """Read the records of a W&B run file, once W&B's own process has written the last one."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    for _ in range(300):
        try:
            records = [Record.FromString(chunk) for chunk in chunks(file)]
        except DecodeError:  # in the middle of a record
            records = []
        if any(r.HasField("exit") for r in records):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{file} was not finished in 30 seconds")


def name_of(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


def rows_of(records: list[Any]) -> list[dict[str, Any]]:
    return [
        {name_of(item): json.loads(item.value_json) for item in r.history.item}
        for r in records
        if r.HasField("history")
    ]


def summary_of(records: list[Any]) -> dict[str, Any]:
    return {
        name_of(item): json.loads(item.value_json)
        for r in records
        if r.HasField("summary")
        for item in r.summary.update
    }


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two sessions, of a sweep."""
    root = tmp_path_factory.mktemp("runs")
    overrides = [
        *TINY,
        f"runs_dir={root}",
        "name=run",
        "logger=[wandb,tensorboard]",
        "sweep=widths",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_MODE", raising=False)
        assert launch("train", [*overrides, "total_kimg=0.2"]) == 0
        assert launch("train", [*overrides, "total_kimg=0.4", "logger.wandb.log_model=true"]) == 0
    return root / "widths" / "run"


@pytest.fixture(scope="module")
def sessions(offline: Path) -> list[list[Any]]:
    files = sorted((offline / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2, "one file a session"
    return [written_records(file) for file in files]


def test_it_goes_on_under_the_same_id(offline: Path, sessions: list[list[Any]]) -> None:
    identity = (offline / "wandb_id").read_text()
    for records in sessions:
        assert {r.run.run_id for r in records if r.HasField("run")} == {identity}


def test_kimg_is_the_axis_and_nothing_is_there_twice(
    offline: Path, sessions: list[list[Any]]
) -> None:
    for records in sessions:
        metrics = [r.metric for r in records if r.HasField("metric")]
        assert [m.step_metric for m in metrics if m.glob_name == "*"] == ["kimg"]
    rows = [row for records in sessions for row in rows_of(records)]
    assert all("kimg" in row for row in rows)
    ours = read_metrics(offline / "metrics.jsonl")
    for key in ("loss/d", "metrics/fd_digits", "health/diversity"):
        theirs = [(row["kimg"], row[key], row["time/total_s"]) for row in rows if key in row]
        assert theirs == [(e["kimg"], e[key], e["time/total_s"]) for e in ours if key in e] != []


def test_the_configuration_is_a_tree(sessions: list[list[Any]]) -> None:
    (run, *_) = [r.run for r in sessions[0] if r.HasField("run")]
    config = {name_of(item): json.loads(item.value_json) for item in run.config.update}
    assert config["model"]["generator"]["width"] == 8
    assert config["model"]["generator"]["_target_"] == "gan_lab.models.gan.Generator"
    assert config["seed"] == 0 and config["data"]["image_size"] == 8
    assert list(run.tags) == ["gan", "digits", "nonsaturating"]
    assert run.run_group == "widths"


def test_grids_are_kept(offline: Path, sessions: list[list[Any]]) -> None:
    folders = sorted((offline / "wandb").glob("offline-run-*"))
    for folder, records in zip(folders, sessions, strict=True):
        grids = [row for row in rows_of(records) if "samples._type" in row]
        assert grids
        for row in grids:
            assert row["samples._type"] == "image-file"
            assert (folder / "files" / row["samples.path"]).is_file()


def test_the_summary_has_the_best_of_all_sessions(offline: Path, sessions: list[list[Any]]) -> None:
    entries = [e for e in read_metrics(offline / "metrics.jsonl") if "metrics/fd_digits" in e]
    assert len(entries) == 2
    for key, choose in (("fd_digits", min), ("accuracy_digits", max)):
        best = choose(entries, key=lambda entry: entry[f"metrics/{key}"])
        summary = summary_of(sessions[1])
        assert summary[f"best/{key}"] == best[f"metrics/{key}"]
        assert summary[f"best/{key}_kimg"] == best["kimg"]
    assert not any(name.startswith("best/") and "_se" in name for name in summary)


def test_a_checkpoint_is_uploaded_when_requested(sessions: list[list[Any]]) -> None:
    logged = [[r.artifact for r in records if r.HasField("artifact")] for records in sessions]
    assert logged[0] == []
    (model,) = logged[1]
    assert model.type == "model" and set(model.aliases) == {"best", "latest"}
    assert {entry.path for entry in model.manifest.contents} == {"best.ckpt", "config.yaml"}


def test_tensorboard_reads_the_same_run(offline: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(offline / "tensorboard"), size_guidance={"images": 0}).Reload()
    entries = read_metrics(offline / "metrics.jsonl")
    for key in ("loss/d", "metrics/fd_digits", "time/total_s"):
        theirs = [event.value for event in found.Scalars(key)]
        assert theirs == pytest.approx([e[key] for e in entries if key in e])
    exact = [event.value for event in found.Scalars("kimg")]
    assert exact == pytest.approx([entry["kimg"] for entry in entries])
    assert len(found.Images("samples")) == len(list((offline / "samples").glob("kimg*.png")))


class Broken:
    """A run that fails from the third row on."""

    def __init__(self, folder: Path) -> None:
        self.dir = str(folder / "wandb" / "run-1" / "files")
        self.id = "broken"
        self.rows = 0
        self.finished: list[int] = []
        self.summary: dict[str, float] = {}

    def define_metric(self, *args: Any, **kwargs: Any) -> None:
        """Accepts anything."""

    def log(self, row: dict[str, Any]) -> None:
        self.rows += 1
        if self.rows > 2:
            raise ConnectionError("the service is gone")

    def finish(self, exit_code: int) -> None:
        self.finished.append(exit_code)


def test_training_goes_on_when_it_fails_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Broken(tmp_path / "run")
    monkeypatch.setattr("wandb.init", lambda **arguments: run)
    overrides = [*ELSE, f"runs_dir={tmp_path}", "total_kimg=0.2"]
    assert launch("train", [*overrides, "name=run", "logger=wandb"]) == 0
    assert run.rows == 3 and run.finished == [0]
    out = capsys.readouterr().out
    assert out.count("W&B failed") == 1 and "the service is gone" in out
    assert f"wandb sync {tmp_path / 'run' / 'wandb' / 'run-1'}" in out
    assert launch("train", [*overrides, "name=alone"]) == 0
    ours, theirs = (
        [[e["kimg"], e.get("loss/d")] for e in read_metrics(tmp_path / name / "metrics.jsonl")]
        for name in ("run", "alone")
    )
    assert ours == theirs


def test_a_server_that_goes_away_costs_no_row(
    tmp_path: Path,
    online: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = Wandb(run_dir=tmp_path / "run")
    logger.log_hyperparams(CONFIG)
    logger.log_metrics({"kimg": 1.0, "metrics/fd_digits": 3.0})
    online.stop()
    logger.log_metrics({"kimg": 2.0, "metrics/fd_digits": 2.0})
    image = torch.zeros(1, 4, 4, dtype=torch.uint8)
    logger.log_sheet("samples", Sheet(image=image, media=(), media_type="image/png"), 2.0)
    logger.finalize("success")
    logger.log_metrics({"kimg": 3.0})
    (file,) = (tmp_path / "run" / "wandb").glob("run-*/*.wandb")
    out = capsys.readouterr().out
    assert out.count("W&B did not get all of this session") == 1
    assert f"wandb sync {file.parent}" in out.replace("\n", "")
    records = written_records(file)
    assert [row["kimg"] for row in rows_of(records)] == [1, 2, 2]
    assert summary_of(records)["best/fd_digits"] == 2


def test_where_it_cannot_be_reached_the_session_is_written_offline(
    tmp_path: Path,
    online: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    online.stop()
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    logger = Wandb(run_dir=tmp_path / "run")
    logger.log_hyperparams(CONFIG)
    logger.log_metrics({"kimg": 1.0})
    logger.finalize("success")
    out = capsys.readouterr().out
    assert out.count("W&B cannot be reached") == 1 and "offline-run-*" in out
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert [row["kimg"] for row in rows_of(written_records(file))] == [1]


@pytest.mark.parametrize(
    ("given", "variable", "key", "mode"),
    [
        (None, None, False, "offline"),
        (None, None, True, "online"),
        (None, "disabled", True, None),
        (True, "online", True, "offline"),
        (False, None, False, "online"),
    ],
)
def test_offline_exactly_when_no_key_is_set(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: bool | None,
    variable: str | None,
    key: bool,
    mode: str | None,
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if variable is not None:
        monkeypatch.setenv("WANDB_MODE", variable)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", "secret")
    calls: list[dict[str, Any]] = []

    def init(**arguments: Any) -> SimpleNamespace:
        calls.append(arguments)
        return SimpleNamespace(define_metric=lambda *a, **k: None)

    monkeypatch.setattr("wandb.init", init)
    Wandb(run_dir=tmp_path / "run", offline=given).log_hyperparams(CONFIG)
    assert calls[0]["mode"] == mode and calls[0]["config"] == CONFIG
    assert ("WANDB_MODE" in os.environ) == (variable is not None), "the environment is left alone"


def test_clips_and_texts_are_logged(tmp_path: Path) -> None:
    logger = Wandb(run_dir=tmp_path / "run", offline=True)
    logger.log_hyperparams(CONFIG)
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    clip = Audio(rate=8000).media(torch.zeros(1, 80, dtype=torch.int16))
    sound = Sheet(image=image, media=(clip, clip), media_type="audio/wav")
    logger.log_sheet("samples", sound, 1.0)
    texts = Sheet(image=image, media=(b"one", b"two"), media_type="text/plain")
    logger.log_sheet("texts", texts, 1.0)
    logger.log_advice(["at 1 kimg: a", "at 2 kimg: b"], 2.0)
    logger.finalize("success")
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert summary_of(written_records(file))["advice"] == "at 1 kimg: a\nat 2 kimg: b"
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*/files/media")
    clips = sorted((folder / "audio").glob("*.wav"))
    assert clips
    assert all(one.read_bytes() == clip for one in clips)
    assert len(list((folder / "images").glob("samples*.png"))) == 1
    (table,) = (folder / "table").glob("texts*.json")
    assert json.loads(table.read_text())["data"] == [["one"], ["two"]]
