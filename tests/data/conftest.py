"""Pictures that the tests write."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
WriteImages = Callable[..., dict[str, Pixels]]


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test."""
    folder = tmp_path / "cache_of_gan_lab"
    folder.mkdir()
    monkeypatch.setenv("GAN_LAB_CACHE", str(folder))
    return folder


@pytest.fixture
def write_images() -> WriteImages:
    """Write PNG files with random pixels; returns relative name -> [H, W, C]."""

    def write(
        root: Path,
        names: list[str],
        *,
        size: tuple[int, int] = (6, 8),
        channels: int = 3,
        **options: Any,
    ) -> dict[str, Pixels]:
        rng = np.random.default_rng(len(names))
        written = {}
        for name in names:
            pixels = rng.integers(0, 256, (*size, channels), dtype=np.uint8)
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(path, **options)
            written[name] = pixels
        return written

    return write
