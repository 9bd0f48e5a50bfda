"""Published weights of GAT, https://github.com/hse1032/GAT."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gan_lab.models.gat import MLP_RATIO, Discriminator, Generator
from gan_lab.training.state_dicts import Renames, Translation, part, renamer
from gan_lab.weights.blueprint import MOST_LAYERS, Arguments, Blueprint, Blueprints

IN_BLOCKS: Renames = (
    (r"blocks\.(\d+)\.attn\.(.+)", r"blocks.\1.attention.\2"),
    (r"blocks\.(\d+)\.(mlp|norm1|norm2)\.(.+)", r"blocks.\1.\2.\3"),
)

GENERATOR: Renames = (
    (r"w_avg", r"mapping.w_avg"),
    (r"y_embedder\.embedding_table\.weight", r"mapping.table.weight"),
    (r"latent_embedder\.0\.(.+)", r"mapping.fc0.\1"),
    (r"latent_embedder\.2\.(.+)", r"mapping.fc1.\1"),
    (r"(blocks\.\d+)\.adaLN_modulation\.1\.(.+)", r"synthesis.\1.modulation.\2"),
    (r"final_layers\.(\d+)\.linear\.(.+)", r"synthesis.outputs.\1.linear.\2"),
    (r"final_layers\.(\d+)\.adaLN_modulation\.1\.(.+)", r"synthesis.outputs.\1.modulation.\2"),
    *((theirs, f"synthesis.{ours}") for theirs, ours in IN_BLOCKS),
)

DISCRIMINATOR: Renames = (
    (r"x_embedder\.proj\.(.+)", r"embed.\1"),
    (r"y_embedder\.embedding_table\.weight", r"classes.0.weight"),
    (r"y_embedder\.latent_embedder\.0\.(.+)", r"classes.1.\1"),
    (r"y_embedder\.latent_embedder\.2\.(.+)", r"classes.3.\1"),
    (r"cls_token", r"cls_token"),
    (r"blocks\.(\d+)\.ls_attn", r"blocks.\1.scale1"),
    (r"blocks\.(\d+)\.ls_mlp", r"blocks.\1.scale2"),
    (r"final_layer\.0\.weight", r"norm.weight"),
    (r"final_layer\.1\.(.+)", r"linear.\1"),
    (r"proj\.(.+)", r"head.\1"),
    *IN_BLOCKS,
)

# unused: positions follow from the sizes, and G's patch embedding is multiplied by 0
UNUSED = r"pos_embed|feat_rope\..*"


def read(config: Mapping[str, Any], state: Mapping[str, Any] | None) -> Blueprints:
    """Read the networks that published arguments describe.

    Raises:
        InputError: for arguments that are not supported.
    """
    networks: Blueprints = {}
    if "generator" in config:
        given = Arguments(config["generator"], "generator")
        ours = common(given) | {"z_dim": given.take("latent_size", int, default=64)}
        given.take("z_dims", list, default=None)
        given.take("projector_dim", int, default=2048)
        given.finish()
        translate = renamer(GENERATOR, ignored=rf"{UNUSED}|x_embedder\..*")
        networks["G"] = Blueprint(Generator, ours, part(state, "G"), translate)
    if "discriminator" in config:
        given = Arguments(config["discriminator"], "discriminator")
        ours = common(given) | {
            "label_dim": given.take("cmap_dim", int, default=2048),
            "feature_dim": given.take("z_dims", list, default=[768])[0],
            "feature_hidden": given.take("projector_dim", int, default=2048),
        }
        given.expect("use_cfg", False)
        given.finish()
        networks["D"] = Blueprint(Discriminator, ours, part(state, "D"), discriminator_names())
    return networks


def common(given: Arguments) -> dict[str, Any]:
    """Take the arguments that both networks share."""
    given.expect("mlp_ratio", float(MLP_RATIO))
    given.expect("class_dropout_prob", 0.0)
    given.take("fused_attn", bool, default=True)  # an implementation detail
    given.take("decoder_hidden_size", int, default=768)  # unused
    return {
        "image_size": given.take("input_size", int, default=32),
        "patch": given.take("patch_size", int, default=2),
        "channels": given.take("in_channels", int, default=4),
        "width": given.take("hidden_size", int, default=1152),
        "depth": given.take("depth", int, default=28, most=MOST_LAYERS),
        "heads": given.take("num_heads", int, default=16),
        "num_classes": given.take("num_classes", int, default=1000),
        "qk_norm": given.take("qk_norm", bool, default=False),
    }


def discriminator_names() -> Translation:
    """Return the function that renames D's weights; its patch embedding is a linear layer here."""
    translate = renamer(DISCRIMINATOR, ignored=UNUSED)

    def renamed(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weights = translate(state, own)
        if "embed.weight" in weights:
            weights["embed.weight"] = torch.as_tensor(weights["embed.weight"]).flatten(1)
        return weights

    return renamed
