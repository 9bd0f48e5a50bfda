"""gan-lab import-weights: published files to run folders, from which images, metrics and training begin."""

import json
import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

import gan_lab
from gan_lab.cli import main
from gan_lab.commands.launch import add_key, launch
from gan_lab.config import build
from gan_lab.data.images import save_png
from tests.helpers.pretrained_biggan import PretrainedBigGAN, description, published
from tests.helpers.published import below, fixture, network_pickle, r3gan_pickle, state_file


def import_weights(path: Path, *overrides: str, status: int = 0) -> Path:
    root = path.parent / "runs"
    assert (
        launch("import-weights", [f"path={path}", "name=x", f"runs_dir={root}", *overrides])
        == status
    )
    return root / "x"


def error(expected: Tensor | np.ndarray, made: Tensor) -> float:
    theirs = torch.as_tensor(expected)
    return float((made - theirs).norm() / theirs.norm())


@pytest.mark.parametrize(
    ("name", "image", "kwargs"),
    [
        ("stylegan2_cond_32", "out/img_const", {"noise": "const"}),
        ("stylegan2_uncond_32", "out/img_const", {"noise": "const"}),
        ("stylegan3_t_32", "out/img", {}),
        ("stylegan3_r_32", "out/img", {}),
    ],
)
@pytest.mark.parametrize("protocol", [3, 4])
def test_nvidias_pickles(
    name: str, image: str, kwargs: dict[str, Any], protocol: int, tmp_path: Path
) -> None:
    """What the published networks computed is what the run folder computes."""
    path, witness = tmp_path / f"{name}.pkl", tmp_path / "it was run"
    path.write_bytes(network_pickle(name, witness, protocol=protocol))
    run = import_weights(path)
    assert not witness.exists()
    _, _, arrays = fixture(name)
    z, c = torch.from_numpy(arrays["in/z"]), torch.from_numpy(arrays["in/c"])
    for weights in ("ema", "raw"):
        generator: Any = gan_lab.load(run, weights=weights).generator
        with torch.no_grad():
            w = generator.mapping(z, c if c.shape[1] else None)
            assert error(arrays[image], generator.synthesis(w, **kwargs)) < 1e-4
    config = OmegaConf.load(run / "config.yaml")
    assert config.provenance.files == {path.name: sha256(path.read_bytes()).hexdigest()}
    assert config.provenance.data == "faces.zip" and config.sample.shape == [3, 32, 32]


def test_the_discriminator_comes_along(tmp_path: Path) -> None:
    path = tmp_path / "faces.pkl"
    path.write_bytes(network_pickle("stylegan2_cond_32", tmp_path / "no"))
    run = import_weights(path)
    _, _, arrays = fixture("stylegan2_cond_32")
    network: nn.Module = build(OmegaConf.load(run / "config.yaml").model.discriminator)
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    prefix = "discriminator."
    network.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )
    with torch.no_grad():
        images, labels = (torch.from_numpy(arrays[k]) for k in ("out/img_const", "in/c"))
        assert error(arrays["out/logits"][:, 0], network.eval()(images, labels)) < 1e-4


def test_r3gan_without_arguments(tmp_path: Path) -> None:
    path = tmp_path / "r3gan.pkl"
    path.write_bytes(r3gan_pickle())
    gan = gan_lab.load(import_weights(path))
    _, _, arrays = fixture("r3gan_cond_32")
    with torch.no_grad():
        made = gan.generator(*(torch.from_numpy(arrays[k]) for k in ("in/z", "in/c")))
    assert error(arrays["out/img"], made) < 1e-4
    assert gan.kimg == 12 and gan.num_classes == 5


@pytest.fixture
def biggan(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """G_ema.pth, D.pth and their arguments, as BigGAN-PyTorch keeps them."""
    config, state, arrays = fixture("biggan_32")
    (tmp_path / "G_ema.pth").write_bytes(state_file(below(state, "G")))
    (tmp_path / "D.pth").write_bytes(state_file(below(state, "D"), zipped=True))
    given = {**config["generator"], **config["discriminator"], "model": "BigGAN", "G_depth": 2}
    run = {"itr": 3, "config": {**given, "G_activation": nn.ReLU(), "batch_size": 50}}
    torch.save(run, tmp_path / "state_dict.pth", _use_new_zipfile_serialization=False)
    return tmp_path / "G_ema.pth", arrays


def check_biggan(run: Path, arrays: dict[str, np.ndarray]) -> None:
    generator = gan_lab.load(run).generator
    with torch.no_grad():
        made = generator(torch.from_numpy(arrays["in/z"]), torch.from_numpy(arrays["in/y"]))
    assert error(arrays["out/img"], made) < 1e-4


def test_biggan_with_its_runs_state(biggan: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, arrays = biggan
    run = import_weights(path)
    check_biggan(run, arrays)
    config = OmegaConf.load(run / "config.yaml")
    assert set(config.provenance.files) == {"G_ema.pth", "D.pth", "state_dict.pth"}
    assert config.model.discriminator._target_ == "gan_lab.models.biggan.Discriminator"


def test_biggan_with_a_json_or_overrides(biggan: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, arrays = biggan
    (path.parent / "state_dict.pth").unlink()
    (path.parent / "D.pth").unlink()
    arguments = fixture("biggan_32")[0]["generator"]
    changed = {**arguments, "G_ch": 4}
    (path.parent / "config.json").write_text(json.dumps(changed))
    check_biggan(import_weights(path, "+arguments.G_ch=8"), arrays)


def test_biggan_without_arguments_is_the_published_one(
    biggan: tuple[Path, dict[str, np.ndarray]], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = biggan
    (path.parent / "state_dict.pth").unlink()
    import_weights(path, status=2)
    assert "weights do not match the arguments" in capsys.readouterr().err


def test_a_folder_of_hugging_faces(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = description()
    state = published(config)
    folder = tmp_path / "biggan-deep-128"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "pytorch_model.bin").write_bytes(state_file(state))
    gan = gan_lab.load(import_weights(folder, "+arguments.truncation=0.4"))
    z, labels = torch.randn(2, 12), torch.tensor([1, 3])
    with torch.no_grad():
        assert (
            error(PretrainedBigGAN(config, state, row=4)(z, labels), gan.generator(z, labels))
            < 1e-4
        )


def test_generate_evaluate_and_init_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "faces.pkl"
    path.write_bytes(network_pickle("stylegan2_cond_32", tmp_path / "no"))
    run = import_weights(path)
    out = capsys.readouterr().out
    assert sha256(path.read_bytes()).hexdigest() in out and "parameters" in out
    assert launch("generate", [f"run={run}", "num_images=2", "classes=all", "format=npz"]) == 0
    made = np.load(run / "generated" / "last_0kimg_ema_seed0" / "images.npz")
    assert made["images"].shape == (10, 32, 32, 3) and made["images"].std() > 1
    # evaluate opens data of the networks' size, of which there are too few
    photos = tmp_path / "photos"
    for i in range(4):
        save_png(torch.randint(256, (3, 40, 40), dtype=torch.uint8), photos / f"{i}.png")
    assert launch("evaluate", [f"run={run}", f"+data.root={photos}"]) == 2
    assert "4 real images for 2048 features" in capsys.readouterr().err
    overrides = [
        "model=stylegan2",
        *(f"model.generator.{k}={v}" for k, v in {"z_dim": 32, "w_dim": 32}.items()),
        "model.generator.mapping_layers=2",
        *(f"model.{p}.channel_base=512" for p in ("generator", "discriminator")),
        *(f"model.{p}.channel_max=32" for p in ("generator", "discriminator")),
        "data=image_folder",
        f"data.root={photos}",
        "data.image_size=32",
        "batch_size=4",
        "total_kimg=0.004",
        "metrics=none",
        f"runs_dir={tmp_path}/runs",
        f"init_from={run}",
        "name=heir",
    ]
    assert launch("train", overrides) == 0
    # and resuming the imported run itself is rejected with a message
    assert launch("train", [*overrides[:-1], "name=x"]) == 2
    assert "holds a run of published weights" in capsys.readouterr().err


def test_an_existing_folder_is_not_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "faces.pkl"
    path.write_bytes(network_pickle("stylegan3_t_32", tmp_path / "no"))
    run = import_weights(path)
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    import_weights(path, status=2)
    assert "exists; choose another name=" in capsys.readouterr().err
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.pkl", None, "none.pkl does not exist; give a file that ends in .pkl"),
        ("faces.zip", b"", "published weights end in .pkl, .pth, .pt, .bin"),
        ("faces.pkl", b"", "faces.pkl is damaged or of another kind"),
        (
            "faces.pkl",
            b"(S'touch x'\nios\nsystem\n.",
            "faces.pkl is rejected: it uses the instruct",
        ),
        ("faces.pkl", b"cdnnlib.tflib.network\nNetwork\n.", "was made with TensorFlow"),
        ("G_ema.pth", b"no", "G_ema.pth is damaged or of another kind"),
        ("G_ema.pth", state_file({"fc.weight": np.zeros(1)}), "no weights of BigGAN"),
        ("model.bin", state_file({"generator.gen_z.weight_orig": np.zeros(1)}), "config.json is"),
    ],
)
def test_bad_files(
    name: str,
    content: bytes | None,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    run = import_weights(path, status=2)
    assert message in capsys.readouterr().err
    assert not run.exists()


def test_arguments_of_a_pickle_are_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "faces.pkl"
    path.write_bytes(network_pickle("stylegan3_t_32", tmp_path / "no"))
    import_weights(path, "+arguments.z_dim=3", status=2)
    assert "faces.pkl has its own; leave them out" in capsys.readouterr().err


def test_a_path_needs_no_key(tmp_path: Path) -> None:
    path = tmp_path / "it's a [face], {1}.pkl"
    path.write_bytes(network_pickle("stylegan3_t_32", tmp_path / "no"))
    with pytest.raises(SystemExit) as caught:
        main(["import-weights", str(path), "name=x", f"runs_dir={tmp_path}/runs"])
    assert caught.value.code == 0 and (tmp_path / "runs" / "x" / "config.yaml").exists()


def test_only_words_without_a_key_get_one() -> None:
    assert add_key(["a.pkl", "name=x", "--help"], "path") == ["path='a.pkl'", "name=x", "--help"]
    assert add_key(["a.pkl"], None) == ["a.pkl"]


@pytest.mark.parametrize("what", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_waited_for(
    tmp_path: Path, what: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    what(tmp_path / "faces.pkl")
    assert not import_weights(tmp_path / "faces.pkl", status=2).exists()
    assert "faces.pkl" in capsys.readouterr().err
