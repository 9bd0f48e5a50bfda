"""WaveGAN's published networks: their outputs, and errors for unsupported arguments."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.weights import from_published
from tests.helpers.published import fixture

Published = tuple[dict[str, Any], dict[str, np.ndarray], dict[str, np.ndarray]]


@pytest.fixture
def published() -> Published:
    return fixture("wavegan_16384")


def error(ours: Tensor, theirs: np.ndarray) -> float:
    expected = torch.from_numpy(theirs)
    return float(((ours - expected).norm() / expected.norm()).detach())


def test_parity(published: Published) -> None:
    config, state, arrays = published
    networks = from_published(config, state)
    waves = networks["G"](torch.from_numpy(arrays["in/z"]))
    assert error(waves[:, 0], arrays["out/wave"]) < 1e-4
    real = torch.from_numpy(arrays["out/wave"])[:, None].requires_grad_()
    logits = networks["D"](real)
    assert error(logits, arrays["out/logits"]) < 1e-4
    (gradient,) = torch.autograd.grad(logits.sum(), real)
    assert error(gradient.square().sum((1, 2)), arrays["out/gradient_sqnorm"]) < 1e-4


@pytest.mark.parametrize("length", [32768, 65536])
@pytest.mark.parametrize("upsample", ["zeros", "nn"])
def test_other_lengths_without_weights(published: Published, length: int, upsample: str) -> None:
    config, _, _ = published
    config["generator"] |= {"slice_len": length, "upsample": upsample}
    config["discriminator"] |= {"slice_len": length, "phaseshuffle_rad": 2}
    networks = from_published(config, None)
    waves = networks["G"](torch.zeros(2, 100))
    assert waves.shape == (2, 1, length)
    assert networks["D"](waves).shape == (2,)


def test_the_filter_follows_from_its_weights(published: Published) -> None:
    config, state, arrays = published
    z = torch.from_numpy(arrays["in/z"])
    plain = from_published(config, state)["G"](z)
    kernel = np.zeros((9, 1, 1), np.float32)
    kernel[4] = 2  # SAME padding of an odd length: the middle is not a shift
    filtered = from_published(config, {**state, "G/pp_filt/conv1d/kernel": kernel})["G"](z)
    torch.testing.assert_close(filtered, 2 * plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config, state: state.pop("G/upconv_1/conv2d_transpose/bias"), "1 missing"),
        (lambda config, state: state.update({"D/spam": np.zeros(1)}), "spam is unknown"),
        (lambda config, state: config["generator"].update(use_batchnorm=True), "use_batchnorm"),
        (lambda config, state: config["generator"].update(slice_len=16000), "8192 or 16384"),
        (lambda config, state: config["generator"].update(upsample="cubic"), "zeros or nearest"),
        (lambda config, state: config["discriminator"].update(spam=5), "spam not supported"),
        (lambda config, state: config["discriminator"].update(dim=8), "has shape"),
    ],
)
def test_unsupported_arguments_are_rejected(
    published: Published, change: Any, message: str
) -> None:
    config, state, _ = published
    change(config, state)
    with pytest.raises(InputError, match=message):
        from_published(config, state)
