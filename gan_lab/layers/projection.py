"""The projection discriminator's output layer."""

from torch import Tensor, nn

from gan_lab.layers.labels import label_vectors


class ProjectionLogit(nn.Module):
    """Logit of features: an affine map, plus their inner product with the class's embedding.

    psi(phi(x)) + y^T V phi(x); Miyato and Koyama 2018, equation 3, https://arxiv.org/abs/1802.05637.

    Args:
        features: length of phi(x).
        num_classes: 0 leaves the affine map alone.
    """

    def __init__(self, *, features: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.affine = nn.Linear(features, 1)
        self.embedding = nn.Linear(num_classes, features, bias=False) if num_classes else None

    def forward(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Map features [N, F] (and labels [N]) to logits [N]."""
        logits = self.affine(features).squeeze(1)
        vectors = label_vectors(labels, self.num_classes, features)
        if self.embedding is None:
            return logits
        return logits + (self.embedding(vectors) * features).sum(1)
