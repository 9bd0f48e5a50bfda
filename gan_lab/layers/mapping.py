"""The mapping network z -> w of the StyleGAN family, with its truncation, and mixing of styles.

Karras et al. 2019, sections 2 to 4, https://arxiv.org/abs/1812.04948; labels as in Karras et al. 2020 (ADA),
https://arxiv.org/abs/2006.06676.
"""

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.layers.equalized import EqualizedLinear
from gan_lab.layers.labels import label_vectors
from gan_lab.layers.precision import raised
from gan_lab.layers.ranks import mean_over_ranks


def unit_moment(x: Tensor) -> Tensor:
    """Scale vectors [N, D] to a mean square of 1 (pixel norm; Karras et al. 2018, section 4.2)."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class Mlp(nn.Module):
    """Rectified layers with a hundredth of the learning rate, on z and the label's embedding, both of unit moment.

    Args:
        latent_dim: length of z; 0 to map labels alone.
        num_classes: 0 to map z alone.
        embedding_dim: length of the label's embedding.
        style_dim: of every layer's output.
        num_layers: number of layers.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        num_classes: int,
        embedding_dim: int,
        style_dim: int,
        num_layers: int,
        lr_multiplier: float = 0.01,
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.num_classes = num_classes
        self.embedding = (
            EqualizedLinear(inputs=num_classes, outputs=embedding_dim) if num_classes else None
        )
        first = latent_dim + (embedding_dim if num_classes else 0)
        self.layers = nn.Sequential(
            *(
                EqualizedLinear(
                    inputs=style_dim if i else first,
                    outputs=style_dim,
                    lr_multiplier=lr_multiplier,
                    rectified=True,
                )
                for i in range(num_layers)
            )
        )

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (of which only N is used when Z is 0) and labels to [N, style_dim], never in half precision."""
        with torch.autocast(z.device.type, enabled=False):
            return self._forward(z, labels)

    def _forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        z = raised(z)
        parts = [unit_moment(z)] if self.latent_dim else []
        vectors = label_vectors(labels, self.num_classes, z)
        if self.embedding is not None:
            parts.append(unit_moment(self.embedding(vectors)))
        return self.layers(torch.cat(parts, dim=1))


class Mapping(nn.Module):
    """z -> w for every layer of the synthesis network, with a running mean of w to truncate towards.

    Attributes:
        average: running mean of w, [style_dim], moved by every forward pass in training mode.

    Args:
        latent_dim: length of z.
        num_classes: 0 for none.
        style_dim: length of w.
        num_layers: layers of the mapping network.
        num_styles: L, how many layers of the synthesis network take a style.
        average_decay: what the running mean keeps of itself in a pass.
    """

    average: Tensor

    def __init__(
        self,
        *,
        latent_dim: int,
        num_classes: int,
        style_dim: int,
        num_layers: int,
        num_styles: int,
        average_decay: float = 0.998,
    ) -> None:
        super().__init__()
        self.num_styles = num_styles
        self.average_decay = average_decay
        self.network = Mlp(
            latent_dim=latent_dim,
            num_classes=num_classes,
            embedding_dim=style_dim,
            style_dim=style_dim,
            num_layers=num_layers,
        )
        self.register_buffer("average", torch.zeros(style_dim))

    def forward(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        truncation: float = 1.0,
        truncated_layers: int | None = None,
    ) -> Tensor:
        """Map latents to styles.

        Args:
            z: [N, Z].
            labels: int64 [N], vectors [N, K], or None.
            truncation: psi; w' = average + psi (w - average).
            truncated_layers: apply it to the first so many layers only; None for all.

        Returns:
            w [N, L, style_dim].
        """
        styles = self.styles(z, labels)
        if self.training:
            mean = mean_over_ranks(styles[:, 0].detach().mean(dim=0))
            self.average.lerp_(mean.to(self.average.dtype), 1 - self.average_decay)
        return truncated(styles, self.average, truncation, truncated_layers)

    def styles(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map latents to styles w [N, L, style_dim] that leave the running mean alone, as those to mix in."""
        return self.network(z, labels).unsqueeze(1).expand(-1, self.num_styles, -1)


def truncated(styles: Tensor, center: Tensor, psi: float, layers: int | None = None) -> Tensor:
    """Move styles towards a centre: w' = center + psi (w - center).

    Karras et al. 2019, appendix B.

    Args:
        styles: w [N, L, D].
        center: [D], [N, 1, D] or [N, L, D].
        psi: 1 changes nothing, 0 gives the centre.
        layers: move the first so many only; None for all.
    """
    if psi == 1:
        return styles
    near = torch.lerp(center, styles, psi)
    if layers is None:
        return near
    return torch.cat([near[:, :layers], styles[:, layers:]], dim=1)


def replace_styles(w: Tensor, other: Tensor, layers: range) -> Tensor:
    """Take the styles of `layers` from `other`: all are [N, L, D].

    With `levels(...)["coarse"]` and so on this is the style control of Karras et al. 2019, section 3.1.
    """
    index = torch.arange(w.shape[1], device=w.device)
    chosen = (index >= layers.start) & (index < layers.stop)
    return torch.where(chosen[None, :, None], other, w)


def cross_over(
    w: Tensor, other: Tensor, probability: float, *, in_use: int | None = None
) -> Tensor:
    """Mix styles [N, L, D] for training: with `probability`, an image takes `other` from a random layer on.

    Karras et al. 2019, section 3.1. Each image draws its own layer, from 1 to L - 1, all equally likely; where only
    the first `in_use` layers are computed, from 1 to `in_use` - 1.
    """
    count, layers, _ = w.shape
    last = layers if in_use is None else in_use
    if last < 2:
        return w
    start = torch.randint(1, last, (count, 1), device=w.device)
    start = start.where(torch.rand(count, 1, device=w.device) < probability, layers)
    chosen = torch.arange(layers, device=w.device) >= start  # [N, L]
    return torch.where(chosen[:, :, None], other, w)


def check_probability(name: str, value: float) -> None:
    """Refuse what is not a probability.

    Raises:
        InputError: naming the value.
    """
    if not 0 <= value <= 1:
        raise InputError(f"{name}={value} is a probability: it must lie between 0 and 1")
