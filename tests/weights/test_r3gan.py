"""Reading R3GAN's state dicts completely, with errors for unsupported ones."""

from typing import Any

import numpy as np
import pytest
import torch

from gan_lab.errors import InputError
from gan_lab.weights import from_published
from tests.helpers.published import fixture


@pytest.fixture
def published() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return fixture("r3gan_cond_32")[:2]


def test_every_weight_is_read(published: tuple[dict[str, Any], dict[str, np.ndarray]]) -> None:
    config, state = published
    theirs = sorted(
        float(np.abs(value).sum()) for key, value in state.items() if not key.endswith("Kernel")
    )
    ours = sorted(
        float(value.double().abs().sum())
        for network in from_published(config, state).values()
        for value in network.state_dict().values()
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_pickles_names_and_arguments(
    published: tuple[dict[str, Any], dict[str, np.ndarray]],
) -> None:
    config, state = published
    wrapped = {
        key[:2] + "Model." + key[2:] if key[0] == "G" else key: value
        for key, value in state.items()
    }
    arguments = dict(config["generator"])
    classes = arguments.pop("ConditionDimension")
    arguments |= {"c_dim": classes, "img_resolution": 32, "FP16Stages": [-1, -2]}
    network = from_published({**config, "generator": arguments}, wrapped)["G"]
    z, labels = torch.randn(2, 16), torch.tensor([0, 4])
    plain = from_published(config, state)["G"]
    assert torch.equal(network(z, labels), plain(z, labels))


def test_without_classes_and_weights(
    published: tuple[dict[str, Any], dict[str, np.ndarray]],
) -> None:
    config, _ = published
    for player in ("generator", "discriminator"):
        for name in ("ConditionDimension", "ConditionEmbeddingDimension"):
            del config[player][name]
    networks = from_published(config, None)
    images = networks["G"](torch.randn(2, 16))
    assert images.shape == (2, 3, 32, 32) and not networks["G"].training
    assert networks["D"](images).shape == (2,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config, state: state.pop("G/EmbeddingLayer.weight"), "1 missing"),
        (lambda config, state: state.update({"D/Spam": np.zeros(1)}), "Spam is unknown"),
        (lambda config, state: config["generator"].pop("NoiseDimension"), "no NoiseDimension"),
        (lambda config, state: config["generator"].update(KernelSize=5), "KernelSize=5"),
        (lambda config, state: config["generator"].update(Spam=5), "Spam not supported"),
        (lambda config, state: config["generator"].update(NoiseDimension=8), "has shape"),
    ],
)
def test_unsupported_files_are_rejected(
    published: tuple[dict[str, Any], dict[str, np.ndarray]], change: Any, message: str
) -> None:
    config, state = published
    change(config, state)
    with pytest.raises(InputError, match=message):
        from_published(config, state)
