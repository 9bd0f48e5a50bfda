"""Published weights: building networks from published arguments and weights, and reading published files.

`open_published` is where a file comes in. `pickles.py` reads it without running code, `READERS` has the module that
translates its names (`stylegan.py`, `biggan.py`, ...), and the `Blueprint` from there builds the networks.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import gan_lab.weights.biggan as biggan
import gan_lab.weights.fastgan as fastgan
import gan_lab.weights.gat as gat
import gan_lab.weights.pickles as pickles
import gan_lab.weights.r3gan as r3gan
import gan_lab.weights.stylegan as stylegan
import gan_lab.weights.wavegan as wavegan
from gan_lab.data.decoding import regular_file
from gan_lab.data.unpickling import DamagedError, Record, RefusedError
from gan_lab.errors import InputError
from gan_lab.weights.blueprint import Blueprint, Blueprints
from gan_lab.weights.exported import NVIDIA
from gan_lab.weights.pickles import STATE_DICT, View, read_torch, to_plain_data

LARGEST_FILE = 8 << 30

ENDINGS = (".pkl", ".pth", ".pt", ".bin")

# arguments of the only published BigGAN-PyTorch weights: ImageNet at 128 pixels, scripts/launch_BigGAN_bs256x8.sh
BIGGAN_128 = {
    "resolution": 128,
    "n_classes": 1000,
    "G_ch": 96,
    "D_ch": 96,
    "dim_z": 120,
    "shared_dim": 128,
    "hier": True,
    "G_shared": True,
    "G_attn": "64",
    "D_attn": "64",
    "SN_eps": 1e-6,
    "BN_eps": 1e-5,
}


Reader = Callable[[Mapping[str, Any], Mapping[str, Any] | None], Blueprints]

# beginning of `source` in a config -> reader
READERS: dict[str, Reader] = {
    "stylegan2-ada networks": stylegan.read,
    "stylegan3 networks": stylegan.read,
    "R3GAN networks": r3gan.read,
    "BigGAN-PyTorch networks": biggan.read,
    "pytorch-pretrained-BigGAN": biggan.read_pretrained,
    fastgan.SOURCE: fastgan.read,
    stylegan.ROSINALITY: stylegan.read_rosinality,
    "projected-gan discriminator": fastgan.read_discriminator,
    "GAT networks": gat.read,
    "WaveGAN networks": wavegan.read,
}


def from_published(
    config: Mapping[str, Any], state: Mapping[str, Any] | None
) -> dict[str, nn.Module]:
    """Build networks from published arguments and weights.

    Args:
        config: `source` (which publication), `generator` and perhaps `discriminator`: constructor arguments by their
            published names.
        state: `"G/<published name>"` and `"D/<published name>"` -> array or tensor; None for random weights.

    Returns:
        {"G": generator, "D": discriminator}, whichever `config` describes, in evaluation mode.
        `generator(z, labels=None) -> samples [N, ...]`, `discriminator(samples, labels=None) -> logits [N]`.

    Raises:
        InputError: for an unknown source, an unsupported argument, or weights that do not match.
    """
    return {name: blueprint.build() for name, blueprint in blueprints(config, state).items()}


def blueprints(config: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprints:
    """Return the blueprints of `from_published`: our classes, their arguments and the weights.

    Raises:
        InputError: for an unknown source or an argument that is not supported.
    """
    source = str(config.get("source", ""))
    for prefix, reader in READERS.items():
        if source.startswith(prefix):
            return reader(config, state)
    raise InputError(f"source={source!r} is unknown; it must begin with one of {list(READERS)}")


@dataclass(frozen=True)
class Published:
    """Contents of files of published weights.

    Attributes:
        config: `source`, `generator`, perhaps `discriminator`, as in `from_published`.
        state: "G_ema/<published name>", "G/..." and "D/..." -> tensor.
        files: names of the files and their SHA-256.
        data_name: name of the training data, if the file has it.
        images_seen: length of training, if the file has it.
    """

    config: Mapping[str, Any]
    state: Mapping[str, Tensor]
    files: Mapping[Path, str]
    data_name: str | None = None
    images_seen: int = 0

    def blueprints(self) -> dict[str, Blueprint]:
        """Return "generator_ema", "generator" (the same if the file has only one) and perhaps "discriminator".

        Raises:
            InputError: for arguments that are not supported.
        """
        networks = {name.partition("/")[0] for name in self.state}
        average = "G_ema" if "G_ema" in networks else "G"
        made = {"generator_ema": self._generator(average)}
        made["generator"] = self._generator("G") if "G" in networks else made["generator_ema"]
        if "D" in networks and "discriminator" in self.config:
            made["discriminator"] = blueprints(self.config, self.state)["D"]
        return made

    def _generator(self, network: str) -> Blueprint:
        prefix = f"{network}/"
        state = {
            f"G/{name.removeprefix(prefix)}": value
            for name, value in self.state.items()
            if name.startswith(prefix)
        }
        config = {name: value for name, value in self.config.items() if name != "discriminator"}
        return blueprints(config, state)["G"]


def open_published(path: Path, *, arguments: Mapping[str, Any] | None = None) -> Published:
    """Read published weights, without running any code in the files.

    Args:
        path: a `.pkl` of StyleGAN2-ADA, StyleGAN3, R3GAN or projected-gan's FastGAN; a `.pt` of rosinality's StyleGAN2;
            a state dict of projected-gan's FastGAN or of `gan-lab export format=nvidia`; `G_ema.pth` of
            BigGAN-PyTorch; `pytorch_model.bin` of pytorch-pretrained-BigGAN, or the folder that it is in.
        arguments: by their published names, instead of those next to the file; for BigGAN only, whose weights have
            none.

    Raises:
        InputError: for a file that is missing, damaged, of another kind, or has suspicious contents.
    """
    path = find_file(path)
    try:
        if path.suffix == ".pkl":
            return open_pickle(path, arguments or {})
        return open_state_dict(path, arguments or {})
    except RefusedError as error:
        raise InputError(
            f"{path} is rejected: {error}. Nothing in it was run; get the published file from its authors"
        ) from error
    except DamagedError as error:
        raise InputError(f"{path} is damaged or of another kind: {error}; copy it again") from error


def find_file(path: Path) -> Path:
    """Return the file of a path, which may be a folder.

    Raises:
        InputError: when it is missing, or has another suffix.
    """
    if path.is_dir():
        inside = [path / name for name in ("pytorch_model.bin", "G_ema.pth")]
        path = next((file for file in inside if file.is_file()), path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a file that ends in {', '.join(ENDINGS)}")
    if path.suffix not in ENDINGS:
        raise InputError(f"{path}: published weights end in {', '.join(ENDINGS)}")
    return path


def contents(path: Path) -> tuple[bytes, str]:
    """Return a file's bytes and their SHA-256.

    Raises:
        InputError: when it cannot be read, or is too large.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(
                f"{path} has more than {LARGEST_FILE >> 30} GiB, no published file does"
            )
        with regular_file(path) as file:
            data = file.read()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return data, hashlib.sha256(data).hexdigest()


def open_pickle(path: Path, arguments: Mapping[str, Any]) -> Published:
    """Read a pickle of networks.

    Raises:
        InputError: for unknown networks, and if arguments are given, since the file has them.
    """
    reject_arguments(path, arguments)
    data, digest = contents(path)
    content = pickles.read_pickle(data)
    config, state = pickles.describe(content)
    seen = content.get("cur_nimg")
    return Published(
        config=config,
        state=state,
        files={path: digest},
        data_name=name_of_data(content.get("training_set_kwargs")),
        images_seen=seen if type(seen) is int and 0 < seen < 1 << 50 else 0,
    )


def name_of_data(data: Any) -> str | None:
    """Return the last part of the path of the training data."""
    path = data.get("path") if isinstance(data, dict) else None
    if not isinstance(path, str):
        return None
    # untrusted text that goes into a config and onto the console
    return re.sub(r"[^\w.+ -]", "_", re.split(r"[/\\]", path.rstrip("/\\"))[-1])[:80]


def open_state_dict(path: Path, arguments: Mapping[str, Any]) -> Published:
    """Read the state dicts of a file of torch.save; rosinality's files have several.

    Raises:
        InputError: for unknown networks.
    """
    files: dict[Path, str] = {}
    content = read_file(path, files)
    if stylegan.is_rosinality(content):
        return open_rosinality(path, content, arguments, files)
    state = state_dict(content)
    if "synthesis.b4.const" in state or "synthesis.input.freqs" in state:
        return open_export(path, state, arguments, files)
    if any(name.endswith("init.init.0.weight_orig") for name in state):
        return open_fastgan(path, state, arguments, files)
    if "generator.gen_z.weight_orig" in state:
        given = {**read_json(path.parent / "config.json", files), **arguments}
        config = {"source": "pytorch-pretrained-BigGAN", "generator": given}
        return Published(config, {f"G/{name}": v for name, v in state.items()}, files)
    if "linear.weight" not in state or "blocks.0.0.conv1.weight" not in state:
        raise InputError(
            f"{path} has no weights of BigGAN, FastGAN or StyleGAN2: they begin with {', '.join(list(state)[:3])}"
        )
    return open_biggan(path, state, arguments, files)


def open_rosinality(
    path: Path, content: Mapping[str, Any], arguments: Mapping[str, Any], files: Mapping[Path, str]
) -> Published:
    """Read a checkpoint of rosinality's StyleGAN2.

    Raises:
        InputError: if arguments are given, since they follow from the weights, and for another network.
    """
    reject_arguments(path, arguments)
    states = {
        ours: state_dict(content[theirs])
        for theirs, ours in stylegan.ROSINALITY_PLAYERS.items()
        if theirs in content
    }
    if isinstance(average := content.get(stylegan.ROSINALITY_AVERAGE), View):
        states["G_ema"][stylegan.ROSINALITY_AVERAGE] = average.tensor()
    sizes = {
        player: {name: tuple(value.shape) for name, value in state.items()}
        for player, state in states.items()
    }
    everything = {
        f"{player}/{name}": value
        for player, state in states.items()
        for name, value in state.items()
    }
    return Published(stylegan.describe_rosinality(sizes), everything, files)


def open_export(
    path: Path,
    state: Mapping[str, Tensor],
    arguments: Mapping[str, Any],
    files: dict[Path, str],
) -> Published:
    """Read weights of `gan-lab export format=nvidia`, with the arguments in a second file.

    Raises:
        InputError: if arguments are given, or the second file is missing.
    """
    reject_arguments(path, arguments)
    config = read_json(path.with_name(NVIDIA["arguments"]), files)
    everything = {f"G/{name}": value for name, value in state.items()}
    beside = path.with_name(NVIDIA["discriminator"])
    if beside.is_file() and "discriminator" in config:
        more = read_state_dict(beside, files)
        everything |= {f"D/{name}": value for name, value in more.items()}
    return Published(config, everything, files)


def open_fastgan(
    path: Path,
    state: Mapping[str, Tensor],
    arguments: Mapping[str, Any],
    files: Mapping[Path, str],
) -> Published:
    """Read a state dict of projected-gan's FastGAN.

    Raises:
        InputError: if arguments are given, since they follow from the weights.
    """
    reject_arguments(path, arguments)
    generator = fastgan.arguments({name: tuple(value.shape) for name, value in state.items()})
    config = {"source": fastgan.SOURCE, "generator": generator}
    return Published(config, {f"G/{name}": value for name, value in state.items()}, files)


def reject_arguments(path: Path, arguments: Mapping[str, Any]) -> None:
    """Check that no arguments are given for a file that needs none.

    Raises:
        InputError: when there are any.
    """
    if arguments:
        raise InputError(f"arguments={dict(arguments)}: {path.name} has its own; leave them out")


def open_biggan(
    path: Path, state: Mapping[str, Tensor], arguments: Mapping[str, Any], files: dict[Path, str]
) -> Published:
    """Read the files next to BigGAN-PyTorch's G_ema.pth: G.pth, D.pth, and the arguments."""
    everything = {f"G_ema/{name}": value for name, value in state.items()}
    if "G_ema" in path.name:
        for player in ("G", "D"):
            beside = path.with_name(path.name.replace("G_ema", player))
            if beside.is_file():
                more = read_state_dict(beside, files)
                everything |= {f"{player}/{name}": value for name, value in more.items()}
    given = biggan_arguments(path, files) | dict(arguments)
    # the training script saves both depths, whichever network is trained
    deep = "blocks.0.0.conv3.weight" in state
    depth = {"G_depth": given.get("G_depth", 2)} if deep else {}
    generator = {name: v for name, v in given.items() if name not in ("G_depth", "D_depth")} | depth
    config: dict[str, Any] = {"source": "BigGAN-PyTorch networks", "generator": generator}
    if any(name.startswith("D/") for name in everything):
        depth = {"D_depth": given.get("D_depth", 2)} if deep else {}
        config["discriminator"] = {k: v for k, v in generator.items() if k != "G_depth"} | depth
    return Published(config, everything, files)


def biggan_arguments(path: Path, files: dict[Path, str]) -> dict[str, Any]:
    """Return the arguments beside a BigGAN-PyTorch file: its run's state, a JSON, or those of the published network."""
    run = path.with_name(path.name.replace("G_ema", "state_dict"))
    if run != path and run.is_file():
        content = read_file(run, files)
        given = content.get("config") if isinstance(content, dict) else None
        if isinstance(given, dict):
            # activations are modules there; their names stand beside them
            return to_plain_data(
                {k: v for k, v in given.items() if not isinstance(v, Record | View)}
            )
    for beside in (path.with_suffix(".json"), path.with_name("config.json")):
        if beside.is_file():
            return read_json(beside, files)
    return dict(BIGGAN_128)


def read_file(path: Path, files: dict[Path, str]) -> Any:
    """Read a file of torch.save, and note its SHA-256 in `files`."""
    data, files[path] = contents(path)
    return read_torch(data, STATE_DICT)


def read_state_dict(path: Path, files: dict[Path, str]) -> dict[str, Tensor]:
    """Read a file of torch.save that holds tensors by name."""
    return state_dict(read_file(path, files))


def state_dict(content: Any) -> dict[str, Tensor]:
    """Return the tensors by name in a file's contents, or a part of them.

    Raises:
        DamagedError: when there is anything else.
    """
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, View) for name, value in content.items()
    ):
        raise DamagedError("it holds no tensors by name")
    # DistributedDataParallel adds a prefix
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    return {name.removeprefix(prefix): value.tensor() for name, value in content.items()}


def read_json(path: Path, files: dict[Path, str]) -> dict[str, Any]:
    """Read arguments.

    Raises:
        InputError: when there is no such file, or it holds anything else.
    """
    if not path.is_file():
        raise InputError(f"{path} is not there; it has the network's arguments, get it too")
    data, files[path] = contents(path)
    try:
        arguments = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise InputError(f"{path} holds no arguments by name")
    plain: dict[str, Any] = to_plain_data(arguments)
    return plain
