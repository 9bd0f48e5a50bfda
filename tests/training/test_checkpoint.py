"""Checkpoints are whole or not there, and reading one runs no code of it."""

import pickle
import resource
import signal
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import gan_lab
from gan_lab.commands.launch import launch
from gan_lab.errors import InputError
from gan_lab.training.checkpoint import AtomicCheckpointIO, find_resumable, read
from tests.commands.conftest import TINY

STATE = {"state_dict": {"w": torch.ones(200_000)}, "clock": {"images_seen": 3}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    assert launch("train", [*TINY, "total_kimg=0.1", f"runs_dir={root}", "name=run"]) == 0
    return root / "run"


def test_a_full_disk_leaves_the_old_checkpoint_whole(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(STATE, path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # the kernel refuses what goes beyond, in the middle of the file, as it does on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(InputError, match="the checkpoint before it is whole"):
            AtomicCheckpointIO().save_checkpoint(STATE, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"], "no half file is left"


def test_a_full_disk_during_training(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    words = [*TINY, "total_kimg=0.1", f"runs_dir={tmp_path}", "name=full"]
    assert launch("train", words) == 0
    before = (tmp_path / "full" / "checkpoints" / "last.ckpt").read_bytes()
    monkeypatch.setattr(torch, "save", no_space)
    assert launch("train", [*words, "total_kimg=0.3"]) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert (tmp_path / "full" / "checkpoints" / "last.ckpt").read_bytes() == before


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return (Path.touch, (self.path,))


def test_a_hostile_checkpoint_is_refused_with_nothing_run(tmp_path: Path) -> None:
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
    assert "trying the one before it" in capsys.readouterr().out
    assert read(last)["clock"] == STATE["clock"], "the broken one cannot become the one before"


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
        ("gan_lab.training.checkpoint.torch.load", "is no class of gan_lab"),
        ("gan_lab.training.checkpoint.os.system", "is no class of gan_lab"),
        ("gan_lab.models.dcgan.nn.Linear", "is no class of gan_lab"),
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
        InputError, match=r"is not of the run that .*config\.yaml describes: .* shape"
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
