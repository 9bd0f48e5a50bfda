"""A small classifier of images, trained on the spot: the same weights for the same images and seed."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_lab.metrics.features.digits import on_its_own

SIDE = 32  # pixels that it sees
WIDTH = 64  # of its features

_CHANNELS = 16  # of the first convolution
_BATCH = 64
_LEARNING_RATE, _WEIGHT_DECAY, _LABEL_SMOOTHING = 3e-3, 1e-2, 0.1


class ImageClassifier(nn.Module):
    """Three convolutions and a hidden layer, whose activations are the features.

    Args:
        channels: of images.
        num_classes: of logits.
    """

    def __init__(self, *, channels: int, num_classes: int) -> None:
        super().__init__()
        widths = [channels, *(_CHANNELS * 2**i for i in range(3))]
        self.body = nn.Sequential()
        for ins, outs in pairwise(widths):
            self.body.extend(
                [
                    nn.Conv2d(ins, outs, 3, padding=1, bias=False),
                    nn.BatchNorm2d(outs),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                ]
            )
        self.body.extend(
            [nn.Flatten(), nn.Linear(widths[-1] * (SIDE // 8) ** 2, WIDTH), nn.LeakyReLU(0.1)]
        )
        self.head = nn.Linear(WIDTH, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, 64] and logits [N, classes] of images [N, C, 32, 32] in [-1, 1]."""
        features = self.body(images)
        return features, self.head(features)

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Most likely class [N] of images [N, C, 32, 32] in [-1, 1]."""
        with torch.autocast("cpu", enabled=False):
            return torch.cat([self(part)[1].argmax(1) for part in images.split(256)])


def as_seen(images: Tensor) -> Tensor:
    """Return stored 8-bit images [N, C, H, W] as the classifier sees them, float32 [N, C, 32, 32] on the CPU."""
    values = images.cpu().float() / 127.5 - 1
    return F.interpolate(values, (SIDE, SIDE), mode="bilinear", antialias=True)


def train_classifier(
    images: Tensor, labels: Tensor, *, num_classes: int, steps: int, seed: int
) -> ImageClassifier:
    """Train on the CPU with one thread; no random state of the caller is read or moved.

    Args:
        images: as `as_seen` returns them.
        labels: int64 [N].
        num_classes: that there are.
        steps: of 64 images each.
        seed: of weights and batches.
    """
    with on_its_own(seed) as generator:
        classifier = ImageClassifier(channels=images.shape[1], num_classes=num_classes)
        optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=_WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, steps)
        for _ in range(steps):
            chosen = torch.randint(len(images), (_BATCH,), generator=generator)
            _, logits = classifier(images[chosen])
            loss = F.cross_entropy(logits, labels[chosen], label_smoothing=_LABEL_SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return classifier.eval().requires_grad_(False)
