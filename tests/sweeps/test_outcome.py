"""The objective of a sweep: the metric that runs measure, also if it depends on the data."""

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from gan_lab.config import conf_dir
from gan_lab.sweeps.outcome import chosen_objective, outcome


def config_of(root: Path, count: int) -> DictConfig:
    """A minimal configuration of a few images for the objective."""
    root.mkdir()
    for i in range(count):
        Image.fromarray(np.full((8, 8, 3), i % 256, dtype=np.uint8)).save(root / f"{i}.png")
    with initialize_config_dir(version_base=None, config_dir=str(conf_dir())):
        metrics = compose(overrides=["+metrics=auto"]).metrics
    data = {
        "_target_": "gan_lab.data.image_folder.ImageFolder",
        "_partial_": True,
        "root": str(root),
    }
    settings = {
        **{"objective": None, "objective_mode": None, "representation": None, "num_workers": 0},
        **{"batch_size": 2, "d_steps": 1, "total_kimg": 0.01, "seed": 0},
    }
    return OmegaConf.create({**settings, "data": data, "metrics": metrics})


@pytest.mark.parametrize(
    ("count", "key"), [(3, "metrics/kid2k_full"), (2100, "metrics/fid10k_full")]
)
def test_before_the_runs_the_data_decide(tmp_path: Path, count: int, key: str) -> None:
    config = config_of(tmp_path / "photos", count)
    found = chosen_objective(config)
    assert found is not None and (found.key, found.mode) == (key, "min")


@pytest.mark.parametrize("key", ["metrics/kid2k_full", "metrics/fid10k_full"])
def test_after_a_run_its_log_decides(tmp_path: Path, key: str) -> None:
    entries = [{"kimg": 1.0, key: 3.0}, {"kimg": 2.0, key: 2.0}]
    found = chosen_objective(config_of(tmp_path / "photos", 3), {"kimg", key})
    assert found is not None and found.key == key
    assert outcome(entries, found)["value"] == 2.0
