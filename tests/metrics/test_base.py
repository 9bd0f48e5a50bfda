from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from gan_lab.metrics import NoMetrics
from gan_lab.metrics.auto import MetricsByData
from gan_lab.metrics.digits import DigitsMetrics
from gan_lab.metrics.inception import InceptionMetrics

CONF = Path(__file__).parents[2] / "conf"


def make(name: str, *overrides: str):
    with initialize_config_dir(version_base=None, config_dir=str(CONF)):
        return instantiate(compose(overrides=[f"+metrics={name}", *overrides]).metrics)


@pytest.mark.parametrize(
    ("name", "kind", "best"),
    [
        ("auto", MetricsByData, None),
        ("none", NoMetrics, None),
        ("digits", DigitsMetrics, "fd_digits"),
        ("fid", InceptionMetrics, "fid10k"),
        ("fid50k", InceptionMetrics, "fid50k"),
    ],
)
def test_every_config_makes_its_metrics(name, kind, best):
    metrics = make(name)
    assert type(metrics) is kind
    assert metrics.best == best and metrics.mode == "min"


def test_the_list_above_is_complete():
    assert {path.stem for path in (CONF / "metrics").glob("*.yaml")} == {
        "auto",
        "none",
        "digits",
        "fid",
        "fid50k",
    }


def test_none_measures_nothing():
    def fakes(num):
        raise AssertionError("no image should be made")

    metrics = make("none")
    metrics.prepare(None)
    assert metrics.compute(fakes) == {}
