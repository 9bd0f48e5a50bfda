"""metrics.jsonl is the source of truth, and W&B gets the same on a kimg axis under one id."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gan_lab.commands.launch import launch
from gan_lab.loggers import JsonLines, Wandb, has_wandb_key, read_metrics, run_id
from tests.commands.conftest import TINY


def test_rewind_forgets_what_lies_after(tmp_path: Path) -> None:
    logger = JsonLines(run_dir=tmp_path)
    for kimg in (1.0, 2.0, 2.0, 3.0):
        logger.log_metrics({"kimg": kimg, "x": kimg})
    logger.rewind(2.0)
    assert [entry["kimg"] for entry in read_metrics(tmp_path / "metrics.jsonl")] == [1.0, 2.0, 2.0]


def test_a_last_line_that_a_kill_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kimg": 1.0}\n{"kimg": 2.')
    assert read_metrics(path) == [{"kimg": 1.0}]
    JsonLines(run_dir=tmp_path).rewind(5)
    assert path.read_text() == '{"kimg": 1.0}\n'
    path.write_text('{"kimg": 2.\n{"kimg": 1.0}\n')
    with pytest.raises(json.JSONDecodeError):
        read_metrics(path)


def test_the_id_belongs_to_the_run_folder(tmp_path: Path) -> None:
    assert run_id(tmp_path / "a") == run_id(tmp_path / "a") != run_id(tmp_path / "b")


def test_a_key_is_found_in_the_environment_and_in_netrc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not has_wandb_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert has_wandb_key()
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert has_wandb_key()


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


def offline_records(file: Path) -> list[Any]:
    """Read the records of an offline W&B run file, once W&B's own process has written the last one."""
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


def test_wandb_offline_goes_on_under_the_same_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    words = [*TINY, f"runs_dir={tmp_path}", "name=run", "logger=wandb"]
    assert launch("train", [*words, "total_kimg=0.2"]) == 0
    assert launch("train", [*words, "total_kimg=0.4"]) == 0
    run = tmp_path / "run"
    files = sorted((run / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2, "one file a session"
    identity = (run / "wandb_id").read_text()
    kimg: list[float] = []
    for file in files:
        records = offline_records(file)
        assert {r.run.run_id for r in records if r.HasField("run")} == {identity}
        metrics = [r.metric for r in records if r.HasField("metric")]
        axes = [m.step_metric for m in metrics if m.glob_name == "*"]
        assert axes[-1] == "kimg", "the last definition counts"
        rows = [
            {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in r.history.item
            }
            for r in records
            if r.HasField("history")
        ]
        kimg += [row["kimg"] for row in rows if "loss/d" in row]
        grids = [row for row in rows if any(name.startswith("samples") for name in row)]
        assert grids and all("kimg" in row for row in grids)
        assert list(file.parent.rglob("*.png")), "the grid itself is kept"
    assert kimg == [e["kimg"] for e in read_metrics(run / "metrics.jsonl") if "loss/d" in e]


def test_wandb_uploads_no_checkpoint(tmp_path: Path) -> None:
    assert Wandb(run_dir=tmp_path, offline=True)._log_model is False
