"""Exported models, made once."""

from pathlib import Path

import pytest

from gan_lab.commands.launch import launch
from tests.helpers.generators import run_of
from tests.helpers.once import make_once


@pytest.fixture(scope="session")
def styled_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a conditional StyleGAN2."""
    root = make_once(tmp_path_factory, "styled", lambda root: run_of("stylegan2", root / "run"))
    return root / "run"


@pytest.fixture(scope="session")
def styled(styled_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, exported with both programs."""

    def export(root: Path) -> None:
        overrides = [f"run={styled_run}", f"out={root / 'exported'}", "format=[onnx,torch]"]
        assert launch("export", overrides) == 0

    return make_once(tmp_path_factory, "exported", export) / "exported"
