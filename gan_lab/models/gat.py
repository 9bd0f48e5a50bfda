"""GAT: generative adversarial transformers, plain transformers in both players.

Hyun et al. 2025, https://arxiv.org/abs/2509.24935; what the paper leaves open is as in the authors' code (MIT),
https://github.com/hse1032/GAT. The generator is a transformer whose blocks w modulates. At four depths a linear output
gives an image, each added to the one before. The discriminator sees all four images with different amounts of noise,
most on the shallowest, so that shallow blocks learn coarse structure and deep ones details. The loss is relativistic
with approximate R1 and R2, which need no second derivatives (`gan_lab.training.regularizers`). Where DINOv2's weights
are on this machine, the discriminator also learns to predict DINOv2's features of real images.
"""

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, interpolate, silu

from gan_lab.console import say
from gan_lab.data.sample import Batch, Representation
from gan_lab.errors import InputError
from gan_lab.layers import stylegan
from gan_lab.layers.collectives import mean_over_ranks
from gan_lab.layers.networks import (
    ClassEmbedding,
    DiscriminatorInput,
    DiscriminatorNetwork,
    DiscriminatorOutput,
    Role,
    check_labels,
    label_vectors,
    tensors_of,
)
from gan_lab.layers.precision import to_fp32
from gan_lab.layers.resolutions import ImageSize
from gan_lab.layers.stylegan import StyleGeneratorNetwork, pixel_norm, truncated
from gan_lab.layers.transformer import (
    NORM_EPS,
    Branches,
    Recompute,
    SlowLinear,
    check_recompute,
    grid_of,
    images_of,
    initialize_xavier,
    patches_of,
    rotations,
    run_block,
    sine_positions,
)
from gan_lab.metrics.features.dinov2 import DINOv2
from gan_lab.seeding import random_state, set_random_state
from gan_lab.training.module import AdversarialModule

# size -> (depth, width, heads)
SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}

STAGES = 4  # images that the generator outputs, one per stage

MLP_RATIO = 4  # SwiGLU's hidden width is two thirds of it

SMALL_GAIN = 0.1  # initial scale of modulations and of D's residual branches

LEAST_INFORMATION = 0.125  # share of the shallowest image that noise leaves

NOISE_OFFSET = 0.01


class Mapping(stylegan.Mapping):
    """Mapping network: normalized z and class embedding to w by two layers with a hundredth of the learning rate.

    Attributes:
        w_avg: running mean of w of each class, [classes or 1, w_dim], updated by every pass in training mode.
    """

    def __init__(
        self, *, z_dim: int, num_classes: int, w_dim: int, num_ws: int, w_avg_beta: float
    ) -> None:
        super().__init__(
            z_dim=z_dim,
            num_classes=0,
            w_dim=w_dim,
            num_layers=0,
            num_ws=num_ws,
            w_avg_beta=w_avg_beta,
        )
        self.num_classes = num_classes
        self.table = ClassEmbedding(num_classes=num_classes, width=z_dim) if num_classes else None
        if self.table is not None:
            nn.init.normal_(self.table.weight, std=0.02)
        self.fc0 = SlowLinear(inputs=z_dim * (2 if num_classes else 1), outputs=w_dim)
        self.fc1 = SlowLinear(inputs=w_dim, outputs=w_dim)
        self.register_buffer("w_avg", torch.zeros(max(num_classes, 1), w_dim))

    def forward(
        self,
        z: Tensor | None,
        labels: Tensor | None = None,
        truncation: float = 1.0,
        truncated_layers: int | None = None,
    ) -> Tensor:
        """Map latents to styles w [N, L, w_dim]; see `gan_lab.layers.stylegan.Mapping.forward`."""
        w = self.styles(z, labels)
        if self.training:
            self.follow(w[:, 0].detach(), labels)
        return truncated(w, self.center(labels), truncation, truncated_layers)

    def to_w(self, z: Tensor | None, labels: Tensor | None) -> Tensor:
        assert z is not None
        check_labels(labels, self.num_classes)
        with torch.autocast(z.device.type, enabled=False):
            parts = [pixel_norm(to_fp32(z))]
            if self.table is not None:
                parts.insert(0, pixel_norm(to_fp32(self.table(labels))))
            return self.layers(torch.cat(parts, dim=1))

    def layers(self, inputs: Tensor) -> Tensor:
        """Map normalized inputs [N, z_dim or 2 z_dim] to w [N, w_dim]."""
        return self.fc1(silu(self.fc0(inputs)))

    def class_mean(self, z: Tensor) -> Tensor:
        """Return the mean of w over all classes at the same z [N, Z], [N, w_dim].

        As in the authors' code, z and embeddings are normalized over the classes here, not over their length, which
        leaves only the signs of z.
        """
        if self.table is None:
            raise ValueError("guidance needs classes, and the generator has none")
        of_z = pixel_norm(z[:, None].expand(-1, self.num_classes, -1))
        of_y = pixel_norm(self.table.weight[None].expand(z.shape[0], -1, -1))
        return (
            self.layers(torch.cat([of_y, of_z], dim=2).flatten(0, 1))
            .view(*of_y.shape[:2], -1)
            .mean(1)
        )

    def center(self, labels: Tensor | None) -> Tensor:
        """Return the center of truncation: the mean w of each label's class [N, 1, w_dim], or of all classes."""
        if labels is None or not self.num_classes:
            return self.w_avg.mean(0)[None, None]
        return (shares(labels, self.num_classes, self.w_avg) @ self.w_avg)[:, None]

    def follow(self, w: Tensor, labels: Tensor | None) -> None:
        """Update the running mean of each class in the batch with its w [N, w_dim]."""
        share = shares(labels, self.num_classes, w)  # [N, classes or 1]
        sums = torch.cat([share.T @ w, share.sum(0)[:, None]], dim=1)
        sums = mean_over_ranks(sums)
        total = sums[:, -1:]
        mean = sums[:, :-1] / total.clamp(min=1e-8)
        moved = torch.lerp(self.w_avg, mean.to(self.w_avg.dtype), 1 - self.w_avg_beta)
        self.w_avg.copy_(torch.where(total > 0, moved, self.w_avg))


def shares(labels: Tensor | None, num_classes: int, like: Tensor) -> Tensor:
    """Return the share of each class in each label, [N, num_classes]; ones [N, 1] without classes.

    Of label vectors, positive entries count; a vector without any counts as all classes equally.
    """
    if labels is None:
        return like.new_ones(like.shape[0], 1)
    vectors = label_vectors(labels, num_classes, like[:1].expand(labels.shape[0], -1)).clamp(min=0)
    total = vectors.sum(1, keepdim=True)
    return torch.where(total > 0, vectors / total.clamp(min=1e-8), 1 / num_classes)


class Generator(StyleGeneratorNetwork):
    """Mapping network and a transformer whose blocks w modulates, with image outputs at four depths.

    Args:
        image_size: side, or [height, width]; multiples of `patch`.
        channels: of the image, or of its latents.
        num_classes: 0 for an unconditional generator.
        size: "S", "B", "L" or "XL": depth, width and heads of the paper; each can be overridden.
        depth: blocks, a multiple of 4; a quarter of them for each stage.
        width: of tokens and of w.
        heads: of attention.
        patch: side of a token in pixels.
        z_dim: length of z, and of the class embedding.
        qk_norm: whether queries and keys are normalized.
        w_avg_beta: of the running mean of w, for each pass; there are two in a step.
        style_mixing: probability that an image in training has two styles (0 in the paper).
        recompute: activation checkpointing within blocks, to save memory (for two images of 32x32x4, both players of
            S/2 then keep 58 MiB instead of 576); "elementwise" recomputes all but matrix products and attention, which
            costs little time.

    Raises:
        InputError: for invalid or inconsistent sizes.
    """

    supports_z_truncation = False
    twice_differentiable = False  # fused attention is not
    mapping: Mapping
    synthesis: "Synthesis"
    level_ends = (1, 2)

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        size: str = "S",
        depth: int | None = None,
        width: int | None = None,
        heads: int | None = None,
        patch: int = 2,
        z_dim: int = 64,
        qk_norm: bool = True,
        w_avg_beta: float = 0.9975,
        style_mixing: float = 0.0,
        recompute: Recompute = False,
    ) -> None:
        depth, width, heads = dimensions(size, depth, width, heads)
        check_recompute(recompute)
        synthesis = Synthesis(
            grid=grid_of(image_size, patch),
            channels=channels,
            depth=depth,
            width=width,
            heads=heads,
            patch=patch,
            qk_norm=qk_norm,
            recompute=recompute,
        )
        super().__init__(
            synthesis=synthesis,
            mapping=Mapping(
                z_dim=z_dim,
                num_classes=num_classes,
                w_dim=width,
                num_ws=STAGES,
                w_avg_beta=w_avg_beta,
            ),
            z_dim=z_dim,
            w_dim=width,
            num_ws=STAGES,
            num_classes=num_classes,
            style_mixing=style_mixing,
        )

    @property
    def w_avg(self) -> Tensor:
        """Running mean of w over all classes, [w_dim]."""
        return self.mapping.w_avg.mean(0)

    def center(self, labels: Tensor | None = None) -> Tensor:
        return self.mapping.center(labels)

    def forward(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        truncation: float = 1.0,
        guidance: float = 1.0,
    ) -> Tensor:
        """Map z [N, Z] (and labels [N]) to images [N, C, H, W], roughly in [-1, 1].

        Args:
            z: latents.
            labels: of the images.
            truncation: psi; towards the mean w of the image's class.
            guidance: above 1, w is moved away from its mean over classes at the same z, by this factor.
        """
        w = self.styles(z, labels, truncation)
        if guidance != 1:
            mean = self.mapping.class_mean(z)[:, None]
            w = mean + guidance * (w - mean)
        return self.synthesis(w)

    def stages(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z [N, Z] (and labels [N]) to the images of all depths, [K, N, C, H, W], shallow to deep."""
        return self.synthesis.stages(self.styles(z, labels))


def dimensions(
    size: str, depth: int | None, width: int | None, heads: int | None
) -> tuple[int, int, int]:
    """Return depth, width and heads of a size, or those given.

    Raises:
        InputError: for an unknown size, or a depth without four stages.
    """
    if size not in SIZES:
        raise InputError(f"size={size!r} must be one of {', '.join(SIZES)}")
    given = [own or usual for own, usual in zip((depth, width, heads), SIZES[size], strict=True)]
    depth, width, heads = given
    if width % heads:
        raise InputError(f"heads={heads} do not divide width={width}")
    if depth < STAGES or depth // (depth // STAGES) != STAGES:
        raise InputError(f"depth={depth} has not {STAGES} stages; take a multiple of {STAGES}")
    return depth, width, heads


class Synthesis(nn.Module):
    """Synthesis network. Arguments as `Generator`'s, and the `grid` of tokens."""

    positions: Tensor
    turns: Tensor

    def __init__(
        self,
        *,
        grid: tuple[int, int],
        channels: int,
        depth: int,
        width: int,
        heads: int,
        patch: int,
        qk_norm: bool,
        recompute: Recompute,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.patch = patch
        self.recompute: Recompute = recompute
        self.every = depth // STAGES  # blocks of a stage
        place_tokens(self, grid, width, heads)
        self.blocks = nn.ModuleList(
            ModulatedBlock(width=width, heads=heads, qk_norm=qk_norm) for _ in range(depth)
        )
        self.outputs = nn.ModuleList(
            Output(width=width, values=patch**2 * channels) for _ in range(STAGES)
        )
        initialize_xavier(self)
        for layer in self.modules():
            if isinstance(layer, Modulation):
                nn.init.xavier_uniform_(layer.weight, gain=SMALL_GAIN)

    def forward(self, w: Tensor, noise: str = "none") -> Tensor:
        """Make images [N, C, H, W] of w [N, L, w_dim]; `noise` is ignored: there are no noise inputs."""
        return self.stages(w)[-1]

    def stages(self, w: Tensor) -> Tensor:
        """Make the images of all depths, [K, N, C, H, W]; the blocks of stage k read w [:, k]."""
        styles = silu(w).unbind(1)
        x = self.positions.to(w.dtype).expand(w.shape[0], -1, -1)
        made: list[Tensor] = []
        for stage, (style, output) in enumerate(zip(styles, self.outputs, strict=True)):
            for block in self.blocks[stage * self.every : (stage + 1) * self.every]:
                x = run_block(block, x, style, self.turns, recompute=self.recompute)
            image = images_of(output(x, style), self.grid, self.patch)
            made.append(made[-1] + image if made else image)
        return torch.stack(made)

    def affines(self) -> list[list["Modulation"]]:
        """Return the affine maps that read each of the styles."""
        return [
            [
                layer
                for module in (*self.blocks[k * self.every : (k + 1) * self.every], output)
                for layer in module.modules()
                if isinstance(layer, Modulation)
            ]
            for k, output in enumerate(self.outputs)
        ]


class Modulation(nn.Linear):
    """Modulation of a block by w; near 0 at first, so that blocks start near the identity."""

    weight_gain = 1.0


class ModulatedBlock(Branches):
    """Attention and SwiGLU, each with an input scale and an output gate from w."""

    def __init__(self, *, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__(width=width, heads=heads, qk_norm=qk_norm, hidden=hidden_width(width))
        self.norm = nn.RMSNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.modulation = Modulation(width, 4 * width)

    def forward(self, x: Tensor, style: Tensor, turns: Tensor) -> Tensor:
        """Map tokens [N, T, width] to the same shape; `style` [N, width] is silu(w)."""
        scale1, gate1, scale2, gate2 = self.modulation(style)[:, None].chunk(4, dim=2)

        def attended(x: Tensor) -> Tensor:
            return self.norm(x) * (1 + scale1)

        def mapped(x: Tensor) -> Tensor:
            return self.norm(x) * (1 + scale2)

        return self.add(x, turns, (attended, mapped), (gate1, gate2))


class Output(nn.Module):
    """Linear output: tokens to the values of their patches."""

    def __init__(self, *, width: int, values: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=NORM_EPS, elementwise_affine=False)
        self.linear = nn.Linear(width, values)
        self.modulation = Modulation(width, width)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map tokens [N, T, width] to [N, T, values]."""
        return self.linear(self.norm(x) * (1 + self.modulation(style)[:, None]))


def place_tokens(
    network: nn.Module, grid: tuple[int, int], width: int, heads: int, *, before: int = 0
) -> None:
    """Register a network's position embeddings and rotary angles; `before` tokens come first and have no position."""
    turns = rotations(grid, width // heads, before=before)
    network.register_buffer("positions", sine_positions(grid, width), persistent=False)
    network.register_buffer("turns", turns, persistent=False)


def hidden_width(width: int) -> int:
    """Return SwiGLU's hidden width."""
    return int(2 / 3 * int(width * MLP_RATIO))


class Discriminator(DiscriminatorNetwork):
    """Transformer on the patches of four images at once; the logit is a product of its class token and the embedding.

    Args:
        image_size: side, or [height, width]; multiples of `patch`.
        channels: of the image, or of its latents.
        num_classes: 0 for an unconditional discriminator, whose logit is linear in the class token.
        size: as the generator's; likewise `depth`, `width`, `heads`, `patch`, `qk_norm` and `recompute`.
        label_dim: length of the two vectors whose product is the logit.
        feature_dim: width of DINOv2's features, which it learns to predict; 0 for none.
        feature_hidden: width of the layers that predict them.
        feature_model: which DINOv2; without its weights on this machine there is no feature loss, and the log says so.
        feature_weight: of the feature loss.

    Raises:
        InputError: for invalid or inconsistent sizes.
    """

    positions: Tensor
    turns: Tensor

    def __init__(
        self,
        *,
        image_size: ImageSize,
        channels: int,
        num_classes: int = 0,
        size: str = "S",
        depth: int | None = None,
        width: int | None = None,
        heads: int | None = None,
        patch: int = 2,
        label_dim: int = 2048,
        feature_dim: int = 0,
        feature_hidden: int = 2048,
        feature_model: str = "dinov2-vit-b-14",
        feature_weight: float = 1.0,
        qk_norm: bool = True,
        recompute: Recompute = False,
    ) -> None:
        super().__init__()
        depth, width, heads = dimensions(size, depth, width, heads)
        check_recompute(recompute)
        self.num_classes = num_classes
        self.grid = grid_of(image_size, patch)
        self.patch = patch
        self.feature_dim = feature_dim
        self.feature_model = feature_model
        self.feature_weight = feature_weight
        self.recompute: Recompute = recompute
        place_tokens(self, self.grid, width, heads, before=1)
        self.embed = nn.Linear(STAGES * channels * patch**2, width)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.blocks = nn.ModuleList(
            Block(width=width, heads=heads, qk_norm=qk_norm) for _ in range(depth)
        )
        self.norm = nn.RMSNorm(width, eps=NORM_EPS)
        self.linear = nn.Linear(width, label_dim if num_classes else 1)
        self.head: nn.Module | None = None
        if feature_dim:
            self.head = nn.Sequential(
                nn.Linear(width, feature_hidden),
                nn.SiLU(),
                nn.Linear(feature_hidden, feature_hidden),
                nn.SiLU(),
                nn.Linear(feature_hidden, feature_dim),
            )
        initialize_xavier(self)
        self.classes: nn.Module | None = None
        if num_classes:
            table = ClassEmbedding(num_classes=num_classes, width=label_dim)
            nn.init.normal_(table.weight, std=0.02)
            self.classes = nn.Sequential(
                table,
                SlowLinear(inputs=label_dim, outputs=label_dim),
                nn.SiLU(),
                SlowLinear(inputs=label_dim, outputs=label_dim),
            )

    def forward(self, x: DiscriminatorInput, labels: Tensor | None = None) -> Tensor:
        """Map images of all stages (and labels [N]) to logits [N].

        Args:
            x: K tensors [N, C, H, W], or [K, N, C, H, W], shallow to deep; or one for all stages.
            labels: of the images.
        """
        return self.logits(self.encode(x), labels)

    def discriminate(
        self, x: DiscriminatorInput, labels: Tensor | None, role: Role | None
    ) -> DiscriminatorOutput:
        """Return logits [N] and, for real images, the predicted features [N, 1 + T, F]."""
        tokens = self.encode(x)
        predicted = self.head(tokens) if self.head is not None and role == "real" else None
        return DiscriminatorOutput(self.logits(tokens, labels), features=predicted)

    def features(
        self, x: DiscriminatorInput, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the predicted features of whole images [N, 1, F] and of patches [N, T, F]."""
        if self.head is None:
            raise ValueError("feature_dim=0: this discriminator predicts no features")
        predicted = self.head(self.encode(x))
        return predicted[:, :1], predicted[:, 1:]

    def encode(self, x: DiscriminatorInput) -> Tensor:
        """Map images of all stages to tokens [N, 1 + T, width], the class token first."""
        stages = tuple(x) if isinstance(x, Tensor) and x.ndim == 5 else tensors_of(x)
        if len(stages) == 1:
            stages = stages * STAGES
        tokens = self.embed(patches_of(torch.cat(stages, dim=1), self.patch))
        tokens = tokens + self.positions.to(tokens.dtype)
        whole = self.cls_token.expand(tokens.shape[0], -1, -1).to(tokens.dtype)
        tokens = torch.cat([whole, tokens], dim=1)
        # a penalty is going to differentiate the gradient with respect to the images once more
        twice = self.cls_token.requires_grad and any(part.requires_grad for part in stages)
        for block in self.blocks:
            tokens = run_block(block, tokens, self.turns, twice, recompute=self.recompute)
        return tokens

    def logits(self, tokens: Tensor, labels: Tensor | None) -> Tensor:
        """Map tokens [N, 1 + T, width] (and labels [N]) to logits [N]."""
        check_labels(labels, self.num_classes)
        made = self.linear(self.norm(tokens[:, 0]))
        return made[:, 0] if self.classes is None else (made * self.classes(labels)).sum(1)


class Block(Branches):
    """Transformer block: attention and SwiGLU, each with LayerScale that starts at 0.1."""

    def __init__(self, *, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__(width=width, heads=heads, qk_norm=qk_norm, hidden=hidden_width(width))
        self.norm1 = nn.RMSNorm(width, eps=NORM_EPS)
        self.scale1 = nn.Parameter(torch.full((width,), SMALL_GAIN))
        self.norm2 = nn.RMSNorm(width, eps=NORM_EPS)
        self.scale2 = nn.Parameter(torch.full((width,), SMALL_GAIN))

    def forward(self, x: Tensor, turns: Tensor, twice: bool = False) -> Tensor:
        """Map tokens [N, 1 + T, width] to the same shape; `twice` as in `Attention`."""
        return self.add(x, turns, (self.norm1, self.norm2), (self.scale1, self.scale2), twice=twice)


# Nested noise of the stages.


def noise_levels(count: int = STAGES) -> list[float]:
    """Return t_k of each stage, shallow to deep: 1 - 0.125^(1 - k / (K - 1)) + 0.01."""
    return [1 - LEAST_INFORMATION ** (1 - k / (count - 1)) + NOISE_OFFSET for k in range(count)]


def nested_noise(stages: Tensor, noise: Tensor) -> Tensor:
    """Mix the images of all stages with noise; a shallower stage has the noise of the deeper ones and more.

    x_k' = (1 - t_k) x_k + e_k with e_k of variance t_k^2: from deep to shallow, e is scaled as the image is, by
    (1 - t_k) / (1 - t_(k + 1)), and fresh noise adds the missing variance.

    Args:
        stages: [K, N, C, H, W], shallow to deep.
        noise: standard normal, of the same shape, that of the deepest stage first.
    """
    mixed: list[Tensor] = []
    total: Tensor | float = 0.0
    before = 0.0
    levels = noise_levels(len(stages))
    for image, t, more in zip(reversed(stages.unbind()), levels[::-1], noise, strict=True):
        decay = (1 - t) / (1 - before)
        total = decay * total + (t**2 - (decay * before) ** 2) ** 0.5 * more
        mixed.append((1 - t) * image + total)
        before = t
    return torch.stack(mixed[::-1])


class GAT(AdversarialModule):
    """The training loop on images of all stages, with the same augmentation for all stages and nested noise."""

    generator: Generator
    _teacher: DINOv2 | None = None

    def setup(self, stage: str) -> None:
        """Load the network whose features D predicts, if its weights are there, and log it."""
        super().setup(stage)
        network = self.discriminator
        if not (
            isinstance(network, Discriminator) and network.feature_dim and network.feature_weight
        ):
            return
        teacher = DINOv2(model=network.feature_model)
        if teacher.outputs["features"] != network.feature_dim:
            raise InputError(
                f"model.discriminator.feature_dim={network.feature_dim}: {network.feature_model} has features "
                f"of {teacher.outputs['features']}; set it to that, or to 0"
            )
        path = teacher.published.usual_path
        if not path.is_file():
            say(f"gat: no feature loss, the weights of {network.feature_model} are not at {path}")
            return
        teacher.load(self.trainer.strategy.root_device)
        self._teacher = teacher
        say(f"gat: D learns to predict the features of {network.feature_model}")

    def fake(self, z: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Generate the images of all stages."""
        return tuple(self.generator.stages(z, batch.labels))

    def real(self, batch: Batch) -> tuple[Tensor, ...]:
        """Repeat real images for all stages."""
        return (batch.real,) * STAGES

    def augment(self, x: DiscriminatorInput) -> tuple[Tensor, ...]:
        """Augment all stages alike, then mix each with its noise."""
        return self._with_noise(self._changed_alike(x))

    def discriminate(
        self, x: DiscriminatorInput, batch: Batch, role: Role | None
    ) -> DiscriminatorOutput:
        stages = self._changed_alike(x)
        output = self.discriminator.discriminate(self._with_noise(stages), batch.labels, role)
        if output.features is None or self._teacher is None:
            return output
        assert isinstance(self.discriminator, Discriminator)
        error = self.discriminator.feature_weight * self._feature_error(output.features, stages[-1])
        return replace(output, losses={"features": error})

    def _changed_alike(self, x: DiscriminatorInput) -> tuple[Tensor, ...]:
        stages = tensors_of(x)
        if len(stages) == 1:
            stages = stages * STAGES
        if not self.augmentations:
            return stages
        state = random_state(self.device)
        changed = []
        for image in stages:
            set_random_state(self.device, state)
            made = self.augmentations(image)
            assert isinstance(made, Tensor)
            changed.append(made)
        return tuple(changed)

    def _with_noise(self, stages: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        images = torch.stack(stages)
        return tuple(nested_noise(images, torch.randn_like(images)))

    def _feature_error(self, predicted: Tensor, images: Tensor) -> Tensor:
        """Return 1 - cosine between predicted [N, 1 + T, F] and DINOv2's features, of image and patches, [N]."""
        assert self._teacher is not None
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            decode = cast(Representation, self.representation).decode
            pixels = decode(images.float())
            wanted = self._teacher.tokens(pixels)  # [N, 1 + T', F]
            side = round((wanted.shape[1] - 1) ** 0.5)
            places = wanted[:, 1:].transpose(1, 2).unflatten(2, (side, side))
            grid = cast(Discriminator, self.discriminator).grid
            places = interpolate(places, size=grid, mode="bicubic")
            places = places.flatten(2).transpose(1, 2)
        whole = 1 - cosine_similarity(predicted[:, 0].float(), wanted[:, 0], dim=-1)
        return whole + (1 - cosine_similarity(predicted[:, 1:].float(), places, dim=-1)).mean(1)
