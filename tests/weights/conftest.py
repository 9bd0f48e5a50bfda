"""Exported models, made once."""

from pathlib import Path

import pytest

from gan_lab.commands.launch import launch
from tests.helpers.generators import run_of


@pytest.fixture(scope="session")
def styled_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a conditional StyleGAN2."""
    return run_of("stylegan2", tmp_path_factory.mktemp("runs") / "styled")


@pytest.fixture(scope="session")
def styled(styled_run: Path) -> Path:
    """The same, exported with both programs."""
    out = styled_run.parent / "exported"
    assert launch("export", [f"run={styled_run}", f"out={out}", "format=[onnx,torch]"]) == 0
    return out
