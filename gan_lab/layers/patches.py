"""Logits of patches: one for each place that a 4x4 window has on a feature map."""

from collections.abc import Callable
from math import sqrt

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from gan_lab.layers.labels import ClassEmbedding, check_labels


class PatchLogits(nn.Module):
    """A 4x4 convolution -> logits [N, P]; with classes, the inner product of its output with the embedded class.

    Sauer et al. 2021, https://arxiv.org/abs/2111.01007, section 4 and the authors' discriminators.

    Args:
        features: channels.
        num_classes: 0 for no classes.
        norm: what normalises the convolution's weight.
        projection_dim: channels that the class is compared in.
        label_dim: length of the class's embedding.
    """

    def __init__(
        self,
        *,
        features: int,
        num_classes: int,
        norm: Callable[[nn.Conv2d], nn.Module],
        projection_dim: int = 64,
        label_dim: int = 128,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        outputs = projection_dim if num_classes else 1
        self.conv = norm(nn.Conv2d(features, outputs, 4, bias=False))
        self.embedding: nn.Module | None = None
        if num_classes:
            self.embedding = ClassEmbedding(num_classes=num_classes, width=label_dim)
            self.projection = nn.Linear(label_dim, projection_dim)

    def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Map features [N, C, H, W], H and W at least 4, (and labels [N]) to logits [N, (H - 3) (W - 3)]."""
        check_labels(labels, self.num_classes)
        made = self.conv(x).flatten(2)  # [N, K, P]
        if self.embedding is None:
            return made[:, 0]
        chosen = leaky_relu(self.projection(self.embedding(labels)), 0.2)  # [N, K]
        return (made * chosen[:, :, None]).sum(1) / sqrt(made.shape[1])
