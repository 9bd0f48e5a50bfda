"""Few digits to train on, beside all those that are held out."""

from typing import Any

from gan_lab.data.base import MemoryImages
from gan_lab.data.builtin import Digits

NUM = 50


class FewDigits(MemoryImages):
    """The first 50 training digits, or all 360 that are held out."""

    def __init__(self, *, split: str, flip: bool = False, **options: Any) -> None:
        whole = Digits(split=split, flip=False, **options)
        batch = whole.__getitems__(range(NUM if split == "train" else whole.num_stored))
        assert batch.labels is not None
        super().__init__(
            pixels=batch.real.permute(0, 2, 3, 1).numpy(),
            labels=batch.labels.numpy(),
            class_names=whole.class_names,
            split=split,
            image_size=None,
            crop="none",
            resample="bicubic",
            channels=None,
            flip=flip,
        )
