"""How a discriminator uses class labels: projection, an auxiliary class loss, or not at all.

A discriminator has one `Conditioning`, which says whether the logit has a projection term and returns the class loss,
which is added to the losses of both players. To add it to an architecture, derive its discriminator from
`ConditionedDiscriminator` and refer to `${conditioning}` in its configuration.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, leaky_relu, linear, normalize

from gan_lab.errors import InputError
from gan_lab.layers.networks import (
    ClassEmbedding,
    DiscriminatorInput,
    DiscriminatorNetwork,
    DiscriminatorOutput,
    Role,
    check_labels,
    label_vectors,
)


class Conditioning(nn.Module):
    """Base class: `forward(features [N, F], labels) -> weighted class loss [N]`, if the conditioning has one.

    Attributes:
        projects: whether the logit has a projection on the class.
        roles: which have a class loss: "real" and "fake" in D's step, "generator" in G's.

    Args:
        features: F.
        num_classes: of the labels; 0 without.
    """

    projects: bool = False
    roles: tuple[Role, ...] = ()

    def __init__(self, *, features: int, num_classes: int) -> None:
        super().__init__()

    def forward(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Return the class loss [N]; called for `roles` only."""
        raise AssertionError(f"{type(self).__name__} has no class loss")


class Unconditional(Conditioning):
    """D ignores labels; G may still be conditional."""


class Projection(Conditioning):
    """The logit projects features on the class embedding; there is no class loss.

    Miyato and Koyama 2018, equation 3, https://arxiv.org/abs/1802.05637. The embedding belongs to the network's last
    layer.
    """

    projects = True


class AuxiliaryClassifier(Conditioning):
    """AC-GAN: cross-entropy of a linear classifier on real and generated images, in D's and in G's loss.

    L_C = E[log P(C = c | X_real)] + E[log P(C = c | X_fake)]; D maximizes L_S + L_C, G maximizes L_C - L_S.
    Odena et al. 2017, equation 3, https://arxiv.org/abs/1610.09585. Where labels are vectors of attributes, p(y | x) is
    Gaussian with a variance of 1 and independent entries, as that of continuous codes in Chen et al. 2016, section 6,
    https://arxiv.org/abs/1606.03657: the loss is half the squared error of a linear regression.

    Args:
        features: F.
        num_classes: of the labels.
        weight: of L_C, 1 in the paper.

    Raises:
        InputError: without classes, or for a negative weight.
    """

    roles = ("real", "fake", "generator")

    def __init__(self, *, features: int, num_classes: int, weight: float = 1.0) -> None:
        super().__init__(features=features, num_classes=num_classes)
        check_classes("ac", num_classes)
        check_weight("ac", weight)
        self.weight = weight
        self.classifier = nn.Linear(features, num_classes)

    def forward(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Return losses [N] of classes int64 [N] or attributes float [N, K], in single precision."""
        assert labels is not None
        with torch.autocast(features.device.type, enabled=False):
            scores = self.classifier(features.float())
            if labels.ndim == 2:
                return self.weight * (scores - labels).square().sum(1) / 2
            return self.weight * cross_entropy(scores, labels, reduction="none")  # equation 3


class DataToDataCrossEntropy(Conditioning):
    """ReACGAN's D2D-CE: normalized features attract their class's proxy and repel images of other classes.

        -log e^(min(f_i . v_i - m_p, 0) / t) / (e^(min(f_i . v_i - m_p, 0) / t) + sum_j e^(max(f_i . f_j - m_n, 0) / t))

    where v_i is the proxy of image i's class, of unit length, and j runs over the images of the batch (of one backward
    pass) with another class. The proxy of an attribute vector is the sum of
    its attributes' proxies weighted by their values, and images with any other vector repel. Pairs within the margins
    have no gradient. D is trained with it on real images, G on its own. Kang et al. 2021, equation of D2D-CE in section
    3.2, https://arxiv.org/abs/2111.01118. The defaults are those of the authors' CIFAR-10 runs,
    https://github.com/POSTECH-CVLab/PyTorch-StudioGAN.

    Args:
        features: F.
        num_classes: of the labels.
        weight: of the loss, lambda.
        positive_margin: m_p, cosine to the proxy above which there is no attraction.
        negative_margin: m_n, cosine below which images of two classes do not repel.
        temperature: t.
        width: length of the vectors that are compared, linear projections of the features.

    Raises:
        InputError: without classes, or for invalid numbers.
    """

    roles = ("real", "generator")

    def __init__(
        self,
        *,
        features: int,
        num_classes: int,
        weight: float = 0.5,
        positive_margin: float = 0.98,
        negative_margin: float = 0.02,
        temperature: float = 0.5,
        width: int = 512,
    ) -> None:
        super().__init__(features=features, num_classes=num_classes)
        check_classes("d2d_ce", num_classes)
        check_weight("d2d_ce", weight)
        if not (-1 <= negative_margin <= 1 and -1 <= positive_margin <= 1):
            raise InputError(
                f"d2d_ce: positive_margin={positive_margin} and negative_margin={negative_margin} are cosines: they "
                "must lie between -1 and 1"
            )
        if temperature <= 0 or width < 1:
            raise InputError(
                f"d2d_ce: temperature={temperature} and width={width} must be positive"
            )
        self.weight = weight
        self.positive_margin = positive_margin
        self.negative_margin = negative_margin
        self.temperature = temperature
        self.project = nn.Linear(features, width)
        self.proxies = ClassEmbedding(num_classes=num_classes, width=width)

    def forward(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Return losses [N] of classes int64 [N] or attributes float [N, K], in single precision."""
        assert labels is not None
        with torch.autocast(features.device.type, enabled=False):
            points = normalize(self.project(features.float()), dim=1)
            proxies = normalize(self.proxies(labels), dim=1)
            return self.weight * self.losses(points, proxies, labels)

    def losses(self, points: Tensor, proxies: Tensor, labels: Tensor) -> Tensor:
        """Return the loss [N] of points [N, W] with proxies [N, W], all of unit length, and labels [N, ...]."""
        attraction = ((points * proxies).sum(1) - self.positive_margin).clamp(max=0)
        repulsion = (linear(points, points) - self.negative_margin).clamp(min=0)
        rows = labels.reshape(len(labels), -1)
        same = (rows[:, None] == rows[None, :]).all(-1)
        others = (repulsion / self.temperature).masked_fill(same, float("-inf"))
        own = attraction[:, None] / self.temperature
        # D2D-CE, section 3.2: -log of the own pair's share
        return torch.cat([own, others], dim=1).logsumexp(1) - own.squeeze(1)


ConditioningFactory = Callable[..., Conditioning]


class ConditionedDiscriminator(DiscriminatorNetwork, ABC):
    """A discriminator split into `extract` (features) and `score` (logit), so that features can have a class loss.

    Attributes:
        conditioning: set by calling `condition`.
    """

    conditioning: Conditioning

    def condition(
        self, conditioning: ConditioningFactory, *, features: int, num_classes: int
    ) -> int:
        """Build `conditioning`; return the number of classes for the projection, 0 without one."""
        self.num_classes = num_classes
        self.conditioning = conditioning(features=features, num_classes=num_classes)
        return num_classes if self.conditioning.projects else 0

    @abstractmethod
    def extract(self, images: Tensor) -> Tensor:
        """Map images [N, C, H, W] to features [N, F]."""

    @abstractmethod
    def score(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Map features [N, F] (and labels [N]) to logits [N]."""

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map images [N, C, H, W] (and labels [N]) to logits [N]."""
        return self._logits(self.extract(images), labels)

    def discriminate(
        self, x: DiscriminatorInput, labels: Tensor | None, role: Role | None
    ) -> DiscriminatorOutput:
        """Return logits [N] and, in roles that have one, the weighted class loss [N]."""
        assert isinstance(x, Tensor), "a discriminator of one tensor of images"
        return self.output_of(self.extract(x), labels, role)

    def output_of(
        self, features: Tensor, labels: Tensor | None, role: Role | None
    ) -> DiscriminatorOutput:
        """Return `discriminate`'s output of features [N, F]."""
        losses = {}
        if role in self.conditioning.roles:
            losses["class"] = self.conditioning(features, labels)
        return DiscriminatorOutput(self._logits(features, labels), losses)

    def _logits(self, features: Tensor, labels: Tensor | None) -> Tensor:
        # without a projection, `score` gets no labels
        return self.score(features, labels if self.conditioning.projects else None)


def check_classes(name: str, num_classes: int) -> None:
    """Check that the model has labels.

    Raises:
        InputError: with what to do.
    """
    if not num_classes:
        raise InputError(
            f"conditioning={name} needs labels, and the model has none; use conditioning=none, or data with classes or "
            "attributes and conditional=true"
        )


def check_weight(name: str, weight: float) -> None:
    """Check that a weight is not negative.

    Raises:
        InputError: naming it.
    """
    if weight < 0:
        raise InputError(f"{name}: weight={weight} must be >= 0")


# Output layers


class ProjectionLogit(nn.Module):
    """Logit of features: an affine map, plus their inner product with the class embedding (projection).

    psi(phi(x)) + y^T V phi(x); Miyato and Koyama 2018, equation 3, https://arxiv.org/abs/1802.05637.

    Args:
        features: length of phi(x).
        num_classes: 0 for the affine map alone.
        table: whether the embedding is a `ClassEmbedding`, looked up and drawn from N(0, 1), and not a linear layer.
    """

    def __init__(self, *, features: int, num_classes: int, table: bool = False) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.affine = nn.Linear(features, 1)
        self.embedding: nn.Module | None = None
        if num_classes and table:
            self.embedding = ClassEmbedding(num_classes=num_classes, width=features)
        elif num_classes:
            self.embedding = nn.Linear(num_classes, features, bias=False)

    def forward(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Map features [N, F] (and labels [N]) to logits [N]."""
        check_labels(labels, self.num_classes)
        logits = self.affine(features).squeeze(1)
        if self.embedding is None:
            return logits
        if isinstance(self.embedding, nn.Linear):
            labels = label_vectors(labels, self.num_classes, features)
        return logits + (self.embedding(labels) * features).sum(1)  # equation 3


class PatchLogits(nn.Module):
    """Patch logits [N, P] by a 4x4 convolution; with classes, a projection on the class embedding.

    Sauer et al. 2021, https://arxiv.org/abs/2111.01007, section 4 and the authors' discriminators.

    Args:
        features: channels.
        num_classes: 0 for no classes.
        norm: normalizes the convolution's weight, such as spectral norm.
        projection_dim: channels of the inner product with the class.
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
