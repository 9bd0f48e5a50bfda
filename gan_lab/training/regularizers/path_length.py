"""Path length regularization: a step of fixed length in w changes the image by a fixed amount.

    E[ (||J_w^T y||_2 - a)^2 ],  J_w = dG(w) / dw,  y ~ N(0, I),  a the running mean of ||J_w^T y||_2

Karras et al. 2020, section 3.2, equation 4, and appendix B, https://arxiv.org/abs/1912.04958. y is divided by the
square root of the number of pixels, and the norm is the root mean square over the layers that w enters.
"""

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.layers.collectives import mean_over_ranks
from gan_lab.layers.networks import StyleGeneratorNetwork
from gan_lab.training.regularizers.base import GeneratorRegularizer
from gan_lab.training.steps import GeneratorStep


class PathLength(GeneratorRegularizer):
    """Penalty on the generator; `weight` is gamma_pl (2 in the paper, with `interval` 4).

    Attributes:
        mean: the running mean a, saved with the run.

    Args:
        weight: coefficient.
        interval: G steps between penalties.
        decay: share of a that is replaced at each penalty (0.01 in the paper).
        shrink: the penalty sees 1 / `shrink` of the images, to save time and memory (2 in the paper).
    """

    mean: Tensor

    def __init__(
        self, *, weight: float, interval: int = 1, decay: float = 0.01, shrink: int = 2
    ) -> None:
        super().__init__(weight=weight, interval=interval)
        if not 0 < decay <= 1 or shrink < 1:
            raise InputError(
                f"PathLength: decay={decay} must lie in (0, 1] and shrink={shrink} be at least 1"
            )
        self.decay = decay
        self.shrink = shrink
        self.register_buffer("mean", torch.zeros(()))

    def check(self, network: nn.Module) -> None:
        """Refuse a generator without styles."""
        style_generator(network)

    def forward(self, step: GeneratorStep) -> Tensor:
        generator = style_generator(step.network)
        count = max(len(step.z) // self.shrink, 1)
        labels = step.batch[:count].labels
        w = generator.styles(step.z[:count], labels)
        lengths = path_lengths(generator.synthesis(w, noise="random"), w)
        with torch.no_grad():
            self.mean.lerp_(mean_over_ranks(lengths.mean()), self.decay)
        return (lengths - self.mean).square()  # equation 4


def path_lengths(images: Tensor, w: Tensor, direction: Tensor | None = None) -> Tensor:
    """Return ||J_w^T y|| per image, [N], differentiable once more.

    Args:
        images: [N, C, H, W], computed from `w`.
        w: styles [N, L, D].
        direction: y [N, C, H, W], already divided by the square root of the number of pixels; None draws it.
    """
    if direction is None:
        pixels = images.shape[2] * images.shape[3]
        direction = torch.randn_like(images) / pixels**0.5
    (gradient,) = torch.autograd.grad((images * direction).sum(), w, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


def style_generator(network: nn.Module) -> StyleGeneratorNetwork:
    """Return the network as one with styles.

    Raises:
        InputError: when it has none.
    """
    if not isinstance(network, StyleGeneratorNetwork):
        raise InputError(
            f"regularizer path_length needs a generator with styles, which {type(network).__module__} has not; "
            "use model=stylegan2, or drop the penalty"
        )
    return network
