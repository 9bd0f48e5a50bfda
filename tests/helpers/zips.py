"""Zips of images."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

NAMES = [f"{i // 4:05d}/img{i:08d}.png" for i in range(10)]


def write_zip(
    path: Path, metadata: Any = None, *, names: list[str] = NAMES, size: tuple[int, int] = (6, 8)
) -> dict[str, np.ndarray]:
    """As NVIDIA's dataset tools write it: uncompressed PNG files, then dataset.json; returns name -> pixels."""
    rng = np.random.default_rng(0)
    written = {}
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_STORED) as archive:
        for name in names:
            written[name] = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            file = io.BytesIO()
            Image.fromarray(written[name]).save(
                file, format="png", compress_level=0, optimize=False
            )
            archive.writestr(name, file.getvalue())
        if metadata is not None:
            archive.writestr("dataset.json", json.dumps(metadata))
    return written
