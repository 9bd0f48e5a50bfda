"""The classifier of phantoms, and what protocol=phantoms says of real slices."""

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig

from gan_lab.config import build
from gan_lab.data.phantoms import Phantoms
from gan_lab.metrics.cache import MemoryChunks
from gan_lab.metrics.images import DatasetImages
from gan_lab.metrics.protocol import Protocol


def test_real_slices(compose: Callable[..., DictConfig]) -> None:
    training, held_out = (DatasetImages(Phantoms(split=split)) for split in ("train", "val"))
    protocol: Protocol = build(
        compose("protocol=phantoms", "protocol.num_fake=512", root="evaluate").protocol
    )
    protocol.load(torch.device("cpu"))
    protocol.measure_real(held_out, floor=training)
    found = {metric.key: metric.value for metric in protocol.measure(held_out, MemoryChunks())}
    assert found["fd_phantoms"] == pytest.approx(0, abs=1e-3) and found["ks_grey"] == 0
    assert found["accuracy_phantoms"] > 0.93
    assert 0 < found["fd_phantoms_real"] < 5 and 0 < found["ks_grey_real"] < 0.02
