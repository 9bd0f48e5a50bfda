"""Notebooks run from top to bottom, and are kept without outputs."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from gan_lab.commands.launch import launch

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

# what is set to what, and the number of pictures that are shown
SMALL = {
    "01_train_digits": ({"TOTAL_KIMG = 60": "TOTAL_KIMG = 0.1"}, 2),
    "02_train_your_own_images": (
        {"TOTAL_KIMG = 40": "TOTAL_KIMG = 0.1", "PER_CLASS = 300": "PER_CLASS = 10"},
        4,
    ),
    "03_style_mixing_and_truncation": ({"PER_CLASS = 20": "PER_CLASS = 2"}, 7),
    "04_projection_and_editing": ({"STEPS = 300": "STEPS = 5"}, 6),
    "05_compare_runs_and_metrics": ({"DRAWS = 5": "DRAWS = 2"}, 3),
    "06_add_an_architecture": ({"TOTAL_KIMG = 40": "TOTAL_KIMG = '0.1 metrics=none'"}, 1),
}

# commands start no process, which would take longer than all that they do here
IN_THE_KERNEL = """
import shlex
from gan_lab.cli import main

def system(line):
    program, *words = shlex.split(get_ipython().var_expand(line, depth=1))
    assert program == "gan-lab"
    try:
        main(words)
    except SystemExit as end:
        assert not end.code, line

get_ipython().system = system
"""


def test_every_notebook_is_run() -> None:
    assert [path.stem for path in NOTEBOOKS] == list(SMALL)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert cells and all(not cell.outputs and cell.execution_count is None for cell in cells)


def trainings(notebook: nbformat.NotebookNode) -> Iterator[list[str]]:
    """The words of `gan-lab train` where a notebook trains what is not there yet, to be run without a new process."""
    for cell in notebook.cells:
        for line in re.findall(r"^    +!gan-lab train (.*)", cell.source, re.MULTILINE):
            for model in ("lsgan", "dcgan") if "{model}" in line else ("",):
                yield shlex.split(line.replace("{model}", model).replace("{TOTAL_KIMG}", "0.05"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    notebook = nbformat.read(path, 4)
    for words in trainings(notebook):
        assert launch("train", [*words, f"runs_dir={tmp_path / 'runs'}"]) == 0
    replacements, pictures = SMALL[path.stem]
    source = "".join(cell.source for cell in notebook.cells)
    for large, small in replacements.items():
        assert source.count(large) == 1
        for cell in notebook.cells:
            cell.source = cell.source.replace(large, small)
    if path.stem != "01_train_digits":  # one of them is as a user runs it
        notebook.cells.insert(0, nbformat.v4.new_code_cell(IN_THE_KERNEL))
    NotebookClient(notebook, timeout=150, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o.text for o in outputs if "gan-lab: error" in o.get("text", "")]
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(shown) == pictures
