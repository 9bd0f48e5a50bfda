"""Checkpoints are complete or absent, and reading one runs no code."""

import json
import os
import pickle
import resource
import shutil
import signal
import zipfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import gan_lab
from gan_lab.commands.launch import launch
from gan_lab.errors import InputError
from gan_lab.training.checkpoint import (
    FORMAT,
    AtomicCheckpointIO,
    DamagedCheckpointError,
    find_resumable,
    read,
)
from tests.commands.conftest import TINY, short_run

STATE = {"state_dict": {"w": torch.ones(200_000)}, "clock": {"images_seen": 3}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_run(tmp_path_factory)


def test_a_full_disk_leaves_the_old_checkpoint_intact(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(STATE, path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # the kernel rejects what goes beyond, in the middle of the file, as it does on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(
            InputError,
            match=r"last\.ckpt could not be written: .* goes on from .*last\.ckpt",
        ):
            AtomicCheckpointIO().save_checkpoint(STATE, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"], "no half file is left"


def test_a_full_disk_at_the_first_save_mentions_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "no").write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"last\.ckpt could not be written: .*Nothing was saved"):
        AtomicCheckpointIO().save_checkpoint(STATE, tmp_path / "no" / "last.ckpt")


def test_a_full_disk_during_training(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    overrides = [*TINY, "total_kimg=0.1", f"runs_dir={tmp_path}", "name=full"]
    assert launch("train", overrides) == 0
    before = (tmp_path / "full" / "checkpoints" / "last.ckpt").read_bytes()
    monkeypatch.setattr(torch, "save", no_space)
    assert launch("train", [*overrides, "total_kimg=0.3"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert (tmp_path / "full" / "checkpoints" / "last.ckpt").read_bytes() == before


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return (Path.touch, (self.path,))


def test_a_hostile_checkpoint_is_rejected_with_nothing_run(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    torch.save({**STATE, "callbacks": Hostile(proof)}, tmp_path / "a.ckpt")
    (tmp_path / "b.ckpt").write_bytes(pickle.dumps(Hostile(proof)))
    for name in ("a.ckpt", "b.ckpt"):
        with pytest.raises(InputError, match="cannot be read"):
            read(tmp_path / name)
    assert not proof.exists()


def test_something_else_than_a_checkpoint(tmp_path: Path) -> None:
    torch.save({"weights": torch.ones(1)}, tmp_path / "x.ckpt")
    with pytest.raises(InputError, match="not a gan_lab checkpoint"):
        read(tmp_path / "x.ckpt")
    with pytest.raises(InputError, match="there is no checkpoint"):
        read(tmp_path / "y.ckpt")


@pytest.mark.parametrize("length", [0, 10, 1000, -1])
def test_a_file_cut_short_falls_back(
    tmp_path: Path, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("last.ckpt", "previous.ckpt"):
        AtomicCheckpointIO().save_checkpoint(STATE, tmp_path / name)
    last = tmp_path / "last.ckpt"
    last.write_bytes(last.read_bytes()[:length])
    assert find_resumable(tmp_path) == last
    said = capsys.readouterr().out.replace("\n", "")
    assert "previous.ckpt takes its place" in said and "last.ckpt cannot be read" in said
    assert read(last)["clock"] == STATE["clock"], "the broken one cannot become the one before"


def same(ours: object, theirs: object) -> bool:
    if isinstance(theirs, dict):
        return (
            isinstance(ours, dict)
            and ours.keys() == theirs.keys()
            and all(same(ours[key], value) for key, value in theirs.items())
        )
    if isinstance(theirs, torch.Tensor):
        return isinstance(ours, torch.Tensor) and torch.equal(ours, theirs)
    return bool(ours == theirs)


@pytest.mark.parametrize(
    ("bit", "step"), [(3, 5), *(pytest.param(bit, 1, marks=pytest.mark.slow) for bit in range(8))]
)
def test_a_flipped_bit_is_rejected_or_changes_nothing(tmp_path: Path, bit: int, step: int) -> None:
    state = {
        "state_dict": {"w": torch.randn(9), "n": torch.arange(3)},
        "clock": {"images_seen": 3},
        "seconds": 0.5,
    }
    AtomicCheckpointIO().save_checkpoint(state, tmp_path / "whole.ckpt")
    whole = (tmp_path / "whole.ckpt").read_bytes()
    with zipfile.ZipFile(tmp_path / "whole.ckpt") as archive:
        names = {entry.filename for entry in archive.infolist()}
    path = tmp_path / "x.ckpt"
    accepted = 0
    for place in range(0, len(whole), step):
        changed = bytearray(whole)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        try:
            read_back = read(path)
        except DamagedCheckpointError:
            continue
        accepted += 1
        assert same(read_back, state), f"byte {place} of {len(whole)}"
    assert {name.split("/")[-1] for name in names} >= {"data.pkl", "0", "1"}
    # what is left is padding between records, dates and the like, which no checksum covers
    assert accepted < 0.7 * len(whole) / step


@pytest.mark.parametrize("damage", ["flipped", "something else", "no checkpoint of ours"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    run: Path, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    for name in ("previous.ckpt", "best.ckpt"):
        shutil.copy(folder / "last.ckpt", folder / name)
    for name in ("best.ckpt", "last.ckpt"):
        data = bytearray((run / "checkpoints" / "last.ckpt").read_bytes())
        data[data.index(b"data/3") + 200] ^= 4
        (folder / name).unlink()
        if damage == "no checkpoint of ours":
            torch.save({"weights": torch.ones(2)}, folder / name)
        else:
            (folder / name).write_bytes(data if damage == "flipped" else b"hello")
    drawn = gan_lab.load(tmp_path / "run").sample(2)
    assert torch.equal(drawn, gan_lab.load(run, checkpoint="last").sample(2))
    said = capsys.readouterr().out.replace("\n", "")
    assert said.count("takes its place") == 1 and "previous.ckpt takes its place" in said
    with pytest.raises(InputError, match=r"last\.ckpt"):
        gan_lab.load(tmp_path / "run", checkpoint="last")  # this one and no other was requested
    assert find_resumable(folder) == folder / "last.ckpt"
    assert (folder / "last.ckpt").samefile(folder / "previous.ckpt")


def test_a_pipe_instead_of_a_checkpoint_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "last.ckpt")
    with pytest.raises(DamagedCheckpointError, match="is not a file"):
        read(tmp_path / "last.ckpt")


def test_an_empty_folder_has_nothing_to_resume(tmp_path: Path) -> None:
    assert find_resumable(tmp_path) is None


def test_load_gives_the_moving_average(run: Path) -> None:
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for weights, prefix in (("ema", "generator_ema."), ("raw", "generator.")):
        gan = gan_lab.load(run, checkpoint="last", weights=weights)
        for name, value in gan.generator.state_dict().items():
            assert torch.equal(value, state[prefix + name])
    assert gan.sample(3, labels=7, seed=1).shape == (3, 1, 8, 8)
    assert gan.class_names[7] == "7" and gan.kimg == pytest.approx(0.112)
    assert not gan.generator.training


def test_load_of_a_single_file_is_that_of_its_folder(run: Path) -> None:
    ours = gan_lab.load(run / "checkpoints" / "last.ckpt").sample(2)
    assert torch.equal(ours, gan_lab.load(run, checkpoint="last").sample(2))


def test_a_configuration_that_names_other_code(run: Path, tmp_path: Path) -> None:
    config = OmegaConf.load(run / "config.yaml")
    (tmp_path / "checkpoints").symlink_to(run / "checkpoints")
    for target, message in (
        ("os.system", r"would run os\.system, which is not part of gan_lab"),
        ("gan_lab.training.checkpoint.torch.load", "is not a class of gan_lab"),
        ("gan_lab.training.checkpoint.os.system", "is not a class of gan_lab"),
        ("gan_lab.models.dcgan.nn.Linear", "is not a class of gan_lab"),
    ):
        config.model.generator._target_ = target
        OmegaConf.save(config, tmp_path / "config.yaml")
        with pytest.raises(InputError, match=message):
            gan_lab.load(tmp_path)


def test_weights_of_another_configuration(run: Path, tmp_path: Path) -> None:
    config = OmegaConf.load(run / "config.yaml")
    (tmp_path / "checkpoints").symlink_to(run / "checkpoints")
    config.model.generator.width *= 2
    OmegaConf.save(config, tmp_path / "config.yaml")
    with pytest.raises(
        InputError, match=r"does not belong to the run that .*config\.yaml describes: .* shape"
    ):
        gan_lab.load(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"checkpoint": "newest"}, "checkpoints there: best, last"),
        ({"weights": "averaged"}, "must be 'ema' or 'raw'"),
    ],
)
def test_bad_input(run: Path, arguments: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        gan_lab.load(run, **arguments)  # type: ignore[arg-type]


def test_not_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run folder"):
        gan_lab.load(tmp_path)


@pytest.mark.parametrize("number", [None, 1, 3, "2", True, 10**30])
def test_another_format_is_rejected_in_a_line(number: object, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for path in sorted((copy / "checkpoints").glob("*.ckpt")):
        state = torch.load(path, weights_only=True)
        torch.save({**state, "format": number}, path)
        with pytest.raises(InputError, match=f"format .* reads format {FORMAT}"):
            read(path)
    copy = tmp_path / "other"
    shutil.copytree(run, copy)
    text = (copy / "config.yaml").read_text()
    assert f"format: {FORMAT}\n" in text
    line = "" if number is None else f"format: {json.dumps(number)}\n"
    (copy / "config.yaml").write_text(text.replace(f"format: {FORMAT}\n", line))
    with pytest.raises(InputError, match=r"config\.yaml"):
        gan_lab.load(copy)


def test_dangling_links_do_not_restart_training(tmp_path: Path) -> None:
    for name in ("last", "previous"):
        (tmp_path / f"{name}.ckpt").symlink_to(f"/mnt/away/{name}.ckpt")
    with pytest.raises(
        InputError, match=r"last\.ckpt is a link to /mnt/away/last\.ckpt, which is not"
    ):
        find_resumable(tmp_path)


def test_links_to_themselves(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").symlink_to("last.ckpt")
    with pytest.raises(InputError, match=r"is a link to last\.ckpt"):
        find_resumable(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"clock": {}},
        {"clock": {"images_seen": "3"}},
        {"clock": {"images_seen": -1}},
        {"clock": {"images_seen": 10**30}},
        {"clock": {"images_seen": True}},
        {"state_dict": {5: torch.zeros(1)}},
        {"state_dict": {"w": "text"}},
        {"state_dict": {"w": torch.eye(3).to_sparse()}},
        {"callbacks": [1]},
        {"callbacks": {"Checkpointing": 5}},
    ],
)
def test_a_readable_file_that_is_no_checkpoint_gives_way(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    for name, state in (("last", {**STATE, **changed}), ("previous", STATE)):
        torch.save({**state, "format": FORMAT}, tmp_path / f"{name}.ckpt")
    with pytest.raises(DamagedCheckpointError, match="is not a gan_lab checkpoint"):
        read(tmp_path / "last.ckpt")
    assert find_resumable(tmp_path) == tmp_path / "last.ckpt"
    assert read(tmp_path / "last.ckpt")["clock"] == STATE["clock"]


def test_a_bomb_is_not_unpacked_to_be_verified(tmp_path: Path) -> None:
    torch.save({**STATE, "format": FORMAT}, tmp_path / "last.ckpt")
    with zipfile.ZipFile(tmp_path / "last.ckpt", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10_000_000))
    with pytest.raises(DamagedCheckpointError, match="it claims 10,"):
        read(tmp_path / "last.ckpt")
