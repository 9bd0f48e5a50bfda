"""Top-k: selection and gradients."""

import pytest
import torch

from gan_lab.errors import InputError
from gan_lab.training.losses import NonSaturating
from gan_lab.training.regularizers import TopK


def test_only_selected_samples_get_a_gradient() -> None:
    logits = torch.tensor([0.5, -2.0, 3.0, 1.0], requires_grad=True)
    kept = TopK(share=0.5).select(NonSaturating().generator(logits), logits)
    kept.mean().backward()
    assert logits.grad is not None
    # the mean is over those that count, so each weighs one half
    expected = [
        0,
        0,
        -torch.sigmoid(torch.tensor(-3.0)) / 2,
        -torch.sigmoid(torch.tensor(-1.0)) / 2,
    ]
    torch.testing.assert_close(logits.grad, torch.tensor(expected))


def test_choice_is_by_logits_not_by_losses() -> None:
    losses, logits = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([5.0, 7.0, 6.0])
    assert sorted(TopK(share=2 / 3).select(losses, logits).tolist()) == [2, 3]


@pytest.mark.parametrize(("share", "count"), [(1.0, 10), (0.55, 6), (0.5, 5), (0.29, 3), (0.01, 1)])
def test_number_of_selected_samples(share: float, count: int) -> None:
    values = torch.arange(10.0)
    assert len(TopK(share=share).select(values, values)) == count


@pytest.mark.parametrize("share", [0, 1.1, -1])
def test_shares_out_of_range(share: float) -> None:
    with pytest.raises(InputError, match="share="):
        TopK(share=share)
