"""The Inception Score: how sure a classifier is of each image, and how varied its answers are over all.

    IS = exp(E_x KL(p(y|x) || p(y)))

Salimans et al. 2016, https://arxiv.org/abs/1606.03498, section 4.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gan_lab.errors import InputError


def inception_score(logits: Tensor, *, splits: int = 10, seed: int = 2020) -> tuple[Tensor, Tensor]:
    """Inception Score over equal parts of a shuffled set.

    The order is drawn as torch-fidelity draws it (numpy's `RandomState(2020)`), since the mean over the parts
    depends on which image lies in which.

    Args:
        logits: [N, classes] of a classifier, N >= splits.
        splits: number of parts; 10 in the paper.
        seed: of the shuffling.

    Returns:
        Mean and (population) standard deviation over the parts, float64 scalars; 1 <= mean <= classes.

    Raises:
        InputError: for another shape, fewer images than parts, or non-finite values.
    """
    if logits.ndim != 2 or len(logits) < splits:
        raise InputError(
            f"logits have shape {list(logits.shape)}; expected [N, classes] with N >= {splits}"
        )
    if not torch.isfinite(logits).all():
        raise InputError("logits hold NaN or infinity: look at the images that they were made from")
    order = torch.from_numpy(np.random.RandomState(seed).permutation(len(logits)))
    log_p = logits.cpu()[order].double().log_softmax(dim=1)  # [N, classes]
    bounds = [part * len(logits) // splits for part in range(splits + 1)]
    scores = torch.stack([_score(log_p[start:end]) for start, end in pairwise(bounds)])
    return scores.mean(), scores.std(correction=0)


def _score(log_p: Tensor) -> Tensor:
    p = log_p.exp()  # [N, classes]
    log_marginal = p.mean(dim=0).log()  # [classes]
    # xlogy-like: a class of no probability adds nothing, where 0 * -inf would be NaN
    divergence = torch.where(p > 0, p * (log_p - log_marginal), 0).sum(dim=1)  # [N]
    return divergence.mean().exp()
