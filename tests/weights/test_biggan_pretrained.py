"""Hugging Face's BigGAN-deep in our networks, against an independent implementation."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.weights.published import blueprints, from_published
from tests.helpers.pretrained_biggan import MULTIPLES, PretrainedBigGAN, description, published


@pytest.fixture(scope="module")
def files() -> tuple[dict[str, Any], dict[str, Tensor]]:
    torch.manual_seed(0)
    config = description()
    return config, published(config)


def load(config: dict[str, Any], state: dict[str, Tensor] | None, **arguments: Any) -> Any:
    prefixed = None if state is None else {f"G/{name}": value for name, value in state.items()}
    source = {"source": "pytorch-pretrained-BigGAN", "generator": {**config, **arguments}}
    return from_published(source, prefixed)["G"]


@pytest.mark.parametrize(("truncation", "row"), [(1.0, 10), (0.4, 4), (0.3, 3)])
def test_parity(
    files: tuple[dict[str, Any], dict[str, Tensor]], truncation: float, row: int
) -> None:
    config, state = files
    z, labels = torch.randn(3, 12), torch.tensor([0, 4, 2])
    with torch.no_grad():
        expected = PretrainedBigGAN(config, state, row)(z, labels)
        made = load(config, state, truncation=truncation)(z, labels)
    assert made.shape == expected.shape == (3, 3, 128, 128)
    assert expected.std() > 0.1, "an image that is flat would prove nothing"
    assert (made - expected).norm() / expected.norm() < 1e-4


def test_statistics_are_interpolated_between_truncations(
    files: tuple[dict[str, Any], dict[str, Tensor]],
) -> None:
    config, state = files
    mean = load(config, state, truncation=0.43).norm.running_mean
    below, above = state["generator.bn.running_means"][4:6]
    torch.testing.assert_close(mean, 0.7 * below + 0.3 * above)


def test_without_right_vectors_a_step_is_taken(
    files: tuple[dict[str, Any], dict[str, Tensor]],
) -> None:
    """Files of the first PyTorch versions have none; the singular value is then ours, which is nearer the true one."""
    config, state = files
    fewer = {name: value for name, value in state.items() if not name.endswith("weight_v")}
    weight = load(config, fewer).blocks[0].conv2.weight
    true = torch.linalg.matrix_norm(state["generator.layers.0.conv_1.weight_orig"].flatten(1), 2)
    sigma = state["generator.layers.0.conv_1.weight_orig"][0, 0, 0, 0] / weight[0, 0, 0, 0]
    assert 0.5 * true < sigma <= true * (1 + 1e-5)


@pytest.mark.parametrize("size", MULTIPLES)
def test_published_sizes(size: int) -> None:
    """config.json of the files of 128, 256 and 512 pixels."""
    layers = description(size)["layers"]
    config = {"output_dim": size, "layers": layers, "attention_layer_position": 8}
    source = {"source": "pytorch-pretrained-BigGAN", "generator": config}
    blueprint = blueprints(source, None)["G"]
    with torch.device("meta"):
        network = blueprint.target(**blueprint.arguments)
    assert blueprint.arguments["attention"] == [64] and blueprint.arguments["depth"] == 2
    assert network.to_image.weight.shape == (128, 128, 3, 3)
    assert network.coarsest[0] << len(network.blocks) // 2 == size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_embed_dim": 8}, "class_embed_dim=8 is not supported"),
        ({"attention_layer_position": 5}, "must follow an upsampling layer"),
        ({"layers": [[True, 16, 8]] * 8}, "layers are not those of BigGAN-deep"),
        ({"output_dim": 130}, "output_dim=130 must be a power of two"),
        ({"output_dim": 64}, "output_dim=64 is not supported"),
        ({"truncation": 0}, "truncation=0.0 must be above 0"),
        ({"n_stats": 20}, "larger than the number of statistics, 11"),
        ({"spam": 1}, "spam not supported"),
        ({"num_classes": 6}, "has shape"),
    ],
)
def test_unsupported_files_are_rejected(
    files: tuple[dict[str, Any], dict[str, Tensor]], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load(*files, **change)


def test_weights_of_another_shape_are_an_error(
    files: tuple[dict[str, Any], dict[str, Tensor]],
) -> None:
    config, state = files
    with pytest.raises(InputError, match="weights do not match the arguments"):
        load(config, state | {"generator.gen_z.bias": torch.zeros(7)})
