"""MLflow gets what metrics.jsonl has, under one id for the life of a run folder; training does not need it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_lab.commands.launch import launch
from gan_lab.data.audio import Audio
from gan_lab.data.media import Sheet
from gan_lab.errors import InputError
from gan_lab.training.loggers.files import JsonLogger, read_metrics
from gan_lab.training.loggers.mlflow import MLflow
from tests.commands.conftest import ELSE

CONFIG = {
    "model": {"_target_": "gan_lab.models.gan.GAN", "generator": {"width": 8}},
    "data": {"attribute_ranges": {"5 o'clock shadow": [0, 1]}},
    "seed": 0,
}
IMAGE = torch.zeros(3, 4, 4, dtype=torch.uint8)


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's module, with nothing in the environment."""
    module = pytest.importorskip("mlflow", reason="an extra")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return module


def logger(folder: Path, **settings: Any) -> MLflow:
    run = folder / "run"
    run.mkdir(exist_ok=True)
    return MLflow(run_dir=run, runs_dir=folder, **settings)


def client_of(mlflow: Any, folder: Path) -> Any:
    return mlflow.MlflowClient(f"sqlite:///{folder / '.mlflow' / 'mlflow.db'}")


def points(client: Any, run: str, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run, key)]


def test_a_run_of_two_sessions_is_one_run(mlflow: Any, tmp_path: Path) -> None:
    clip = Audio(rate=8000).media(torch.zeros(1, 80, dtype=torch.int16))
    entries = [{"kimg": k, "metrics/fd_digits": v} for k, v in ((1.0, 3.0), (2.0, 4.0), (3.0, 1.0))]
    file = JsonLogger(run_dir=tmp_path / "run")

    first = logger(tmp_path, group="widths")
    first.log_hyperparams(CONFIG)
    for entry in entries:
        file.log_metrics(entry)
        first.log_metrics(entry)
    first.log_sheet("samples", Sheet(image=IMAGE, media=(), media_type="image/png"), 1.5)
    sound = Sheet(image=IMAGE, media=(clip, clip), media_type="audio/wav")
    first.log_sheet("sounds", sound, 1.5)
    for texts in ((b"one", b"two"), (b"three",)):
        first.log_sheet("texts", Sheet(image=IMAGE, media=texts, media_type="text/plain"), 1.5)
    first.log_advice(["at 1 kimg: lower the rate", "at 2 kimg: stop"], 2.0)
    first.finalize("failed")
    client, run = client_of(mlflow, tmp_path), first.version
    assert client.get_run(run).info.status == "FAILED"

    second = logger(tmp_path, log_model=True)
    second.log_hyperparams(CONFIG | {"seed": 1})
    assert second.version == run and client.get_run(run).info.status == "RUNNING"
    file.rewind(2.0)
    second.rewind(2.0)
    (tmp_path / "run" / "checkpoints").mkdir()
    (tmp_path / "run" / "checkpoints" / "best.ckpt").write_bytes(b"weights")
    second.log_metrics({"kimg": 2.5, "metrics/fd_digits": 2.0})
    second.finalize("success")

    found = client.get_run(run)
    assert found.info.status == "FINISHED" and found.info.run_name == "run"
    tags = found.data.tags
    assert (tags["model"], tags["sweep"]) == ("gan", "widths")
    assert tags["advice"] == "at 1 kimg: lower the rate\nat 2 kimg: stop"
    assert found.data.params["model.generator.width"] == "8"
    assert found.data.params["seed"] == "0", "MLflow changes none"
    assert points(client, run, "metrics/fd_digits") == [(1000, 3), (2000, 4), (3000, 1), (2500, 2)]
    # what lay after the checkpoint does not count
    assert points(client, run, "best/fd_digits")[-2:] == [(2000, 3), (2500, 2)]
    assert points(client, run, "best/fd_digits_kimg")[-1] == (2500, 2.5)

    def names(path: str = "") -> list[str]:
        return [Path(file.path).name for file in client.list_artifacts(run, path)]

    assert "seed: 1" in mlflow.artifacts.load_text(f"{found.info.artifact_uri}/config.yaml")
    assert names("checkpoints") == ["best.ckpt"]
    assert names("sounds/kimg000001.500") == ["0.wav", "1.wav"]
    assert [name for name in names("images") if name.startswith("samples+step+1500")]
    table = json.loads(mlflow.artifacts.load_text(f"{found.info.artifact_uri}/texts.json"))
    assert table["data"] == [[1.5, "one"], [1.5, "two"], [1.5, "three"]]
    assert client.search_experiments(filter_string="name = 'gan_lab'")


def test_a_run_that_another_store_does_not_know_begins_there(mlflow: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mlflow_id").write_text("0" * 32)
    tried = logger(tmp_path)
    tried.log_hyperparams(CONFIG)
    tried.finalize("success")
    assert tried.version != "0" * 32
    assert client_of(mlflow, tmp_path).get_run(tried.version).info.status == "FINISHED"


def test_training_goes_on_without_its_server(
    mlflow: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = logger(tmp_path, tracking_uri="http://127.0.0.1:9")
    tried.log_hyperparams(CONFIG)
    tried.log_metrics({"kimg": 1.0})
    tried.finalize("success")
    out = capsys.readouterr().out.replace("\n", " ")
    assert out.count("MLflow failed") == 1 and "metrics.jsonl has everything" in out
    assert not (tmp_path / ".mlflow").exists()


def test_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gan_lab.training.loggers.mlflow.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"\[mlflow\]"):
        logger(tmp_path)


def test_training_logs_what_metrics_jsonl_has(mlflow: Any, tmp_path: Path) -> None:
    overrides = [*ELSE, f"runs_dir={tmp_path}", "name=run", "logger=mlflow", "total_kimg=0.2"]
    assert launch("train", overrides) == 0
    client, run = client_of(mlflow, tmp_path), (tmp_path / "run" / "mlflow_id").read_text()
    for key in ("loss/d", "health/diversity"):
        ours = read_metrics(tmp_path / "run" / "metrics.jsonl")
        assert points(client, run, key) == [
            (round(e["kimg"] * 1000), e[key]) for e in ours if key in e
        ]
    grids = {Path(one.path).name.split("+")[2] for one in client.list_artifacts(run, "images")}
    assert grids == {"0", "208"}
    assert client.get_run(run).data.params["model.generator.width"] == "8"
