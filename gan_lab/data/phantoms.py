"""Phantoms for quick runs: slices of 320 made-up patients, 12 bits in 16-bit images, three classes, no download.

A body with a bright rim holds an organ. The class says what the organ is made of, "smooth", "striped" or "speckled",
and how large it is on average; the patient says how large and how bright body and organ are, where the organ lies, how
it is turned, and how fine its texture is. Eight slices go through each patient, and show less of both at their ends.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from gan_lab.data.base import ImageDataset, check_split, digest
from gan_lab.data.deep_images import DeepImage, window_of
from gan_lab.data.metadata import MetadataTable
from gan_lab.data.transform import ImageSize, parse_size
from gan_lab.errors import InputError

CLASSES = ("smooth", "striped", "speckled")
PATIENTS, SLICES = 320, 8
HIGHEST = 4095  # of 12 bits

_VERSION = 1  # of the recipe: part of the fingerprint
_VAL_EVERY = 5  # patients
_SIZES = (0.30, 0.36, 0.42)  # radius of a class's organs, in halves of the image
_ENDS = 0.8  # height of the outermost slices, where 1 is the top of the body
_NOISE = 12.0  # standard deviation of a level, everywhere


class Phantoms(ImageDataset):
    """The slices: 2,048 of 256 patients to train on and 512 of 64 others to validate on, always the same.

    Args:
        split: "train" or "val".
        image_size: one number, at least 16; patients look alike at all sizes.
        flip: append the mirror images.

    Raises:
        InputError: for options out of range.
    """

    in_memory = True
    pixel_type = torch.uint16

    def __init__(self, *, split: str, image_size: ImageSize = 64, flip: bool = False) -> None:
        check_split(split)
        size = parse_size(image_size)
        if size is None or size[0] != size[1] or size[0] < 16:
            raise InputError(f"data.image_size={image_size}; allowed: one number, at least 16")
        numbers = [n for n in range(PATIENTS) if (n % _VAL_EVERY == 0) == (split == "val")]
        patients = [Patient.numbered(n) for n in numbers]
        self._images = torch.from_numpy(
            np.concatenate([patient.slices(size[0]) for patient in patients])[:, None]
        )
        kind = DeepImage(bits=16, channels=1, window=(0, HIGHEST))
        names = [f"patient{n:04}" for n in numbers]
        groups = [name for name in names for _ in range(SLICES)]
        super().__init__(
            split=split,
            image_size=size,
            channels=1,
            class_names=CLASSES,
            labels=np.repeat([patient.label for patient in patients], SLICES),
            flip=flip,
            kind=kind,
            representation=window_of(kind.window, bits=16),
            groups=groups,
        )
        self._table = MetadataTable(
            files=[f"{name}/slice{k:04}.png" for name in names for k in range(SLICES)],
            labels=self.labels,
            class_names=list(CLASSES),
            groups=groups,
            splits=[split] * self.num_stored,
        )
        self._fingerprint = digest("phantoms", _VERSION, size, split, flip)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def metadata(self) -> MetadataTable:
        return self._table

    def name(self, index: int) -> str:
        return self._table.files[index]

    def load(self, index: int) -> Tensor:
        """Stored slice `index` as uint16 [1, H, W]."""
        return self._images[index]

    def _load_batch(self, stored: NDArray[np.int64]) -> tuple[Tensor, NDArray[np.int64]]:
        return self._images[torch.from_numpy(stored)], stored


@dataclass(frozen=True, kw_only=True)
class Patient:
    """What a patient's slices have in common. Lengths are in halves of the image, angles in radians.

    Attributes:
        number: seeds the textures.
        label: of the class.
        body: half axes.
        organ: half axes.
        centre: of the organ.
        turn: of the organ.
        levels: of body, organ and rim.
        grain: of the texture: half a stripe, or three speckles.
    """

    number: int
    label: int
    body: tuple[float, float]
    organ: tuple[float, float]
    centre: tuple[float, float]
    turn: float
    levels: tuple[float, float, float]
    grain: float

    @classmethod
    def numbered(cls, number: int) -> "Patient":
        """Return patient `number`, always the same."""
        random = np.random.default_rng([_VERSION, number])
        label = int(random.integers(len(CLASSES)))
        width = _SIZES[label] * random.uniform(0.85, 1.15)
        x, y = random.uniform(-0.2, 0.2, 2).tolist()
        return cls(
            number=number,
            label=label,
            body=(random.uniform(0.75, 0.92), random.uniform(0.6, 0.75)),
            organ=(width, width * random.uniform(0.6, 0.8)),
            centre=(x, 0.5 * y),
            turn=random.uniform(-0.6, 0.6),
            levels=(
                random.uniform(800, 1100),
                random.uniform(1700, 2500),
                random.uniform(2900, 3500),
            ),
            grain=random.uniform(0.1, 0.14),
        )

    def slices(self, size: int, count: int = SLICES) -> NDArray[np.uint16]:
        """Return `count` slices [count, size, size] from the lower to the upper end."""
        random = np.random.default_rng([_VERSION, self.number, 1])
        heights = np.linspace(-_ENDS, _ENDS, count)
        return np.stack([self._slice(size, height, random) for height in heights])

    def _slice(self, size: int, height: float, random: np.random.Generator) -> NDArray[np.uint16]:
        y, x = np.mgrid[:size, :size] / (size - 1) * 2 - 1
        scale = np.sqrt(1 - height**2)
        edge = 2 / size  # a pixel
        in_body = _inside(x, y, self.body, scale, edge)
        in_rim = in_body - _inside(x, y, self.body, scale - 0.08, edge)
        dx, dy = x - self.centre[0] * scale, y - self.centre[1] * scale
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        across, along = cos * dx + sin * dy, cos * dy - sin * dx
        in_organ = _inside(across, along, self.organ, scale, edge)
        body, organ, rim = self.levels
        texture = self._texture(across, size, random)
        levels = 30 + in_body * (body - 30)
        levels += in_organ * (organ + 350 * texture - levels)
        levels += in_rim * (rim - levels)
        noise = random.normal(0, _NOISE, levels.shape)
        return np.rint(np.clip(levels + noise, 0, HIGHEST)).astype(np.uint16)

    def _texture(
        self, across: NDArray[np.float64], size: int, random: np.random.Generator
    ) -> NDArray[np.float64]:
        """Return the organ's texture [size, size], about from -1 to 1."""
        phase, speckles = random.uniform(0, 2 * np.pi), random.normal(size=(size, size))
        if CLASSES[self.label] == "striped":
            return np.sin(np.pi * across / self.grain + phase)
        if CLASSES[self.label] == "speckled":
            blurred = gaussian_filter(speckles, self.grain / 6 * size / 2)
            return np.clip(blurred / blurred.std() / 2, -1, 1)
        return np.zeros_like(across)


def _inside(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    axes: tuple[float, float],
    scale: float,
    edge: float,
) -> NDArray[np.float64]:
    """Return 1 inside of an ellipse, 0 outside, and what lies between on its edge, about a pixel wide."""
    axes = (axes[0] * scale, axes[1] * scale)
    distance = (np.hypot(x / axes[0], y / axes[1]) - 1) * min(axes)
    return np.clip(0.5 - distance / edge, 0, 1)
