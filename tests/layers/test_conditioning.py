"""Class losses against their formulas."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from gan_lab.errors import InputError
from gan_lab.layers.conditioning import (
    AuxiliaryClassifier,
    Conditioning,
    DataToDataCrossEntropy,
    Projection,
    Unconditional,
)

LABELS = torch.tensor([0, 2, 1, 0, 2])


def loss_of(head: Conditioning, features: Tensor, labels: Tensor = LABELS) -> Tensor:
    return head(features, labels)


def cosine(a: list[float], b: list[float]) -> float:
    product = sum(x * y for x, y in zip(a, b, strict=True))
    return product / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


@pytest.mark.parametrize("kind", [Projection, Unconditional])
def test_projection_and_none_have_no_class_loss_and_no_weights(kind: type[Conditioning]) -> None:
    head = kind(features=4, num_classes=3)
    assert head.roles == ()
    assert not head.state_dict()
    assert head.projects == (kind is Projection)


def test_auxiliary_classifier_is_minus_the_log_probability_of_the_class() -> None:
    torch.manual_seed(0)
    head = AuxiliaryClassifier(features=4, num_classes=3, weight=0.7)
    features = torch.randn(5, 4)
    weight, bias = head.classifier.weight.tolist(), head.classifier.bias.tolist()
    for loss, row, label in zip(
        loss_of(head, features).tolist(), features.tolist(), LABELS.tolist(), strict=True
    ):
        scores = [
            sum(w * x for w, x in zip(weight[k], row, strict=True)) + bias[k] for k in range(3)
        ]
        share = math.exp(scores[label]) / sum(math.exp(score) for score in scores)
        assert loss == pytest.approx(-0.7 * math.log(share), rel=1e-5)
    assert set(head.roles) == {"real", "fake", "generator"}


def test_attributes_are_regressed() -> None:
    """Minus the log density of a Gaussian, up to its constant."""
    head = AuxiliaryClassifier(features=4, num_classes=3, weight=0.5)
    features, vectors = torch.randn(2, 4), torch.tensor([[0.2, -3, 1], [0.0, 1, 1]])
    normal = torch.distributions.Normal(head.classifier(features), 1.0)
    constant = 1.5 * math.log(2 * math.pi)
    assert_close(
        loss_of(head, features, vectors), -0.5 * (normal.log_prob(vectors).sum(1) + constant)
    )


def test_attributes_are_compared_as_whole_vectors() -> None:
    head = DataToDataCrossEntropy(features=4, num_classes=3, width=8)
    features, labels = torch.randn(5, 4), LABELS
    vectors = torch.nn.functional.one_hot(labels, 3).float()
    assert_close(loss_of(head, features, vectors), loss_of(head, features, labels))
    with torch.no_grad():
        head.proxies.weight[1] = head.proxies.weight[0] + head.proxies.weight[2]
    both = vectors.clone()
    both[2] = torch.tensor([1.0, 0, 1])
    assert_close(loss_of(head, features, both), loss_of(head, features, labels))


@pytest.mark.parametrize(
    ("positive_margin", "negative_margin", "temperature"),
    [(0.98, 0.02, 0.5), (0.0, -1.0, 0.25), (1.0, 0.3, 1.0)],
)
def test_data_to_data_cross_entropy_against_its_formula(
    positive_margin: float, negative_margin: float, temperature: float
) -> None:
    torch.manual_seed(1)
    head = DataToDataCrossEntropy(
        features=4,
        num_classes=3,
        weight=0.4,
        positive_margin=positive_margin,
        negative_margin=negative_margin,
        temperature=temperature,
        width=3,
    )
    features = torch.randn(5, 4)
    points = head.project(features).tolist()
    proxies = head.proxies.weight.tolist()
    labels = LABELS.tolist()
    expected = []
    for i in range(5):
        own = min(cosine(points[i], proxies[labels[i]]) - positive_margin, 0) / temperature
        others = [
            math.exp(max(cosine(points[i], points[j]) - negative_margin, 0) / temperature)
            for j in range(5)
            if labels[j] != labels[i]
        ]
        expected.append(-0.4 * math.log(math.exp(own) / (math.exp(own) + sum(others))))
    assert_close(loss_of(head, features), torch.tensor(expected))
    assert set(head.roles) == {"real", "generator"}


def test_neither_the_length_of_features_nor_of_proxies_matters() -> None:
    torch.manual_seed(0)
    head = DataToDataCrossEntropy(features=4, num_classes=3, width=8)
    torch.nn.init.zeros_(head.project.bias)
    features = torch.randn(5, 4)
    before = loss_of(head, features)
    with torch.no_grad():
        head.proxies.weight.mul_(7)
    assert_close(loss_of(head, features * 3), before)


def test_pairs_within_their_margins_have_no_gradient() -> None:
    head = DataToDataCrossEntropy(features=2, num_classes=2, width=2)
    easy = torch.tensor([[1.0, 0], [-1, 0]], requires_grad=True)
    labels = torch.tensor([0, 1])
    losses = head.losses(easy, easy.detach(), labels)
    # both at their proxies, and opposite: min(1 - 0.98, 0) = max(-1 - 0.02, 0) = 0
    assert_close(losses, torch.full((2,), math.log(2)))
    (gradient,) = torch.autograd.grad(losses.sum(), easy)
    assert not gradient.any()
    near = torch.tensor([[1.0, 0], [0.8, 0.6]], requires_grad=True)
    (gradient,) = torch.autograd.grad(head.losses(near, easy.detach(), labels).sum(), near)
    assert gradient.any()


def test_a_single_class_has_zero_loss() -> None:
    head = DataToDataCrossEntropy(features=4, num_classes=3, width=8)
    features = torch.randn(3, 4, requires_grad=True)
    losses = loss_of(head, features, torch.ones(3, dtype=torch.int64))
    assert_close(losses, torch.zeros(3))
    losses.sum().backward()
    assert features.grad is not None and features.grad.isfinite().all()


@pytest.mark.parametrize("kind", [AuxiliaryClassifier, DataToDataCrossEntropy])
def test_losses_are_in_single_precision(kind: Callable[..., Conditioning]) -> None:
    torch.manual_seed(0)
    head, features = kind(features=4, num_classes=3), torch.randn(5, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = loss_of(head, features)
    assert losses.dtype == torch.float32
    assert torch.equal(losses, loss_of(head, features.float()))


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (
            AuxiliaryClassifier,
            {"num_classes": 0},
            "conditioning=ac needs labels.*conditioning=none",
        ),
        (DataToDataCrossEntropy, {"num_classes": 0}, "conditioning=d2d_ce needs labels"),
        (AuxiliaryClassifier, {"weight": -1}, "weight=-1 must be >= 0"),
        (DataToDataCrossEntropy, {"positive_margin": 1.5}, "must lie between -1 and 1"),
        (DataToDataCrossEntropy, {"temperature": 0}, "temperature=0"),
    ],
)
def test_invalid_arguments_are_rejected(
    kind: Callable[..., Conditioning], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        kind(**{"features": 4, "num_classes": 3, **given})
