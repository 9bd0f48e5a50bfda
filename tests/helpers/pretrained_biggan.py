"""Hugging Face's BigGAN-deep: files in its layout, and its equations in plain functions of tensors."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, linear, max_pool2d, normalize, relu

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


class PretrainedBigGAN:
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
