"""A trained generator as a function of latents, of styles and of labels; no image depends on others of its batch."""

from typing import cast

import torch
from torch import Tensor

from gan_lab.errors import InputError
from gan_lab.layers.networks import GeneratorNetwork, StyleGeneratorNetwork
from gan_lab.layers.stylegan import Mapping
from gan_lab.sampling.latents import Seeds, in_passes, numbers
from gan_lab.sampling.rendering import (
    ImageNoise,
    Rendering,
    check_noise_mode,
    check_rendering,
    check_truncation,
    kind_of,
    noise_seeds,
)
from gan_lab.sampling.styles import ClassCenters, moved_styles

PLAIN = Rendering()


class Synthesizer:
    """Makes styles of latents, and images of either, in forward passes that always have 16 images.

    Args:
        generator: in evaluation mode.
    """

    def __init__(self, generator: GeneratorNetwork) -> None:
        self.generator = generator
        self._centers: ClassCenters | None = None

    @property
    def kind(self) -> str:
        """Name of the architecture."""
        return kind_of(self.generator)

    @property
    def num_classes(self) -> int:
        """Number of classes that labels choose from, 0 for an unconditional generator."""
        return self.generator.num_classes

    @property
    def device(self) -> torch.device:
        """Where images are computed."""
        return next(self.generator.parameters()).device

    @property
    def has_styles(self) -> bool:
        """Whether truncation acts on styles w and not on z."""
        return any(isinstance(part, Mapping) for part in self.generator.children())

    @property
    def styled(self) -> StyleGeneratorNetwork:
        """The generator, one with styles.

        Raises:
            InputError: for another one.
        """
        if not self.has_styles:
            raise InputError(
                f"{self.kind} has no styles w; stylegan, stylegan2 and stylegan3 have. Others vary by z alone"
            )
        return cast(StyleGeneratorNetwork, self.generator)

    def render(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        rendering: Rendering = PLAIN,
        *,
        seed: Seeds = 0,
        start: int = 0,
    ) -> Tensor:
        """Make images [N, C, H, W] of latents [N, Z] and labels, on the generator's device.

        Args:
            z: as `latents` returns them; a threshold was applied there.
            labels: [N], or vectors [N, num_classes].
            rendering: of which psi counts here.
            seed: of random noise, as in `latents`; likewise `start`.
        """
        if not self.has_styles:
            with torch.no_grad():
                return in_passes(self.generator, z, labels, device=self.device)
        w = self.styles(z, labels, truncation=rendering.truncation, center=rendering.center)
        return self.synthesize(
            w, noise=rendering.noise, seed=seed, start=start, transform=rendering.transform()
        )

    def images(self, z: Tensor, labels: Tensor | None = None, *, psi: float = 1.0) -> Tensor:
        """Make images [N, C, H, W] of latents [N, Z] and labels; `psi` is for generators with styles."""
        if psi != 1:
            self.styled  # noqa: B018
        return self.render(z, labels, Rendering(truncation=psi))

    @torch.no_grad()
    def styles(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        *,
        truncation: float | None = None,
        center: str = "mean",
    ) -> Tensor:
        """Map latents to styles w [N, L, D], on the generator's device and without gradients.

        Args:
            z: [N, Z].
            labels: int64 [N], or vectors [N, num_classes] that mix classes.
            truncation: psi; None for none.
            center: what psi moves w towards: the "mean" of all images, or that of the image's "class".

        Raises:
            InputError: for a generator without styles, or `center="class"` where there are no classes.
        """
        generator = self.styled
        w = in_passes(lambda z, y: generator.styles(z, y, 1.0), z, labels, device=self.device)
        return self.truncate(w, labels, truncation=truncation, center=center)

    @torch.no_grad()
    def truncate(
        self,
        w: Tensor,
        labels: Tensor | None = None,
        *,
        truncation: float | None = None,
        center: str = "mean",
    ) -> Tensor:
        """Move styles w [N, L, D] towards a centre; arguments as in `styles`."""
        generator = self.styled
        check_rendering(self.generator, Rendering(truncation, center), styles=True)
        if truncation is None or truncation == 1:
            return w
        towards = self.center(labels if center == "class" else None).expand_as(w)
        return moved_styles(w, towards, truncation, generator.truncation_cutoff, self.device)

    def center(self, labels: Tensor | None = None) -> Tensor:
        """Return the mean of w: of all images, [1, 1, D]; or of each label's class, [N, L, D].

        That of all was followed in training. That of a class is the mean of 4096 latents, drawn from seed 0, whatever
        the seed of the images; it is measured once.
        """
        if labels is None:
            (mapping,) = (part for part in self.generator.children() if isinstance(part, Mapping))
            return mapping.w_avg[None, None]
        if self._centers is None:
            self._centers = ClassCenters(self.styled)
        return self._centers.of(labels.to(self.device))

    @torch.no_grad()
    def synthesize(
        self,
        w: Tensor,
        *,
        noise: str = "const",
        seed: Seeds = 0,
        start: int = 0,
        transform: Tensor | None = None,
    ) -> Tensor:
        """Make images [N, C, H, W] of styles w [N, L, D], on the generator's device and without gradients.

        Args:
            w: as `styles` returns them.
            noise: of StyleGAN and StyleGAN2: "const", "none", or "random", drawn for each image from its seed.
            seed: of random noise: that of all, or one for each image, as in `latents`; likewise `start`.
            transform: of the image plane, for StyleGAN3, [3, 3] or [N, 3, 3]: where in the unmoved image, in shares of
                its side from the middle, the new one looks; see `gan_lab.sampling.rendering.look_up`.

        Raises:
            InputError: for a generator without styles, noise or transform as they are asked for.
        """
        generator = self.styled
        check_noise_mode(self.generator, noise)
        if transform is None:
            if noise != "random":
                return in_passes(lambda w: generator.synthesis(w, noise), w, device=self.device)
            return in_passes(
                lambda w, seeds: generator.synthesis(w, ImageNoise(seeds)),
                *(w, noise_seeds(numbers(len(w), seed, start))),
                device=self.device,
            )
        if not self.generator.supports_transform:
            raise InputError(f"{self.kind} has no input that a transform could move; stylegan3 has")
        moved = self.styled
        return in_passes(
            lambda w, transform: moved.synthesis(w, noise, transform),
            *(w, transform.to(w).expand(len(w), 3, 3)),
            device=self.device,
        )

    def check_truncation(self, truncation: float | None) -> None:
        """Refuse a truncation that means nothing to this generator.

        Raises:
            InputError: with the reason.
        """
        check_truncation(self.generator, truncation, styles=self.has_styles)
