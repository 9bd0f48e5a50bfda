"""Hugging Face's BigGAN-deep layout, against its equations written down once more in plain functions of tensors."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, linear, max_pool2d, normalize, relu

from gan_lab.errors import InputError
from gan_lab.interop.readers import blueprints, from_published

MULTIPLES = {
    128: [16, 16, 8, 4, 2, 1],
    256: [16, 16, 8, 8, 4, 2, 1],
    512: [16, 16, 8, 8, 4, 2, 1, 1],
}
EPS = 1e-4
STATS = 11


def description(size: int = 128, width: int = 4) -> dict[str, Any]:
    multiples = MULTIPLES[size]
    layers = [
        [doubles, multiples[i], multiples[i + 1] if doubles else multiples[i]]
        for i in range(len(multiples) - 1)
        for doubles in (False, True)
    ]
    return {
        "output_dim": size,
        "z_dim": 12,
        "class_embed_dim": 12,
        "channel_width": width,
        "num_classes": 5,
        "layers": layers,
        "attention_layer_position": 8,
        "eps": EPS,
        "n_stats": STATS,
    }


def published(config: dict[str, Any]) -> dict[str, Tensor]:
    """Random weights under the published names; spectral norm's vectors are one step from random ones."""
    state: dict[str, Tensor] = {}
    width, condition = config["channel_width"], 2 * config["z_dim"]

    def normed(name: str, *shape: int, bias: bool = True) -> None:
        weight = torch.randn(shape)
        rows = weight.flatten(1)
        v = normalize(rows.T @ torch.randn(shape[0]), dim=0, eps=EPS)
        state[f"{name}.weight_orig"] = weight
        state[f"{name}.weight_u"] = normalize(rows @ v, dim=0, eps=EPS)
        state[f"{name}.weight_v"] = v
        if bias:
            state[f"{name}.bias"] = torch.randn(shape[0]) * 0.1

    def stats(name: str, size: int) -> None:
        state[f"{name}.running_means"] = torch.randn(STATS, size) * 0.1
        state[f"{name}.running_vars"] = torch.rand(STATS, size) + 0.5

    state["embeddings.weight"] = torch.randn(config["z_dim"], config["num_classes"])
    normed("generator.gen_z", 4 * 4 * 16 * width, condition)
    index = 0
    for i, (_, before, after) in enumerate(config["layers"]):
        wide, narrow = before * width, before * width // 4
        if i == config["attention_layer_position"]:
            name = f"generator.layers.{index}"
            state[f"{name}.gamma"] = torch.tensor([0.7])
            for part, size in (("theta", wide // 8), ("phi", wide // 8), ("g", wide // 2)):
                normed(f"{name}.snconv1x1_{part}", size, wide, 1, 1, bias=False)
            normed(f"{name}.snconv1x1_o_conv", wide, wide // 2, 1, 1, bias=False)
            index += 1
        name = f"generator.layers.{index}"
        sizes = [(wide, narrow, 1), (narrow, narrow, 3), (narrow, narrow, 3)]
        for j, (inputs, outputs, side) in enumerate([*sizes, (narrow, after * width, 1)]):
            stats(f"{name}.bn_{j}", inputs)
            for part in ("scale", "offset"):
                normed(f"{name}.bn_{j}.{part}", inputs, condition, bias=False)
            normed(f"{name}.conv_{j}", outputs, inputs, side, side)
        index += 1
    stats("generator.bn", width)
    state["generator.bn.weight"], state["generator.bn.bias"] = torch.rand(2, width) + 0.5
    normed("generator.conv_to_rgb", width, width, 3, 3)
    return state


class Published:
    """The generator as its repository describes it, one function a kind of layer."""

    def __init__(self, config: dict[str, Any], state: dict[str, Tensor], row: int) -> None:
        self.config, self.state, self.row = config, state, row

    def weight(self, name: str) -> Tensor:
        weight = self.state[f"{name}.weight_orig"]
        u, v = self.state[f"{name}.weight_u"], self.state[f"{name}.weight_v"]
        return weight / (u @ weight.flatten(1) @ v)

    def conv(self, x: Tensor, name: str) -> Tensor:
        weight = self.weight(name)
        return conv2d(x, weight, self.state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    def statistics(self, x: Tensor, name: str) -> Tensor:
        mean = self.state[f"{name}.running_means"][self.row][:, None, None]
        variance = self.state[f"{name}.running_vars"][self.row][:, None, None]
        return (x - mean) / (variance + EPS).sqrt()

    def norm(self, x: Tensor, y: Tensor, name: str) -> Tensor:
        scale, offset = (
            linear(y, self.weight(f"{name}.{part}"))[:, :, None, None]
            for part in ("scale", "offset")
        )
        return self.statistics(x, name) * (1 + scale) + offset

    def attention(self, x: Tensor, name: str) -> Tensor:
        count, channels, height, width = x.shape
        theta, phi, g = (self.conv(x, f"{name}.snconv1x1_{part}") for part in ("theta", "phi", "g"))
        queries = theta.reshape(count, channels // 8, height * width).transpose(1, 2)
        keys = max_pool2d(phi, 2).reshape(count, channels // 8, height * width // 4)
        values = max_pool2d(g, 2).reshape(count, channels // 2, height * width // 4)
        mixed = values @ (queries @ keys).softmax(-1).transpose(1, 2)
        mixed = mixed.reshape(count, channels // 2, height, width)
        return x + self.state[f"{name}.gamma"] * self.conv(mixed, f"{name}.snconv1x1_o_conv")

    def block(self, x: Tensor, y: Tensor, name: str, doubles: bool, outputs: int) -> Tensor:
        residual = x
        for j in range(4):
            residual = relu(self.norm(residual, y, f"{name}.bn_{j}"))
            if j == 1 and doubles:
                residual = interpolate(residual, scale_factor=2)
            residual = self.conv(residual, f"{name}.conv_{j}")
        x = x[:, :outputs]
        return residual + (interpolate(x, scale_factor=2) if doubles else x)

    def __call__(self, z: Tensor, labels: Tensor) -> Tensor:
        width = self.config["channel_width"]
        y = torch.cat([z, self.state["embeddings.weight"].T[labels]], dim=1)
        x = linear(y, self.weight("generator.gen_z"), self.state["generator.gen_z.bias"])
        x = x.reshape(-1, 4, 4, 16 * width).permute(0, 3, 1, 2)
        index = 0
        for i, (doubles, _, outputs) in enumerate(self.config["layers"]):
            if i == self.config["attention_layer_position"]:
                x = self.attention(x, f"generator.layers.{index}")
                index += 1
            x = self.block(x, y, f"generator.layers.{index}", doubles, outputs * width)
            index += 1
        scale, offset = (
            self.state[f"generator.bn.{leaf}"][:, None, None] for leaf in ("weight", "bias")
        )
        x = relu(self.statistics(x, "generator.bn") * scale + offset)
        return self.conv(x, "generator.conv_to_rgb")[:, :3].tanh()


@pytest.fixture(scope="module")
def files() -> tuple[dict[str, Any], dict[str, Tensor]]:
    torch.manual_seed(0)
    config = description()
    return config, published(config)


def load(config: dict[str, Any], state: dict[str, Tensor] | None, **arguments: Any) -> Any:
    named = None if state is None else {f"G/{name}": value for name, value in state.items()}
    source = {"source": "pytorch-pretrained-BigGAN", "generator": {**config, **arguments}}
    return from_published(source, named)["G"]


@pytest.mark.parametrize(("truncation", "row"), [(1.0, 10), (0.4, 4), (0.3, 3)])
def test_parity(
    files: tuple[dict[str, Any], dict[str, Tensor]], truncation: float, row: int
) -> None:
    config, state = files
    z, labels = torch.randn(3, 12), torch.tensor([0, 4, 2])
    with torch.no_grad():
        expected = Published(config, state, row)(z, labels)
        made = load(config, state, truncation=truncation)(z, labels)
    assert made.shape == expected.shape == (3, 3, 128, 128)
    assert expected.std() > 0.1, "a picture that is flat would prove nothing"
    assert (made - expected).norm() / expected.norm() < 1e-4


def test_between_two_truncations_the_statistics_lie_between(
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
        ({"attention_layer_position": 5}, "must follow a layer that doubles"),
        ({"layers": [[True, 16, 8]] * 8}, "layers are not those of BigGAN-deep"),
        ({"output_dim": 130}, "output_dim=130 must be a power of two"),
        ({"output_dim": 64}, "output_dim=64 is not supported"),
        ({"truncation": 0}, "truncation=0.0 must be above 0"),
        ({"n_stats": 20}, "asks for more statistics than the 11"),
        ({"spam": 1}, "spam not supported"),
        ({"num_classes": 6}, "has shape"),
    ],
)
def test_what_does_not_fit_is_named(
    files: tuple[dict[str, Any], dict[str, Tensor]], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load(*files, **change)


def test_weights_of_another_form_are_an_error(
    files: tuple[dict[str, Any], dict[str, Tensor]],
) -> None:
    config, state = files
    with pytest.raises(InputError, match="weights do not fit the arguments"):
        load(config, state | {"generator.gen_z.bias": torch.zeros(7)})
