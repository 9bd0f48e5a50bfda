"""Reading BigGAN-PyTorch's state dicts completely, with errors for unsupported ones."""

from typing import Any

import numpy as np
import pytest
import torch

from gan_lab.errors import InputError
from gan_lab.models import biggan, biggan_deep
from gan_lab.weights import from_published
from tests.helpers.published import fixture


@pytest.mark.parametrize("name", ["biggan_32", "biggan_deep_128"])
def test_every_weight_is_read(name: str) -> None:
    config, state = fixture(name)[:2]
    theirs = sorted(float(np.abs(v).sum()) for k, v in state.items() if not k.endswith("sv0"))
    ours = sorted(
        float(value.double().abs().sum())
        for network in from_published(config, state).values()
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind"), [("biggan_128", biggan), ("biggan_deep_128", biggan_deep)]
)
def test_without_weights_networks_are_random(name: str, kind: Any) -> None:
    config, _ = fixture(name)[:2]
    networks = from_published(config, None)
    assert isinstance(networks["G"], kind.Generator) and not networks["G"].training
    assert isinstance(networks["D"], kind.Discriminator)
    twin = from_published(config, None)["G"]
    assert not torch.equal(networks["G"].embedding.weight, twin.embedding.weight)


def test_arguments_of_a_whole_run_are_taken() -> None:
    """A checkpoint's arguments are all of its command line; and some batch norms hold their statistics deeper."""
    config, state = fixture("biggan_32")[:2]
    plain = from_published(config, state)["G"]
    config["generator"] |= {"batch_size": 50, "num_epochs": 500, "G_nl": "inplace_relu", "G_lr": 1}
    deeper = {
        key.replace(".stored_", ".bn.stored_") if ".bn" in key else key: value
        for key, value in state.items()
    }
    network = from_published(config, deeper)["G"]
    z, labels = torch.randn(2, 20), torch.tensor([0, 9])
    assert torch.equal(network(z, labels), plain(z, labels))


def test_networks_without_a_shared_embedding() -> None:
    config, _ = fixture("biggan_32")[:2]
    config["generator"] |= {"G_shared": False, "hier": False, "shared_dim": 0}
    network = from_published(config, None)["G"]
    assert network.z_dim == 20 and network.embedding is None
    images = network(torch.randn(2, 20), torch.tensor([0, 9]))
    assert images.shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config, state: state.pop("G/shared.weight"), "1 missing"),
        (lambda config, state: state.update({"D/spam": np.zeros(1)}), "1 too many"),
        (lambda config, state: config["generator"].update(G_param="spam"), "G_param='spam'"),
        (lambda config, state: config["discriminator"].update(D_wide=False), "D_wide=False"),
        (lambda config, state: config["generator"].update(G_nl="elu"), "G_nl='elu'"),
        (lambda config, state: config["generator"].update(G_ch=4), "has shape"),
        (lambda config, state: config["generator"].update(hier=False, G_depth=2), "needs hier"),
    ],
)
def test_unsupported_files_are_rejected(change: Any, message: str) -> None:
    config, state = fixture("biggan_32")[:2]
    change(config, state)
    with pytest.raises(InputError, match=message):
        from_published(config, state)
