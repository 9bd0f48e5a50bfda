"""Reading projected-gan's FastGAN: both kinds of blocks, with and without classes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gan_lab.errors import InputError
from gan_lab.weights import from_published
from gan_lab.weights.fastgan import arguments
from gan_lab.weights.published import open_published
from tests.helpers.published import below, fastgan_pickle, fixture, state_file


def test_unused_weights_are_dropped() -> None:
    config, state, _ = fixture("fastgan_128")
    names = from_published(config, state)["G"].state_dict()
    assert len(names) == sum(not name.split(".")[1].endswith("_256") for name in state)


def conditional_state(classes: int, rows: int) -> dict[str, np.ndarray]:
    """The fixture's weights under the names of the blocks with classes."""
    _, state, _ = fixture("fastgan_128")
    random = np.random.default_rng(0)
    made = {"G/synthesis.embed.weight": random.normal(size=(rows, 32)).astype("float32")}
    named = {"1": "conv1", "5": "conv2", "3": "bn1", "7": "bn2"}
    for name, value in state.items():
        head, _, rest = name.partition("feat_")
        if not rest:
            made[name] = value
            continue
        block, layer, leaf = rest.split(".")
        place = f"{head}feat_{block}"
        if layer in ("2", "6"):
            made[f"{place}.noise.weight"] = value
        elif leaf.startswith("running"):
            made[f"{place}.{named[layer]}.{leaf.replace('running', 'stored')}"] = value
            for part in ("gain", "bias"):
                linear = f"{place}.{named[layer]}.{part}"
                made[f"{linear}.weight_orig"] = random.normal(size=(len(value), 32))
                made[f"{linear}.weight_u"] = np.ones(len(value)) / len(value) ** 0.5
                made[f"{linear}.weight_v"] = np.ones(32) / 32**0.5
                made[f"{linear}.bias"] = np.zeros(len(value))
        elif layer in ("1", "5"):
            made[f"{place}.{named[layer]}.{leaf}"] = value
    return made


def test_the_class_embedding_is_cut_to_the_number_of_classes() -> None:
    config, _, _ = fixture("fastgan_128")
    config["generator"] |= {"cond": True, "c_dim": 4}
    state = {k: np.asarray(v, "float32") for k, v in conditional_state(4, 1000).items()}
    network = from_published(config, state)["G"]
    assert network.num_classes == 4
    z, labels = torch.randn(2, 32), torch.tensor([3, 0])
    images = network(z, labels)
    assert images.shape == (2, 3, 128, 128)
    vectors = torch.nn.functional.one_hot(labels, 4).float()
    assert torch.equal(network(z, vectors), images)
    assert not torch.equal(network(z, labels.flip(0)), images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"img_resolution": 96}, "img_resolution=96"),
        ({"spam": 1}, "spam not supported"),
        ({"synthesis_kwargs": {"lite": True}}, "missing|unknown|fit"),
        ({"z_dim": 16}, "has shape"),
    ],
)
def test_unsupported_files_are_rejected(change: dict[str, object], message: str) -> None:
    config, state, _ = fixture("fastgan_128")
    config["generator"] |= change
    with pytest.raises(InputError, match=message):
        from_published(config, state)


@pytest.mark.parametrize("pickled", [True, False])
def test_a_file_without_arguments(pickled: bool, tmp_path: Path) -> None:
    """They follow from the shapes; the discriminator of a pickle is ignored."""
    config, state, arrays = fixture("fastgan_128")
    path = tmp_path / ("best_model.pkl" if pickled else "g.pt")
    path.write_bytes(fastgan_pickle() if pickled else state_file(below(state, "G")))
    found = open_published(path)
    assert found.config["generator"].items() >= {
        "z_dim": 32, "img_channels": 3, "img_resolution": 128, "ngf": config["generator"]["ngf"],
    }.items()  # fmt: skip
    made = found.blueprints()
    assert set(made) == {"generator_ema", "generator"}
    network = made["generator_ema"].build()
    z = torch.from_numpy(arrays["in/z"])
    assert torch.equal(network(z), from_published(config, state)["G"](z))


def test_classes_and_rows_without_arguments(tmp_path: Path) -> None:
    state = {k: np.asarray(v, "float32") for k, v in conditional_state(4, 1000).items()}
    sizes = {name: value.shape for name, value in below(state, "G").items()}
    assert arguments(sizes, 4) == {
        **arguments(sizes), "cond": 1, "c_dim": 4, "synthesis_kwargs": {"lite": False},
    }  # fmt: skip
    assert arguments(sizes)["c_dim"] == 1000
    with pytest.raises(InputError, match="FastGAN"):
        arguments({"spam": (1,)})


def test_unknown_weights_are_rejected() -> None:
    config, state, _ = fixture("fastgan_128")
    with pytest.raises(InputError, match="spam"):
        from_published(config, {**state, "G/synthesis.spam": np.zeros(1)})
