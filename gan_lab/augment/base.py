"""What an augmentation is: a change of images before the discriminator sees them, real and generated alike."""

from collections.abc import Mapping

from torch import Tensor, nn


class Augmentation(nn.Module):
    """`forward(images [N, C, H, W]) -> images` of the same shape, differentiable as often as penalties need.

    A module, so that what it keeps (an adapted probability) is saved with the run. It draws from torch's generator of
    the images' device, which the loop seeds at each step. Its float attributes can be scheduled by name
    (`model.schedules.ada.p`).
    """

    def observe(self, real_logits: Tensor) -> None:
        """Look at D's logits [n] on a micro-batch of augmented real images, without their graph."""

    def adapt(self, images: int) -> None:
        """Act on what was observed; `images` is the number of real images of this D step over all ranks."""

    def figures(self) -> Mapping[str, Tensor]:
        """What to log of its state, scalars on its device; the key becomes `augment/<name>_<key>`."""
        return {}

    def strengthen(self) -> None:
        """Act from now on as it does at its dearest, whatever it has adapted to; for measuring what it costs."""
