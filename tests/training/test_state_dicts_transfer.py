"""init_from: transfer to networks of another size or number of classes."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from gan_lab.commands.launch import launch
from gan_lab.config import build
from gan_lab.errors import InputError
from gan_lab.training.checkpoint import AtomicCheckpointIO, write_config
from gan_lab.training.state_dicts import transfer
from gan_lab.weights.loading import open_origin
from tests.helpers.published import network_pickle

MODELS: dict[str, dict[str, Any]] = {
    "stylegan2": {"channel_base": 64, "channel_max": 8},
    "stylegan3": {"channel_base": 256, "channel_max": 8, "num_layers": 6},
    "r3gan": {"widths": 8, "cardinalities": 2, "blocks": 1},
    "biggan": {"width": 4, "attention": [8]},
    "biggan_deep": {"width": 8, "attention": [8]},
    "sngan": {"width": 4},
    "sagan": {"width": 4, "attention": [8]},
    "wgan_gp": {"width": 8},
    "fastgan": {"width": 4},
    "gat": {"depth": 4, "width": 16, "heads": 2, "patch": 4},
    "progan": {"channel_base": 64, "channel_max": 8, "growing": False},
    "dcgan": {"width": 4},
    "lsgan": {"width": 4},
}
# channels by the distance from the image: there is nothing of one resolution to keep
FROM_THE_IMAGE = ("dcgan", "lsgan")
# blocks act on tokens of any number: all of them mean the same for another size
ON_TOKENS = ("gat",)
# what a generator takes and a discriminator of the same model does not
ONLY_G: dict[str, dict[str, Any]] = {
    "stylegan2": {"z_dim": 8, "w_dim": 8, "mapping_layers": 2},
    "stylegan3": {"z_dim": 8, "w_dim": 8},
    "r3gan": {"z_dim": 8, "label_dim": 4},
    # as many numbers for each block, whatever their number
    "biggan": {"shared_dim": 8},
    "biggan_deep": {"z_dim": 8, "shared_dim": 8},
}
# layers that read or write images do so at full size in every network; the constant's module makes the image
AT_THE_IMAGE = (
    "norm",
    "to_image",
    "from_image",
    "torgb",
    "fromrgb",
    "synthesis.const",
    "synthesis.b4.const",
)


def nodes(model: str, size: int, num_classes: int) -> dict[str, Any]:
    common = {"image_size": size, "channels": 1, "num_classes": num_classes, **MODELS[model]}
    for_g = common | ONLY_G.get(model, {})
    if model == "biggan":
        for_g["z_dim"] = 4 * (size.bit_length() - 2)
    of_d, for_d = model, dict(common)
    if model == "stylegan3":
        of_d = "stylegan2"
        for_d.pop("num_layers")
    return {
        "generator": {"_target_": f"gan_lab.models.{model}.Generator", **for_g},
        "discriminator": {"_target_": f"gan_lab.models.{of_d}.Discriminator", **for_d},
    }


class Players(nn.Module):
    """The networks of a run, and state that is not transferred."""

    def __init__(self, model_nodes: dict[str, Any], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.generator = build(model_nodes["generator"])
        self.discriminator = build(model_nodes["discriminator"])
        with torch.no_grad():
            for value in (*self.generator.parameters(), *self.discriminator.parameters()):
                value.add_(0.1 * torch.randn_like(value))  # no two tensors alike
        self.generator_ema = deepcopy(self.generator)
        self.regularizers = nn.ModuleDict({"path_length": nn.BatchNorm1d(1)})
        self.regularizers["path_length"].running_mean.fill_(seed)  # type: ignore[union-attr, operator]


def run_folder(root: Path, model_nodes: dict[str, Any], players: Players) -> Path:
    run = root / "source"
    AtomicCheckpointIO().save_checkpoint(
        {"state_dict": players.state_dict(), "clock": {"images_seen": 0}},
        run / "checkpoints" / "last.ckpt",
    )
    write_config(run, OmegaConf.create({"model": model_nodes}))
    return run


def sizes(network: nn.Module, *inputs: Tensor | None) -> dict[str, int]:
    """The height of what each layer with weights of its own makes."""
    found: dict[str, int] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, given: Any, made: Any) -> None:
            if isinstance(made, Tensor) and made.ndim == 4:
                found[name] = made.shape[2]

        return hook

    handles = [
        module.register_forward_hook(note(name))
        for name, module in network.named_modules()
        if name and "parametrizations" not in name
    ]
    with torch.no_grad():
        network.eval()(*inputs)
    for handle in handles:
        handle.remove()
    return found


def origin(tensor: Tensor, state: dict[str, Tensor]) -> str | None:
    """The name under which a state holds exactly this tensor."""
    if not tensor.is_floating_point() or tensor.numel() < 2 or tensor.std() == 0:
        return None
    found = [n for n, v in state.items() if v.shape == tensor.shape and torch.equal(v, tensor)]
    return found[0] if found else None


def owner(name: str, known: dict[str, int]) -> str | None:
    """The layer of a weight, or the nearest module around it of which a size is known."""
    parts = name.split(".")
    while parts:
        parts.pop()
        if ".".join(parts) in known:
            return ".".join(parts)
    return None


@pytest.mark.parametrize(
    "model", [name for name in MODELS if name not in (*FROM_THE_IMAGE, *ON_TOKENS)]
)
def test_what_is_kept_is_at_its_resolution(model: str, tmp_path: Path) -> None:
    before, after = nodes(model, 16, 3), nodes(model, 32, 3)
    theirs, ours = Players(before, 0), Players(after, 1)
    transfer(ours, open_origin(run_folder(tmp_path, before, theirs)))
    labels = torch.tensor([0, 1])
    at = {
        player: [
            sizes(getattr(p, player), z, labels)
            for p, z in ((theirs, inputs[0]), (ours, inputs[1]))
        ]
        for player, inputs in {
            "generator": [torch.randn(2, p.generator.z_dim) for p in (theirs, ours)],
            "discriminator": [torch.randn(2, 1, size, size) for size in (16, 32)],
        }.items()
    }
    for player, (known, new) in at.items():
        state = getattr(theirs, player).state_dict()
        kept = 0
        for name, tensor in getattr(ours, player).state_dict().items():
            source = origin(tensor, state)
            layer = owner(name, new)
            if source is None or layer is None or name.startswith(AT_THE_IMAGE):
                continue
            there = owner(source, known)
            assert there is not None and known[there] == new[layer], (player, name, source)
            kept += 1
        assert kept >= (2 if model == "stylegan3" and player == "generator" else 4), (player, kept)


@pytest.mark.parametrize("model", ON_TOKENS)
def test_networks_on_tokens_are_kept_completely_for_another_size(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = nodes(model, 16, 3), nodes(model, 32, 3)
    theirs, ours = Players(before, 0), Players(after, 1)
    transfer(ours, open_origin(run_folder(tmp_path, before, theirs)))
    assert capsys.readouterr().out.count("100.0% of the parameters; 0 new") == 3


@pytest.mark.parametrize("model", FROM_THE_IMAGE)
def test_networks_built_from_the_image_inwards(model: str, tmp_path: Path) -> None:
    """The layers next to the image are kept, as many as the smaller network has with that many channels."""
    before, after = nodes(model, 16, 0), nodes(model, 32, 0)
    theirs, ours = Players(before, 0), Players(after, 1)
    transfer(ours, open_origin(run_folder(tmp_path, before, theirs)))
    pairs = list(
        zip(reversed(theirs.generator.layers), reversed(ours.generator.layers), strict=False)
    )
    with_weights = [pair for pair in pairs if isinstance(pair[0], nn.ConvTranspose2d | nn.Conv2d)]
    assert len(with_weights) >= 2
    assert all(torch.equal(old.weight, new.weight) for old, new in with_weights)
    old, new = (p.discriminator.state_dict() for p in (theirs, ours))
    first = "layers.0.weight" if model == "dcgan" else "first.weight"
    assert torch.equal(old[first], new[first])


@pytest.mark.parametrize("model", MODELS)
def test_the_same_network_is_kept_completely(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model_nodes = nodes(model, 16, 3)
    theirs, ours = Players(model_nodes, 0), Players(model_nodes, 1)
    transfer(ours, open_origin(run_folder(tmp_path, model_nodes, theirs)))
    for player in ("generator", "discriminator", "generator_ema"):
        own = getattr(ours, player).state_dict()
        for name, value in getattr(theirs, player).state_dict().items():
            assert torch.equal(own[name], value), name
    assert capsys.readouterr().out.count("100.0% of the parameters; 0 new") == 3
    assert ours.regularizers["path_length"].running_mean.item() == 1, "a regularizer's state is not"


@pytest.mark.parametrize("model", ["stylegan2", "biggan", "sngan", "r3gan", "dcgan"])
def test_another_number_of_classes(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that does not depend on the number of classes is kept, and what does is new and named."""
    before, after = nodes(model, 16, 3), nodes(model, 16, 5)
    theirs, ours = Players(before, 0), Players(after, 1)
    new = {k: v.clone() for k, v in ours.state_dict().items()}
    transfer(ours, open_origin(run_folder(tmp_path, before, theirs)))
    old = theirs.state_dict()
    changed = {name for name, value in old.items() if value.shape != new[name].shape}
    assert changed, "every conditional network has something that depends on the classes"
    for name, value in ours.state_dict().items():
        if not name.startswith("regularizers."):
            assert torch.equal(value, new[name] if name in changed else old[name]), name
    layers = {"stylegan2": "mapping.embed", "r3gan": "embedding", "biggan": "embedding",
             "sngan": "blocks.0", "dcgan": "start.0"}  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert layers[model] in lines[1] and "of the parameters" in lines[1]


def test_a_missing_average_is_the_generator(tmp_path: Path) -> None:
    before, after = nodes("stylegan2", 16, 0), nodes("stylegan2", 32, 0)
    theirs, ours = Players(before, 0), Players(after, 1)
    transfer(ours, open_origin(run_folder(tmp_path, before, theirs)))
    average = ours.generator_ema.state_dict()
    for name, value in ours.generator.state_dict().items():
        assert torch.equal(average[name], value), name


def test_a_generator_without_its_discriminator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = nodes("stylegan2", 16, 0), nodes("stylegan2", 16, 0)
    after["discriminator"] = nodes("dcgan", 16, 0)["discriminator"]
    transfer(Players(after, 1), open_origin(run_folder(tmp_path, before, Players(before, 0))))
    out = capsys.readouterr().out
    assert "generator: kept" in out
    assert "none of the discriminator's weights fits: it starts untrained" in " ".join(out.split())


def test_no_matching_weights_is_an_error(tmp_path: Path) -> None:
    before, after = nodes("dcgan", 16, 0), nodes("stylegan2", 16, 0)
    with pytest.raises(InputError, match="none of its weights match this model"):
        transfer(Players(after, 1), open_origin(run_folder(tmp_path, before, Players(before, 0))))


def test_a_source_runs_no_untrusted_code(tmp_path: Path) -> None:
    model_nodes = nodes("dcgan", 16, 0)
    players = Players(model_nodes, 0)
    hostile = {**model_nodes, "generator": {"_target_": "os.system", "command": "touch x"}}
    with pytest.raises(InputError, match=r"would run os\.system"):
        transfer(players, open_origin(run_folder(tmp_path, hostile, players)))


def test_a_checkpoint_without_a_run_folder_is_matched_by_name(tmp_path: Path) -> None:
    model_nodes = nodes("stylegan2", 16, 0)
    theirs, ours = Players(model_nodes, 0), Players(model_nodes, 1)
    run = run_folder(tmp_path, model_nodes, theirs)
    (run / "config.yaml").unlink()
    transfer(ours, open_origin(run / "checkpoints" / "last.ckpt"))
    assert torch.equal(
        ours.discriminator.blocks[0].conv0.weight, theirs.discriminator.blocks[0].conv0.weight
    )


def test_from_imported_weights_with_frozen_layers(tmp_path: Path) -> None:
    """Freeze-D: the published discriminator's first layers stay as they are while the others learn."""
    path = tmp_path / "faces.pkl"
    path.write_bytes(network_pickle("stylegan2_uncond_32", tmp_path / "no"))
    overrides = [f"path={path}", "name=faces", f"runs_dir={tmp_path}/runs"]
    assert launch("import-weights", overrides) == 0
    widths = [
        f"model.{player}.{name}={value}"
        for player in ("generator", "discriminator")
        for name, value in (("channel_base", 512), ("channel_max", 32))
    ]
    assert (
        launch(
            "train",
            [
                "model=stylegan2",
                *widths,
                "model.generator.z_dim=32",
                "model.generator.w_dim=32",
                "model.discriminator.frozen_layers=4",
                "data.image_size=32",
                "data.channels=3",
                "conditional=false",
                "metrics=none",
                "~callbacks.samples",  # random weights make no images
                "batch_size=4",
                "total_kimg=0.008",
                f"init_from={tmp_path}/runs/faces",
                f"runs_dir={tmp_path}/runs",
                "name=heir",
            ],
        )
        == 0
    )
    source, heir = (
        torch.load(tmp_path / "runs" / name / "checkpoints" / "last.ckpt", weights_only=True)
        for name in ("faces", "heir")
    )
    moved = {
        name.removeprefix("discriminator.").rpartition(".")[0]
        for name, value in source["state_dict"].items()
        if name.startswith("discriminator.") and not torch.equal(value, heir["state_dict"][name])
    }
    # from the image on: what reads it, and the three layers of the first block
    first = ("fromrgb", "conv0", "conv1", "skip")
    assert not moved & {f"b32.{layer}" for layer in first}
    assert {"b16.conv0", "b4.conv", "b4.fc", "b4.out"} <= moved
