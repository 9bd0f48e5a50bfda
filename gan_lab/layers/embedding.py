"""A table with a row for each class, which labels as integers or as vectors read."""

from torch import Tensor, nn


class ClassEmbedding(nn.Embedding):
    """Rows of a table [num_classes, width]: integers choose one, vectors mix them (interpolation between classes).

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
    """Refuse labels that a network cannot take.

    Raises:
        ValueError: when a conditional network gets no labels or an unconditional one gets some.
    """
    if (labels is None) != (num_classes == 0):
        given = "no labels" if labels is None else "labels"
        raise ValueError(f"{given} given to a network of {num_classes} classes")
