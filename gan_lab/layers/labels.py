"""Labels as inputs of networks: classes as integers or vectors, attributes as vectors."""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot


def label_vectors(labels: Tensor | None, num_classes: int, like: Tensor) -> Tensor:
    """Return label vectors [N, num_classes] in the type of `like` [N, ...].

    Args:
        labels: int64 [N], or vectors [N, num_classes], or None in an unconditional network.
        num_classes: 0 for an unconditional network, which gives an empty [N, 0].
        like: tensor whose batch size, type and device are taken.

    Raises:
        ValueError: when a conditional network gets no labels or an unconditional one gets some.
    """
    check_labels(labels, num_classes)
    if labels is None:
        return like.new_zeros(like.shape[0], 0)
    if labels.ndim == 1:
        return one_hot(labels, num_classes).to(like.dtype)
    return labels.to(like.dtype)


def with_label_maps(features: Tensor, vectors: Tensor) -> Tensor:
    """Append label vectors [N, K] as K constant channels to features [N, C, H, W]."""
    maps = vectors[:, :, None, None].expand(-1, -1, *features.shape[2:])
    return torch.cat([features, maps], dim=1)


class ClassEmbedding(nn.Embedding):
    """Embedding of labels: integers look up a row, label vectors are multiplied by the table [num_classes, width].

    A vector thus mixes the embeddings of classes, or weighs those of attributes by their values.

    Args:
        num_classes: rows.
        width: length of a row.
    """

    def __init__(self, *, num_classes: int, width: int) -> None:
        super().__init__(num_classes, width)

    def forward(self, labels: Tensor) -> Tensor:
        """Map labels int64 [N], or vectors [N, num_classes], to [N, width]."""
        if labels.ndim == 1:
            return super().forward(labels)
        return labels.to(self.weight.dtype) @ self.weight


def check_labels(labels: Tensor | None, num_classes: int) -> None:
    """Check that labels are given if and only if the network has classes.

    Raises:
        ValueError: when a conditional network gets no labels or an unconditional one gets some.
    """
    if (labels is None) != (num_classes == 0):
        given = "no labels" if labels is None else "labels"
        raise ValueError(f"{given} given to a network of {num_classes} classes")
