"""Regularizers: a base class per player, and penalties on gradients, logits, weights and path lengths."""

from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from gan_lab.data.sample import SampleSpec
from gan_lab.errors import InputError
from gan_lab.layers.collectives import mean_over_ranks
from gan_lab.layers.networks import (
    DiscriminatorInput,
    Role,
    distinct_tensors,
    map_samples,
    map_tensors,
    samples_of,
    tensors_of,
)
from gan_lab.layers.precision import full_precision, to_fp32
from gan_lab.layers.stylegan import StyleGeneratorNetwork
from gan_lab.training.losses import mean_per_sample
from gan_lab.training.steps import (
    DiscriminatorStep,
    GeneratorStep,
    mixed_precision,
    requiring_grad,
)

PlayerName = Literal["generator", "discriminator"]


class Regularizer(nn.Module):
    """Base class of regularizers; a module, so that its buffers are saved with the run.

    Attributes:
        player: whose parameters it acts on.
        penalizes: whether `forward` returns a penalty; False for those that only act in another way.
        precise: whether to compute it in single precision under mixed precision, as squares of gradients need.
        replays: whether it compares several passes, which then have the same weights also under spectral norm.

    Args:
        weight: coefficient of the penalty in the player's loss.
        interval: steps of the player between two penalties. At 1 the penalty joins the loss; above, it is lazy:
            it has its own optimizer step every `interval` steps with `interval` times the weight
            (Karras et al. 2020, appendix B, https://arxiv.org/abs/1912.04958).
    """

    player: PlayerName
    penalizes = True
    precise = True
    replays = False

    def __init__(self, *, weight: float, interval: int = 1) -> None:
        super().__init__()
        if weight < 0 or interval < 1:
            raise InputError(
                f"{type(self).__name__}: weight={weight}, interval={interval}; weight must be >= 0 and interval >= 1"
            )
        self.weight = weight
        self.interval = interval

    def check(self, network: nn.Module) -> None:
        """Check before training that the penalty supports the player's network.

        Raises:
            InputError: with the reason if it does not.
        """

    def check_samples(self, spec: SampleSpec) -> None:
        """Check before training that the penalty supports the samples, as networks see them.

        Raises:
            InputError: with the reason if it does not.
        """

    def evaluate(self, step: Any) -> Tensor:
        """Compute the penalty, in single precision if `precise`."""
        with full_precision(step.z.device) if self.precise else nullcontext():
            penalty: Tensor = self(step)
        return penalty

    def after_step(self, network: nn.Module) -> None:
        """Act on the player's network after each of its optimizer steps."""


class DiscriminatorRegularizer(Regularizer):
    """Base class of the discriminator's regularizers.

    Attributes:
        differentiates_real: whether it differentiates `step.real_logits` by `step.real`.
        differentiates_fake: whether it differentiates `step.fake_logits` by `step.fake`.
    """

    player: PlayerName = "discriminator"
    differentiates_real = False
    differentiates_fake = False

    def forward(self, step: DiscriminatorStep) -> Tensor:
        """Return the penalty per sample [N] (or a scalar for a penalty on weights), without its coefficient."""
        raise AssertionError(f"{type(self).__name__} has no penalty")

    def evaluate(self, step: DiscriminatorStep) -> Tensor:
        """Compute the penalty; if `precise`, mixed precision needs separate passes through D."""
        if self.precise and mixed_precision(step.z.device):
            step = step.in_full_precision(
                by_real=self.differentiates_real, by_fake=self.differentiates_fake
            )
        return super().evaluate(step)


class GeneratorRegularizer(Regularizer):
    """Base class of the generator's regularizers: a penalty, or a selection of samples."""

    player: PlayerName = "generator"

    def forward(self, step: GeneratorStep) -> Tensor:
        """Return the penalty per sample [N] (or a scalar for a penalty on weights), without its coefficient."""
        raise AssertionError(f"{type(self).__name__} has no penalty")

    def select(self, losses: Tensor, fake_logits: Tensor) -> Tensor:
        """Select the generator's losses [N] that count in this step; logits are [N] or [N, K]."""
        return losses


def squared_gradient_norm(logits: Tensor, x: DiscriminatorInput) -> Tensor:
    """Return the squared L2 norm of d logit / d x per sample, [N], with a graph for its own gradient.

    Args:
        logits: [N], or [N, K], of which each sample's mean is differentiated.
        x: D's input; for a tuple, the gradient is by all its tensors, each counted once.
    """
    return flat_gradient(logits, x).square().sum(1)


def gradient_norm(logits: Tensor, x: DiscriminatorInput) -> Tensor:
    """Return the L2 norm of d logit / d x per sample, [N]; its own gradient is 0, not NaN, where it is 0."""
    return torch.linalg.vector_norm(flat_gradient(logits, x), dim=1)


def flat_gradient(logits: Tensor, x: DiscriminatorInput) -> Tensor:
    """Return d logit / d x of each sample as one row, [N, D], in single precision or better.

    The logits are summed over samples, which gives each sample's own gradient unless D couples samples (batch norm).
    """
    inputs = distinct_tensors(x)
    gradients = torch.autograd.grad(mean_per_sample(logits).sum(), inputs, create_graph=True)
    rows = [gradient.float().flatten(1) for gradient in gradients]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)


class GradientPenalty(DiscriminatorRegularizer):
    """Gradient penalty of WGAN-GP: D's gradient has norm one between real and generated images.

        E[ (||grad_x D(x)||_2 - 1)^2 ],  x = real + u (fake - real),  u ~ U(0, 1) per image

    Gulrajani et al. 2017, equation 3, https://arxiv.org/abs/1704.00028. `weight` is lambda (10 in the paper).

    Args:
        weight: coefficient.
        interval: D steps between penalties.
        center: the target norm; 0 gives the zero-centered variant of Thanh-Tung et al. 2019.
    """

    def __init__(self, *, weight: float, interval: int = 1, center: float = 1.0) -> None:
        super().__init__(weight=weight, interval=interval)
        self.center = center

    def forward(self, step: DiscriminatorStep) -> Tensor:
        pairs = list(zip(tensors_of(step.real), tensors_of(step.fake), strict=True))
        first, _ = pairs[0]
        u = torch.rand(len(first), device=first.device, dtype=first.dtype)
        mixed = tuple(
            torch.lerp(real.detach(), fake.detach(), u.view(-1, *[1] * (real.ndim - 1)))
            for real, fake in pairs
        )
        between = requiring_grad(mixed if isinstance(step.real, tuple) else mixed[0])
        norm = gradient_norm(step.logits(between), between)
        return (norm - self.center).square()  # equation 3


class R1(DiscriminatorRegularizer):
    """R1: zero-centered gradient penalty on real images.

        R1 = 1/2 E[ ||grad_x D(x)||^2 ],  x ~ data

    Mescheder et al. 2018, equation 9, https://arxiv.org/abs/1801.04406. `weight` is gamma (10 in the paper).
    """

    differentiates_real = True

    def forward(self, step: DiscriminatorStep) -> Tensor:
        # equation 9
        return squared_gradient_norm(step.real_logits, step.real) / 2


class R2(DiscriminatorRegularizer):
    """R2: zero-centered gradient penalty on generated images.

        R2 = 1/2 E[ ||grad_x D(x)||^2 ],  x ~ G

    Mescheder et al. 2018, equation 10, https://arxiv.org/abs/1801.04406. `weight` is gamma.
    """

    differentiates_fake = True

    def forward(self, step: DiscriminatorStep) -> Tensor:
        # equation 10
        return squared_gradient_norm(step.fake_logits, step.fake) / 2


class Approximate(DiscriminatorRegularizer):
    """Approximate R1 and R2: gradient penalties by finite differences, without second derivatives.

        1/2 ((D(x + s n) - D(x)) / s)^2,  n ~ N(0, I)

    whose mean over n is that of R1 or R2 but for terms of order s^2: n^T g has the mean square ||g||^2. Lin et al.
    2025, https://arxiv.org/abs/2501.08316 (there without the division); Hyun et al. 2025,
    https://arxiv.org/abs/2509.24935, with s = 0.01. One draw of a sample has a standard deviation of sqrt(2) times the
    mean; the batch and the steps average over it. Augmentations and noise are the same in both calls.

    Args:
        weight: gamma, as of R1 and R2.
        interval: D steps between penalties.
        noise: s, standard deviation of the perturbation of x.
        precise: whether both passes are in single precision; False uses the step's precision, as GAT's authors do. In
            bfloat16 logits have 8 bits, and the error of their difference is divided by s.

    Raises:
        InputError: when `noise` is not positive.
    """

    role: Role
    replays = True

    def __init__(
        self, *, weight: float, interval: int = 1, noise: float = 0.01, precise: bool = True
    ) -> None:
        super().__init__(weight=weight, interval=interval)
        self.precise = precise
        if noise <= 0:
            raise InputError(f"{type(self).__name__}: noise={noise} must be positive")
        self.noise = noise

    def penalty(self, step: DiscriminatorStep, x: DiscriminatorInput, logits: Tensor) -> Tensor:
        """Return the penalty [N] of samples and D's logits for them."""
        # bfloat16 would round a small perturbation away
        near = map_tensors(lambda part: self._perturbed(to_fp32(part)).detach(), x)
        return squared_slope(step.replayed(near, self.role), logits, self.noise) / 2

    def _perturbed(self, part: Tensor) -> Tensor:
        return part + self.noise * torch.randn_like(part)


class ApproximateR1(Approximate):
    """R1 by finite differences, on real samples; `weight` is gamma (0.1 in GAT)."""

    role = "real"

    def forward(self, step: DiscriminatorStep) -> Tensor:
        return self.penalty(step, step.real, step.real_logits)


class ApproximateR2(Approximate):
    """R2 by finite differences, on generated samples; `weight` is gamma."""

    role = "fake"

    def forward(self, step: DiscriminatorStep) -> Tensor:
        return self.penalty(step, step.fake, step.fake_logits)


def squared_slope(near: Tensor, logits: Tensor, noise: float) -> Tensor:
    """Return ((near - logits) / noise)^2 of each sample's mean logit, [N]."""
    difference = mean_per_sample(near.float()) - mean_per_sample(logits.float())
    return (difference / noise).square()


class Dragan(DiscriminatorRegularizer):
    """DRAGAN: gradient penalty at real images with added noise, where D's gradient should have norm one.

        E[ (||grad_x D(x + delta)||_2 - 1)^2 ],  x ~ data,  delta ~ N(0, c I)

    Kodali et al. 2017, equation 4, https://arxiv.org/abs/1705.07215. The gradient is that of the logit, so that
    the penalty is independent of the loss. `weight` is lambda (10 in the paper).

    Args:
        weight: coefficient.
        interval: D steps between penalties.
        noise: standard deviation of delta, relative to that of the micro-batch.
    """

    def __init__(self, *, weight: float, interval: int = 1, noise: float = 0.5) -> None:
        super().__init__(weight=weight, interval=interval)
        self.noise = noise

    def forward(self, step: DiscriminatorStep) -> Tensor:
        near = requiring_grad(map_tensors(self._disturb, step.real))
        return (gradient_norm(step.logits(near), near) - 1).square()  # equation 4

    def _disturb(self, real: Tensor) -> Tensor:
        real = real.detach()
        return real + self.noise * real.std() * torch.randn_like(real)


class Drift(DiscriminatorRegularizer):
    """Drift penalty: keeps the critic's outputs on real images near 0; the Wasserstein loss leaves the offset free.

        E[ D(x)^2 ],  x ~ data

    Karras et al. 2018, appendix A.1, https://arxiv.org/abs/1710.10196. `weight` is epsilon_drift (0.001 in the paper).
    """

    def forward(self, step: DiscriminatorStep) -> Tensor:
        return step.real_logits.float().square()


class LeCam(DiscriminatorRegularizer):
    """LeCam regularization: keeps D's outputs on real images near their average on generated ones, and vice versa.

        E_x[ (D(x) - a_F)^2 ] + E_z[ (D(G(z)) - a_R)^2 ]

    a_R and a_F are moving averages of D's logits on real and on generated images. Tseng et al. 2021, equation 6,
    https://arxiv.org/abs/2104.03310: for small sets of images. `weight` is lambda.

    The averages are from before the step, so that the penalty does not depend on micro-batches.

    Attributes:
        real: a_R, saved with the run.
        fake: a_F, saved with the run.
        num_averaged: number of steps averaged, saved with the run.

    Args:
        weight: coefficient.
        interval: D steps between penalties.
        decay: of the averages (0.99 in the authors' code).
        start: number of first steps without penalty, at least 1.
    """

    real: Tensor
    fake: Tensor
    num_averaged: Tensor

    def __init__(
        self, *, weight: float, interval: int = 1, decay: float = 0.99, start: int = 1000
    ) -> None:
        super().__init__(weight=weight, interval=interval)
        if not 0 <= decay < 1 or start < 1:
            raise InputError(
                f"LeCam: decay={decay} must lie in [0, 1) and start={start} be at least 1"
            )
        self.decay = decay
        self.start = start
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))
        self.register_buffer("num_averaged", torch.zeros((), dtype=torch.int64))
        self._seen: list[Tensor] = []  # logits [2, n] of this step's micro-batches

    def forward(self, step: DiscriminatorStep) -> Tensor:
        real, fake = step.real_logits.float(), step.fake_logits.float()
        means = [mean_per_sample(logits.detach()) for logits in (real, fake)]
        self._seen.append(torch.stack(means))
        penalty = (real - self.fake).square() + (fake - self.real).square()  # equation 6
        return penalty * (self.num_averaged >= self.start)

    @torch.no_grad()
    def after_step(self, network: nn.Module) -> None:
        """Update the averages with the step's logits."""
        if not self._seen:
            return  # the step of a lazy penalty
        real, fake = mean_over_ranks(torch.cat(self._seen, dim=1).mean(1))
        self._seen.clear()
        share = torch.where(self.num_averaged == 0, 1.0, 1 - self.decay)
        self.real.lerp_(real, share)
        self.fake.lerp_(fake, share)
        self.num_averaged += 1


class Consistency(DiscriminatorRegularizer):
    """Consistency regularization: D's output should not change under mirroring and small shifts.

        E_x[ (D(x) - D(T(x)))^2 ]                              CR: Zhang et al. 2020, https://arxiv.org/abs/1910.12027
          + E_z[ (D(G(z)) - D(T(G(z))))^2 ]                    bCR: Zhao et al. 2020, https://arxiv.org/abs/2002.04724

    T mirrors images horizontally with probability 1/2 and shifts them by a few pixels. `weight` is lambda (10 in both
    papers), the same for real and generated images.

    If D also sees vectors, such as codes, T leaves them unchanged.

    Args:
        weight: coefficient.
        interval: D steps between penalties.
        fakes: whether to include generated images (bCR); without, T's artifacts leak into them (Zhao et al. 2020).
        flip: whether T mirrors; not for images that change their meaning, such as digits.
        shift: largest shift along each axis, as a share of the image's side.
    """

    def __init__(
        self,
        *,
        weight: float,
        interval: int = 1,
        fakes: bool = True,
        flip: bool = True,
        shift: float = 0.125,
    ) -> None:
        super().__init__(weight=weight, interval=interval)
        if not 0 <= shift < 1 or not (flip or shift):
            raise InputError(
                f"Consistency: shift={shift} must lie in [0, 1), and with flip=false be above 0"
            )
        self.fakes = fakes
        self.flip = flip
        self.shift = shift

    def check_samples(self, spec: SampleSpec) -> None:
        if len(spec.encoded_shape) != 3:
            raise InputError(
                f"regularizer consistency mirrors and shifts images [C, H, W], and networks see {spec.kind.name} as "
                f"{list(spec.encoded_shape)}; choose another"
            )

    def forward(self, step: DiscriminatorStep) -> Tensor:
        penalty = (step.real_logits - self._logits(step, step.real)).float().square()
        if self.fakes:
            penalty = penalty + (step.fake_logits - self._logits(step, step.fake)).float().square()
        return penalty

    def _logits(self, step: DiscriminatorStep, x: DiscriminatorInput) -> Tensor:
        """Return D's logits of T(x)."""
        return step.logits(map_samples(lambda images: self.transform(images.detach()), x))

    def transform(self, images: Tensor) -> Tensor:
        """Apply T to images [N, C, H, W], with edge padding."""
        count, _, height, width = images.shape
        device = images.device
        rows = shifted(count, height, self.shift, device)  # [N, H]
        columns = shifted(count, width, self.shift, device)  # [N, W]
        if self.flip:
            mirrored = torch.rand(count, 1, device=device) < 0.5
            columns = torch.where(mirrored, width - 1 - columns, columns)
        items = torch.arange(count, device=device)[:, None, None]
        # with a slice between the indices, the channels come last
        return images[items, :, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def shifted(count: int, size: int, share: float, device: torch.device) -> Tensor:
    """Return the source index [count, size] of each position after a random shift per image."""
    most = int(share * size)
    by = torch.randint(-most, most + 1, (count, 1), device=device)
    return (torch.arange(size, device=device) + by).clamp(0, size - 1)


class LatentConsistency(DiscriminatorRegularizer):
    """Latent consistency, D's part of zCR: D's output should be the same for images of neighboring latents.

        E[ (D(G(z)) - D(G(z + dz)))^2 ],  dz ~ N(0, sigma^2 I)

    Zhao et al. 2020, section 2.2, https://arxiv.org/abs/2002.04724. G's part, which makes these two images
    differ, is `latent_diversity`. `weight` is lambda_dis.

    Args:
        weight: coefficient.
        interval: D steps between penalties.
        noise: sigma, standard deviation of dz.
    """

    def __init__(self, *, weight: float, interval: int = 1, noise: float = 0.05) -> None:
        super().__init__(weight=weight, interval=interval)
        if noise <= 0:
            raise InputError(f"LatentConsistency: noise={noise} must be positive")
        self.noise = noise

    def forward(self, step: DiscriminatorStep) -> Tensor:
        with torch.no_grad():
            near = step.generate(step.z + self.noise * torch.randn_like(step.z))
        return (step.fake_logits - step.logits(near)).float().square()


class LatentDiversity(GeneratorRegularizer):
    """Reward for G's change between neighboring latents, G's part of zCR; `weight` is lambda_gen.

    Zhao et al. 2020, section 2.2, https://arxiv.org/abs/2002.04724.

    Args:
        weight: coefficient.
        interval: G steps between penalties.
        noise: sigma, standard deviation of dz.
    """

    def __init__(self, *, weight: float, interval: int = 1, noise: float = 0.05) -> None:
        super().__init__(weight=weight, interval=interval)
        if noise <= 0:
            raise InputError(f"LatentDiversity: noise={noise} must be positive")
        self.noise = noise

    def forward(self, step: GeneratorStep) -> Tensor:
        there = step.generate(step.z + self.noise * torch.randn_like(step.z))
        changes = [
            (here - near).float().square().flatten(1).mean(1)
            for here, near in zip(samples_of(step.fake), samples_of(there), strict=True)
        ]
        return -torch.stack(changes).mean(0)


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Orthogonal(Regularizer):
    """Orthogonal regularization as relaxed by BigGAN: a layer's filters should be pairwise orthogonal, of any norm.

        sum over layers of || W W^T * (1 - I) ||_F^2,  W [out, in * kernel]

    Brock et al. 2019, equation 3, https://arxiv.org/abs/1809.11096. `weight` is beta (1e-4 in BigGAN). Returns one
    number, not one per sample.
    """

    def check(self, network: nn.Module) -> None:
        """Check that the network has filters."""
        if not any(has_filters(module) for module in network.modules()):
            raise InputError(
                f"Orthogonal: the {self.player} has neither convolutions nor linear layers"
            )

    def forward(self, step: DiscriminatorStep | GeneratorStep) -> Tensor:
        return non_orthogonality(step.network)


class GeneratorOrthogonal(Orthogonal, GeneratorRegularizer):
    """Orthogonal regularization of the generator."""


class DiscriminatorOrthogonal(Orthogonal, DiscriminatorRegularizer):
    """Orthogonal regularization of the discriminator."""


def non_orthogonality(network: nn.Module) -> Tensor:
    """Return the sum over layers; embeddings are left out, as in the paper's code."""
    terms = [overlap(filters(m)) for m in network.modules() if has_filters(m)]
    return torch.stack(terms).sum()  # equation 3


def has_filters(module: nn.Module) -> bool:
    """Whether the module is a convolution, transposed or not, or a linear layer."""
    return isinstance(module, (*CONVOLUTIONS, *TRANSPOSED, nn.Linear))


def filters(module: nn.Module) -> Tensor:
    """Return the weight with one row per output, [out, in * kernel]; under spectral norm the trained one."""
    if is_parametrized(module, "weight"):
        weight = module.parametrizations.weight.original  # type: ignore[union-attr]
    else:
        weight = module.weight
    assert isinstance(weight, Tensor)
    if isinstance(module, TRANSPOSED):
        weight = weight.transpose(0, 1)
    return weight.float().flatten(1)


def overlap(rows: Tensor) -> Tensor:
    """Return the sum of squared inner products between different rows."""
    gram = rows @ rows.T
    return (gram - gram.diagonal().diag()).square().sum()


class PathLength(GeneratorRegularizer):
    """Path length regularization: a step of fixed length in w should change the image by a fixed amount.

        E[ (||J_w^T y||_2 - a)^2 ],  J_w = dG(w) / dw,  y ~ N(0, I),  a the running mean of ||J_w^T y||_2

    Karras et al. 2020, section 3.2, equation 4, and appendix B, https://arxiv.org/abs/1912.04958. y is divided by the
    square root of the number of pixels, and the norm is the root mean square over the layers that take w. `weight` is
    gamma_pl (2 in the paper, with `interval` 4).

    Attributes:
        mean: the running mean a, saved with the run.

    Args:
        weight: coefficient.
        interval: G steps between penalties.
        decay: weight of the new value in the running mean a (0.01 in the paper).
        shrink: divisor of the batch size for the penalty, to save time and memory (2 in the paper).
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
        """Check that the generator has styles."""
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
    """Return ||J_w^T y|| per image, [N], with a graph for its own gradient.

    Args:
        images: [N, C, H, W], computed from `w`.
        w: styles [N, L, D].
        direction: y [N, C, H, W], divided by the square root of the number of pixels; None draws it.
    """
    if direction is None:
        pixels = images.shape[2] * images.shape[3]
        direction = torch.randn_like(images) / pixels**0.5
    (gradient,) = torch.autograd.grad((images * direction).sum(), w, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


def style_generator(network: nn.Module) -> StyleGeneratorNetwork:
    """Check that the network is a style generator that can be differentiated twice, and return it.

    Raises:
        InputError: when it is not.
    """
    if not isinstance(network, StyleGeneratorNetwork):
        raise InputError(
            f"regularizer path_length needs a generator with styles, which {type(network).__module__} has not; "
            "use model=stylegan2, or drop the penalty"
        )
    if not network.twice_differentiable:
        raise InputError(
            f"regularizer path_length differentiates the generator twice, which {type(network).__module__} cannot be; "
            "drop the penalty"
        )
    return network


class TopK(GeneratorRegularizer):
    """Top-k training: G is trained only on the images that D scores highest.

    Sinha et al. 2020, algorithm 1, https://arxiv.org/abs/2002.06224: k starts at the whole batch and shrinks to half
    of it, since D's gradient is misleading for images that are far from the data.

    At least one image of each micro-batch is kept.

    Args:
        share: k as a share of the batch, in (0, 1]. To shrink it, schedule it: `schedules.top_k.share`.
    """

    penalizes = False

    def __init__(self, *, share: float = 1.0) -> None:
        super().__init__(weight=0)
        if not 0 < share <= 1:
            raise InputError(f"TopK: share={share} must lie in (0, 1]")
        self.share = share

    def select(self, losses: Tensor, fake_logits: Tensor) -> Tensor:
        """Return the losses of the samples with the largest mean logits."""
        count = max(round(self.share * len(losses)), 1)
        return losses[mean_per_sample(fake_logits.detach()).topk(count).indices]


class WeightClipping(DiscriminatorRegularizer):
    """Weight clipping of the first WGAN: after each D step every parameter is clamped to [-limit, limit].

    Arjovsky et al. 2017, algorithm 1, https://arxiv.org/abs/1701.07875. Not a penalty, so it has neither
    weight nor interval.

    Args:
        limit: c, 0.01 in the paper.
    """

    penalizes = False

    def __init__(self, *, limit: float = 0.01) -> None:
        super().__init__(weight=0)
        if limit <= 0:
            raise InputError(f"WeightClipping: limit={limit} must be positive")
        self.limit = limit

    @torch.no_grad()
    def after_step(self, network: nn.Module) -> None:
        for parameter in network.parameters():
            parameter.clamp_(-self.limit, self.limit)
