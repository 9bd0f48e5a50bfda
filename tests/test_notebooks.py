"""Notebooks run from top to bottom, and are kept without outputs."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib_inline.backend_inline import configure_inline_support
from nbclient import NotebookClient
from traitlets.config import Config

from gan_lab.cli import main
from gan_lab.commands.launch import launch

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# what is set to what, and the number of images that are shown
SMALL = {
    "01_train_digits": ({"TOTAL_KIMG = 60": "TOTAL_KIMG = 0.1"}, 2),
    "02_train_your_own_images": (
        {"TOTAL_KIMG = 40": "TOTAL_KIMG = 0.1", "PER_CLASS = 300": "PER_CLASS = 10"},
        4,
    ),
    "03_style_mixing_and_truncation": ({"PER_CLASS = 20": "PER_CLASS = 2"}, 7),
    "04_projection_and_editing": (
        {"STEPS = 300": "STEPS = 5", "samples=2000": "samples=50", "latents(200": "latents(20"},
        6,
    ),
    "05_compare_runs_and_metrics": (
        {"DRAWS = 5": "DRAWS = 2", "sample(1000, seed=10 + draw)": "sample(100, seed=10 + draw)"},
        2,
    ),
    "06_add_an_architecture": ({"TOTAL_KIMG = 40": "TOTAL_KIMG = '0.1 metrics=none'"}, 1),
    "07_sound": ({"TOTAL_KIMG = 6": "TOTAL_KIMG = 0.05", "VOICES = 8": "VOICES = 2"}, 1),
    "08_text": ({"TOTAL_KIMG = 8": "TOTAL_KIMG = 0.1"}, 1),
    "09_medical": (
        {
            "TOTAL_KIMG = 10": "TOTAL_KIMG = 0.1",
            "PATIENTS = 60": "PATIENTS = 20",
            "GENERATED = 400": "GENERATED = 40",
            "utility.steps=100": "utility.steps=10",
        },
        3,
    ),
}


def test_every_notebook_is_run() -> None:
    assert [path.stem for path in NOTEBOOKS] == list(SMALL)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert cells and all(not cell.outputs and cell.execution_count is None for cell in cells)


def trainings(notebook: nbformat.NotebookNode) -> Iterator[list[str]]:
    """The overrides of `gan-lab train` in notebooks that train a missing run."""
    for cell in notebook.cells:
        for line in re.findall(r"^    +!gan-lab train (.*)", cell.source, re.MULTILINE):
            for model in ("lsgan", "dcgan") if "{model}" in line else ("",):
                yield shlex.split(line.replace("{model}", model).replace("{TOTAL_KIMG}", "0.05"))


def shortened(path: Path) -> nbformat.NotebookNode:
    """Return a notebook with the small settings."""
    notebook = nbformat.read(path, 4)
    source = "".join(cell.source for cell in notebook.cells)
    for large, small in SMALL[path.stem][0].items():
        assert source.count(large) == 1
        for cell in notebook.cells:
            cell.source = cell.source.replace(large, small)
    return notebook


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_runs_in_a_kernel_as_a_user_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    notebook = shortened(NOTEBOOKS[0])
    NotebookClient(notebook, timeout=150, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o.text for o in outputs if "gan-lab: error" in o.get("text", "")]
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(shown) == SMALL[NOTEBOOKS[0].stem][1]


class Shell(InteractiveShell):
    """IPython in this process, which has all imports behind it; commands start no process either.

    Attributes:
        shown: what cells displayed: type -> data, in order.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.shown: list[dict[str, Any]] = []
        self.display_pub.publish = lambda data, **_: self.shown.append(data)
        self.displayhook.write_format_data = lambda data, _: self.shown.append(data)

    def system(self, line: str) -> None:
        program, *overrides = shlex.split(self.var_expand(line, depth=1))
        assert program == "gan-lab"
        try:
            main(overrides)
        except SystemExit as end:
            assert not end.code, line

    def enable_gui(self, gui: str | None = None) -> None:
        """There are no windows."""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A shell in an empty folder."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", "")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.syspath_prepend(tmp_path / "work")  # as a kernel has it
    modules = set(sys.modules)
    shell = Shell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.enable_matplotlib("inline")
    yield shell
    Shell.clear_instance()
    plt.switch_backend("agg")
    # or the next shell would show figures without their images
    configure_inline_support.current_backend = "unset"
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) == str(tmp_path / "work" / f"{name}.py"):
            del sys.modules[name]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path: Path, shell: Shell) -> None:
    notebook = shortened(path)
    for overrides in trainings(notebook):
        assert launch("train", overrides) == 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shell.run_cell(cell.source).raise_error()
    assert sum("image/png" in data for data in shell.shown) == SMALL[path.stem][1]
