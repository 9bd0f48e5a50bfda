"""Plots: their numbers and pixels."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from gan_lab.errors import InputError
from gan_lab.metrics import plots
from gan_lab.metrics.plots import (
    draw_classes,
    draw_components,
    draw_truncation,
    principal_components,
)


def color(path, rgb, tolerance=60):
    """Share of the pixels that are about of a color."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return (np.abs(pixels - np.array(rgb)).sum(2) < tolerance).mean()


ORANGE = (255, 127, 14)


def test_components_are_the_directions_of_largest_variance():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    scales = torch.tensor([0.1, 5.0, 0.1, 2.0, 0.1, 0.1])
    real = (torch.randn(500, 6, generator=generator) * scales) @ basis + 7
    moved = real + 3 * basis[1]
    ours, theirs, shares = principal_components(real, moved)
    assert ours.std(0).tolist() == pytest.approx([5, 2], rel=0.1)
    assert shares.sum() > 0.99 and shares[0] > 0.8
    shift = (theirs - ours).mean(0)
    assert abs(shift[0]) == pytest.approx(3, rel=0.01) and abs(shift[1]) < 0.2
    assert ours.mean(0).abs().max() < 1e-5


def test_features_of_both_sets_are_drawn(tmp_path):
    real, fake = torch.randn(300, 4), torch.randn(200, 4) + 4
    draw_components(real, fake, tmp_path / "new" / "features.png", title="a run")
    assert color(tmp_path / "new" / "features.png", (255, 255, 255)) > 0.5
    for rgb in ((255, 204, 159), (165, 201, 225)):  # of the marks, which let white through
        assert color(tmp_path / "new" / "features.png", rgb) > 0.002


def test_a_class_is_a_bar_as_long_as_its_value(tmp_path):
    for name, value in (("short", 1.0), ("long", 10.0)):
        draw_classes({"a": 10.0, "b": value}, tmp_path / f"{name}.png", title="fid")
    short, long = (color(tmp_path / f"{name}.png", ORANGE) for name in ("short", "long"))
    assert long / short == pytest.approx(20 / 11, rel=0.05)


def test_a_curve_with_one_axis_or_two(tmp_path):
    truncations = [0.3, 0.6, 1.0]
    draw_truncation(truncations, {"fid": [9, 5, 3]}, {}, tmp_path / "one.png", title="a")
    draw_truncation(
        truncations,
        {"fid": [9, 5, 3]},
        {"recall": [0.1, 0.3, 0.5]},
        tmp_path / "two.png",
        title="a",
    )
    blue = [color(tmp_path / f"{name}.png", (31, 119, 180)) for name in ("one", "two")]
    assert blue[0] == 0 and blue[1] > 0.001


def test_without_matplotlib_the_remedy_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"gan-laboratory\[plots\]"):
        plots.check_matplotlib()
