"""Every metric has a direction, by its key."""

import inspect
from importlib import import_module
from pkgutil import iter_modules

import pytest

import gan_lab.metrics
from gan_lab.metrics.base import direction
from gan_lab.metrics.feature_metrics import ProtocolMetric
from gan_lab.metrics.features.inception import Inception

# what neither more nor less of is better: the same as real images have is; and what may be any metric of torchmetrics
UNDECIDED = {"diversity", "torchmetrics"}


def kinds() -> list[type[ProtocolMetric]]:
    modules = [
        import_module(f"gan_lab.metrics.{m.name}") for m in iter_modules(gan_lab.metrics.__path__)
    ]
    found = {c for m in modules for c in vars(m).values() if inspect.isclass(c)}
    return sorted(
        (c for c in found if issubclass(c, ProtocolMetric) and hasattr(c, "short")),
        key=lambda c: c.__name__,
    )


def test_there_are_metrics() -> None:
    assert len(kinds()) >= 10


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_of_every_kind_of_metric(kind: type[ProtocolMetric]) -> None:
    for name in (f"{kind.short}_digits_1437", f"{kind.short}_clip_50k_full"):
        found = direction(f"metrics/{name}")
        assert (found is None) == (kind.short in UNDECIDED), name


@pytest.mark.parametrize("resizer", ["tensorflow", "clean"])
def test_of_every_name_of_inceptions(resizer: str) -> None:
    for (kind, _), name in Inception(resizer=resizer).names.items():
        assert direction(f"{name}50k") == ("max" if kind == "score" else "min")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("metrics/fd_digits", "min"),
        ("fid50k_full", "min"),
        ("fid50k_real10k", "min"),
        ("clean_kid5k", "min"),
        ("ppl_w_full_50k", "min"),
        ("kl_modes", "min"),
        ("is10k", "max"),
        ("recall_clip_10k", "max"),
        ("metrics/accuracy_digits", "max"),
        ("modes", "max"),
        ("eqt50k_int", "max"),
        ("metrics/fd_digits_real", None),
        ("metrics/accuracy_digits_se", None),
        ("is10k_std", None),
        ("island", None),
        ("loss/d", None),
        ("health/diversity", None),
    ],
)
def test_by_name(key: str, expected: str | None) -> None:
    assert direction(key) == expected
