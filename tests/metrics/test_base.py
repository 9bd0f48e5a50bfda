from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from gan_lab.metrics import NoMetrics
from gan_lab.metrics.base import MetricsByData
from gan_lab.metrics.protocol import Protocol

CONF = Path(__file__).parents[2] / "conf"


def make(name: str, *overrides: str):
    with initialize_config_dir(version_base=None, config_dir=str(CONF)):
        return instantiate(compose(overrides=[f"+metrics={name}", *overrides]).metrics)


@pytest.mark.parametrize(
    ("name", "kind", "best"),
    [
        ("auto", MetricsByData, None),
        ("none", NoMetrics, None),
        ("digits", Protocol, "fd_digits"),
        ("stacked_digits", Protocol, "kl_modes"),
        ("fid", Protocol, "fid10k_full"),
        ("fid50k", Protocol, "fid50k_full"),
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
        "kid_small",
        "text",
        "tones",
        "phantoms",
        "digits",
        "stacked_digits",
        "fid",
        "fid50k",
    }


def test_only_the_usual_protocol_stops_a_run_without_weights():
    assert make("fid50k").required and not make("fid").required
    assert make("fid", "metrics.num_fake=5000").num_fake == 5000


def test_none_measures_nothing():
    metrics = make("none")
    metrics.prepare(None)
    assert metrics.compute(None) == {}
