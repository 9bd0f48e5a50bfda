"""Files in the layout of published ones, of the parity fixtures' weights, pickled by stand-ins for their classes."""

import io
import json
import pickle
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gan_lab.weights import from_published

PARITY = Path(__file__).parents[1] / "parity"
BUFFERS = (
    *("w_avg", "noise_const", "resample_filter", "freqs", "phases", "transform", "magnitude_ema"),
    *("up_filter", "down_filter", "Kernel"),
)
SOURCE = "import pathlib\npathlib.Path({!r}).write_text('the source was run')\nclass {}: pass\n"


def fixture(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(config, state, inputs and outputs) of a parity fixture."""
    with np.load(PARITY / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files if key != "config"}
        state = {k.removeprefix("state/"): v for k, v in arrays.items() if k.startswith("state/")}
        config = json.loads(str(file["config"]))
        # large weights follow from their names
        state |= {key: drawn(key, shape) for key, shape in config.get("by_name", {}).items()}
        return config, state, arrays


def drawn(name: str, shape: list[int]) -> np.ndarray:
    """Weights of an output channel of norm about 1, drawn from a seed that is the name's checksum."""
    source = np.random.RandomState(zlib.crc32(name.encode()))
    values = source.standard_normal(shape).astype("float32")
    return values * np.float32(np.prod(shape[1:]) ** -0.5)


class Published:
    """Networks with the weights of a parity fixture, and its inputs and outputs."""

    def __init__(self, name: str) -> None:
        self.config, self.state, self.arrays = fixture(name)
        networks = from_published(self.config, self.state)
        self.generator, self.discriminator = networks["G"], networks.get("D")
        self.z = torch.from_numpy(self.arrays["in/z"])
        key = next((key for key in ("in/y", "in/c") if key in self.arrays), None)
        labels = None if key is None else torch.from_numpy(self.arrays[key])
        self.labels = None if labels is None or labels.shape[-1] == 0 else labels

    def errors(self) -> dict[str, float]:
        """Relative errors of the image, the logits and the squared gradient norms."""
        with torch.no_grad():
            images = self.generator(self.z, self.labels)
        inputs = torch.from_numpy(self.arrays["out/img"]).requires_grad_()
        logits = self.discriminator(inputs, self.labels)
        (gradient,) = torch.autograd.grad(logits.sum(), inputs)
        return {
            "img": relative_error(images, self.arrays["out/img"]),
            "logits": relative_error(logits, self.arrays["out/logits"].flatten()),
            "r1_sqnorm": relative_error(
                gradient.square().sum((1, 2, 3)), self.arrays["out/r1_sqnorm"]
            ),
        }


def relative_error(ours: Tensor, theirs: Tensor | np.ndarray) -> float:
    """norm(ours - theirs) / norm(theirs)."""
    expected = torch.as_tensor(theirs).detach().double()
    return float((ours.detach().double() - expected).norm() / expected.norm())


def stand_in(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name)
    for key, value in content.items():
        value.__module__, value.__qualname__, value.__name__ = name, key, key
        setattr(module, key, value)
    return module


def reconstruct(meta: Any) -> Any:
    raise AssertionError("only its name is pickled")


class EasyDict(dict):
    pass


class Persistent(nn.Module):
    """Pickled as NVIDIA's decorator does: a call with class name, source and state."""

    witness = "unset"

    def __reduce__(self) -> Any:
        kind = "Generator"
        source = SOURCE.format(self.witness, kind)
        meta = {
            "type": "class",
            "version": 6,
            "module_src": source,
            "class_name": kind,
            "state": dict(self.__dict__),
        }
        return reconstruct, (meta,), None


class Plain(nn.Module):
    """Pickled as an object of a class."""


class Fast(nn.Module):
    """The same of another class."""


class Projected(nn.Module):
    """The same of another class."""


@contextmanager
def modules() -> Iterator[None]:
    """Let pickle find the stand-ins under the published names, for writing only."""
    made = {
        "torch_utils": ModuleType("torch_utils"),
        "torch_utils.persistence": stand_in(
            "torch_utils.persistence", _reconstruct_persistent_obj=reconstruct
        ),
        "dnnlib": ModuleType("dnnlib"),
        "dnnlib.util": stand_in("dnnlib.util", EasyDict=EasyDict),
        "pg_modules": ModuleType("pg_modules"),
        "pg_modules.networks_fastgan": stand_in("pg_modules.networks_fastgan", Generator=Fast),
        "pg_modules.discriminator": stand_in(
            "pg_modules.discriminator", ProjectedDiscriminator=Projected
        ),
        "R3GAN": ModuleType("R3GAN"),
        "R3GAN.Networks": stand_in("R3GAN.Networks", Generator=Plain),
    }
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


def tree(kind: type[nn.Module], state: Mapping[str, np.ndarray], **attributes: Any) -> nn.Module:
    """Modules within modules that hold these arrays under these names."""
    root = kind()
    for name, array in state.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, kind())
            child = module._modules[part]
            assert child is not None
            module = child
        tensor = torch.from_numpy(np.array(array))
        if leaf in BUFFERS:
            module.register_buffer(leaf, tensor)
        else:
            module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
        module.weight_gain = 1 / np.sqrt(3)  # a scalar of NumPy, as in NVIDIA's layers
        module.data_type = torch.bfloat16
    for name, value in attributes.items():
        setattr(root, name, value)
    return root


def easy(value: Any) -> Any:
    """Dictionaries as NVIDIA's kind of them."""
    if isinstance(value, dict):
        return EasyDict({name: easy(item) for name, item in value.items()})
    return value


def below(state: Mapping[str, np.ndarray], player: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(f"{player}/"): v for k, v in state.items() if k.startswith(f"{player}/")}


def network_pickle(
    name: str, witness: Path, *, protocol: int = 4, changed: Mapping[str, Any] | None = None
) -> bytes:
    """A snapshot of a fixture's networks; `changed` replaces constructor arguments of the generator."""
    config, state, _ = fixture(name)
    config["generator"] |= changed or {}
    generator = tree(
        Persistent,
        below(state, "G"),
        _init_args=(),
        _init_kwargs=easy(config["generator"]),
    )
    content: dict[str, Any] = {
        "training_set_kwargs": EasyDict(path="/data/${oc.env:HOME}/faces.zip", use_labels=False),
        "G": generator,
        "G_ema": generator,
        "augment_pipe": None,
        "D": None,
    }
    if "discriminator" in config:
        kwargs = easy(config["discriminator"])
        content["D"] = tree(Persistent, below(state, "D"), _init_args=(), _init_kwargs=kwargs)
    with modules():
        Persistent.witness = str(witness)
        return pickle.dumps(content, protocol=protocol)


def r3gan_pickle() -> bytes:
    """R3GAN's networks as plain objects without their arguments."""
    _, state, _ = fixture("r3gan_cond_32")
    wrapped = {f"Model.{name}": array for name, array in below(state, "G").items()}
    content = {
        "G_ema": tree(Plain, wrapped),
        "D": tree(Plain, {f"Model.{k}": v for k, v in below(state, "D").items()}),
        "cur_nimg": 12_000,
        "G_opt_state": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
    }
    with modules():
        return pickle.dumps(content)


def fastgan_pickle() -> bytes:
    """A snapshot of projected-gan: plain objects, whose attributes hold the number of classes."""
    _, state, _ = fixture("fastgan_128")
    generator = tree(Fast, below(state, "G"), c_dim=0, img_resolution=128)
    content = {
        "G": generator,
        "D": tree(Projected, {"feature_network.scratch.weight": np.zeros(3, "float32")}),
        "G_ema": generator,
        "training_set_kwargs": {"path": "/data/pokemon.zip"},
    }
    with modules():
        return pickle.dumps(content)


def state_file(state: Mapping[str, Any], *, zipped: bool = False) -> bytes:
    """A file of torch.save, in its older format or as a zip."""
    file = io.BytesIO()
    tensors = {
        name: value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))
        for name, value in state.items()
    }
    torch.save(tensors, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()
