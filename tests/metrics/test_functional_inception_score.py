import pytest
import torch
from torch_fidelity.metric_isc import (
    KEY_METRIC_ISC_MEAN,
    KEY_METRIC_ISC_STD,
    isc_features_to_metric,
)

from gan_lab.errors import InputError
from gan_lab.metrics import inception_score


@pytest.mark.parametrize("num", [1000, 1007])
def test_agrees_with_torch_fidelity(num):
    logits = 3 * torch.randn(num, 40, generator=torch.Generator().manual_seed(0))
    theirs = isc_features_to_metric(logits)
    mean, deviation = inception_score(logits)
    assert mean.item() == pytest.approx(theirs[KEY_METRIC_ISC_MEAN], rel=1e-9)
    assert deviation.item() == pytest.approx(theirs[KEY_METRIC_ISC_STD], rel=1e-7)


def test_best_and_worst():
    sure_and_even = 1000 * torch.eye(10).repeat(50, 1)
    mean, deviation = inception_score(sure_and_even, splits=1)
    assert mean.item() == pytest.approx(10) and deviation.item() == 0
    one_class_only = 1000 * torch.eye(10)[:1].repeat(500, 1)
    assert inception_score(one_class_only)[0].item() == pytest.approx(1)
    knows_nothing = torch.zeros(500, 10)
    assert inception_score(knows_nothing)[0].item() == pytest.approx(1)


def test_bad_logits_are_rejected():
    with pytest.raises(InputError, match="N >= 10"):
        inception_score(torch.zeros(9, 5))
    with pytest.raises(InputError, match="NaN"):
        inception_score(torch.full((20, 5), float("nan")))
