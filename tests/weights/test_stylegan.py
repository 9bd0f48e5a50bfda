"""Reading StyleGAN2 and StyleGAN3 state dicts completely, with errors for unsupported ones."""

from typing import Any

import numpy as np
import pytest
import torch

from gan_lab.errors import InputError
from gan_lab.models import dcgan, stylegan2, stylegan3
from gan_lab.weights import from_published
from gan_lab.weights.published import blueprints
from gan_lab.weights.stylegan import published_arguments, published_weights
from tests.helpers.published import fixture


@pytest.mark.parametrize("name", ["stylegan2_cond_32", "stylegan3_r_32"])
def test_every_weight_is_read(name: str) -> None:
    config, state = fixture(name)[:2]
    networks = from_published(config, state)
    theirs = sorted(
        float(np.abs(value).sum())
        for key, value in state.items()
        if not key.endswith(("resample_filter", "up_filter", "down_filter"))
    )
    ours = sorted(
        float(value.double().abs().sum())
        for network in networks.values()
        for value in network.state_dict().values()
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("name", ["stylegan2_uncond_32", "stylegan3_t_32"])
def test_without_weights_networks_are_random(name: str) -> None:
    config, _ = fixture(name)[:2]
    networks = from_published(config, None)
    assert set(networks) == {"G", "D"} & {k[0].upper() for k in config if k != "source"}
    generator = networks["G"]
    assert not generator.training
    images = generator(torch.randn(2, generator.z_dim))
    assert images.shape == (2, 3, 32, 32) and images.isfinite().all()
    twin = from_published(config, None)["G"]
    assert not torch.equal(generator.mapping(torch.ones(1, 32)), twin.mapping(torch.ones(1, 32)))


def test_a_stylegan3_discriminator_is_stylegan2s() -> None:
    config, _ = fixture("stylegan3_t_32")[:2]
    config["discriminator"] = fixture("stylegan2_uncond_32")[:2][0]["discriminator"]
    assert from_published(config, None)["D"](torch.randn(2, 3, 32, 32)).shape == (2,)


def test_arguments_of_the_synthesis_network_may_be_nested() -> None:
    config, state = fixture("stylegan2_uncond_32")[:2]
    arguments = config["generator"]
    arguments["synthesis_kwargs"] = {
        name: arguments.pop(name)
        for name in ("channel_base", "channel_max", "num_fp16_res", "conv_clamp")
    }
    z = torch.randn(2, 32)
    nested = from_published(config, state)["G"](z)
    assert torch.equal(nested, from_published(*fixture("stylegan2_uncond_32")[:2])["G"](z))


def test_defaults_are_those_of_the_repository() -> None:
    config, _ = fixture("stylegan2_uncond_32")[:2]
    for name in ("num_fp16_res", "conv_clamp"):
        del config["generator"][name]
    newer = from_published(config, None)["G"]
    config["source"] = "stylegan2-ada networks (stylegan2-ada-pytorch repository)"
    older = from_published(config, None)["G"]
    assert newer.synthesis.blocks[-1].conv1.clamp == 256
    assert older.synthesis.blocks[-1].conv1.clamp is None
    assert newer.synthesis.blocks[-1].dtype == torch.float16
    assert older.synthesis.blocks[-1].dtype is None


def test_an_unknown_source_is_rejected() -> None:
    with pytest.raises(InputError, match="source='a thesis' is unknown"):
        from_published({"source": "a thesis"}, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(fancy=1), "generator: fancy not supported"),
        (lambda a: a["mapping_kwargs"].update(lr_multiplier=1.0), "lr_multiplier=1.0 is not"),
        (lambda a: a.pop("z_dim"), "generator has no z_dim"),
        (lambda a: a.update(w_dim="wide"), "w_dim='wide' should be of type int"),
        (lambda a: a.update(mapping_kwargs=8), "mapping_kwargs=8 should hold"),
    ],
)
@pytest.mark.parametrize("name", ["stylegan2_uncond_32", "stylegan3_t_32"])
def test_unsupported_arguments_are_rejected(name: str, change: Any, message: str) -> None:
    config, state = fixture(name)[:2]
    change(config["generator"])
    with pytest.raises(InputError, match=message):
        from_published(config, state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("G/mapping.fc1.bias"), "1 missing"),
        (lambda s: s.update({"G/mapping.fc9.bias": s["G/mapping.fc1.bias"]}), "1 too many"),
        (lambda s: s.update({"G/w_avg": s["G/mapping.w_avg"]}), r"1 too many \['w_avg'\]"),
        (lambda s: s.update({"G/mapping.w_avg": np.zeros(3)}), r"has shape \(3,\)"),
    ],
)
@pytest.mark.parametrize("name", ["stylegan2_uncond_32", "stylegan3_t_32"])
def test_weights_that_do_not_match_are_rejected(name: str, change: Any, message: str) -> None:
    config, state = fixture(name)[:2]
    change(state)
    with pytest.raises(InputError, match=message):
        from_published(config, state)


NVIDIAS = ["stylegan2_cond_32", "stylegan2_uncond_32", "stylegan3_t_32", "stylegan3_r_32"]


@pytest.mark.parametrize("name", NVIDIAS)
def test_exported_files_equal_the_published_ones(name: str) -> None:
    """Names, filters and arguments of the published files, which hold nothing else."""
    config, state = fixture(name)[:2]
    for player, blueprint in blueprints(config, state).items():
        written = published_weights(blueprint.build())
        published = {
            key.removeprefix(f"{player}/"): value
            for key, value in state.items()
            if key.startswith(f"{player}/")
        }
        assert set(written) == set(published)
        for key, value in published.items():
            np.testing.assert_allclose(written[key].numpy(), value, rtol=1e-5, atol=1e-7)
        key = {"G": "generator", "D": "discriminator"}[player]
        given = published_arguments(blueprint.target, blueprint.arguments)
        for argument, value in config[key].items():
            if isinstance(value, dict):
                assert given[argument].items() >= value.items()
            else:
                assert given[argument] == value
        again = blueprints({"source": config["source"], key: given}, state)[player]
        assert again.arguments == blueprint.arguments


@pytest.mark.parametrize(
    ("kind", "node", "message"),
    [
        (dcgan.Generator, {"image_size": 64}, "dcgan"),
        (stylegan2.Generator, {"image_size": [32, 64], "channels": 3}, "squares"),
        (stylegan2.Generator, {"image_size": 48, "channels": 3}, "4, 8, 16"),
        (stylegan3.Generator, {"image_size": [32, 48], "channels": 3}, "squares"),
    ],
)
def test_options_that_nvidias_classes_do_not_have(
    kind: Any, node: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        published_arguments(kind, node)


def test_a_half_precision_that_they_do_not_know_is_left_out() -> None:
    node = {"image_size": 32, "channels": 3, "num_fp16_res": 2}
    for kind, left in (("float16", 2), ("bfloat16", 0)):
        given = published_arguments(stylegan2.Generator, {**node, "fp16_dtype": kind})
        assert given["num_fp16_res"] == left
