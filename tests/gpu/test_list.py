"""`make gpu`: its items at toy sizes on the CPU; items that fail, hang or are missing."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import work
from tests.gpu.__main__ import ITEMS, ROOT, main, parse, table, unpack

Results = list[dict[str, Any]]


def results(capsys: pytest.CaptureFixture[str]) -> Results:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line[:1] == "{"]


@pytest.mark.parametrize("item", ["machine", "steps", "nccl", "train"])
def test_items_work(item: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work.main(item, str(tmp_path), "600", "toy")
    found = results(capsys)
    assert found and not [result for result in found if "error" in result]
    if item == "steps":
        assert [r["what"] for r in found[::2]] == [case.what for case in work.STEPS]
        assert all(r["s_per_step"] > 0 and r["img_per_s"] > 0 for r in found)
        # a whole number of rounds of lazy penalties
        assert found[0]["steps"] % 16 == 0
    if item == "train":
        assert (tmp_path / "grid.png").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_penalties_and_compiled_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work.main("penalties", str(tmp_path), "3000", "toy")
    found = results(capsys)
    assert len(found) == 7 and not [result for result in found if "error" in result]


def test_sizes_for_a_gpu_compose() -> None:
    for case in (*work.STEPS, *work.penalty_cases(toy=False)):
        config = work.composed(*case.overrides, "trainer=gpu")
        assert config.batch_size >= 16, case.what


def test_a_measurement_that_fails_is_a_result(capsys: pytest.CaptureFixture[str]) -> None:
    case = work.Case("broken", ("model=gat", "data=random"), ("model.generator.patch=5",))
    end = float("inf")
    work.measure_all([case], toy=True, end=end)
    assert [r["error"].split(":")[0] for r in results(capsys)] == ["InputError"] * 2
    work.measure_all([case], toy=True, end=0.0)
    assert all("no time" in r["note"] for r in results(capsys))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python whose first item works, whose second fails and whose third hangs."""
    script = tmp_path / "python"
    script.write_text(
        "#!/bin/sh\n"
        'case "$3" in\n'
        '  machine) echo \'{"what": "a|b", "s_per_step": 0.123456}\' ;;\n'
        "  tests) echo noise; echo 'ModuleNotFoundError: no torch' >&2; exit 1 ;;\n"
        '  *) echo \'{"what": "begun"}\'; sleep 600 ;;\n'
        "esac\n"
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.usefixtures("fake")
def test_what_fails_or_hangs_costs_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    status = main(["--out", str(out), "--minutes", "0.1", "--items", "machine,tests,nccl", "--toy"])
    assert status == 1
    report = json.loads((out / "gpu.json").read_text())
    assert [r["what"] for r in report["results"]] == ["a|b", "begun"]
    states = {name: entry["state"] for name, entry in report["items"].items()}
    assert states["machine"] == "done" and "no torch" in states["tests"]
    assert states["nccl"].startswith("ended after")
    assert "| machine | a/b |  |  | 0.1235 |" in (out / "gpu.md").read_text()


def test_wheels_are_unpacked_and_their_lack_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no wheels"):
        unpack(tmp_path, tmp_path)
    with zipfile.ZipFile(tmp_path / "mine-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("mine.py", "VALUE = 1\n")
    unpack(tmp_path, tmp_path / "site")
    assert (tmp_path / "site" / "mine.py").read_text() == "VALUE = 1\n"


def test_time_is_kept_for_later_items() -> None:
    assert sum(item.reserve_s for item in ITEMS) <= 60 * parse([]).minutes
    assert [item.name for item in ITEMS] == list(work.WORK)


def test_the_table_says_what_is_missing() -> None:
    report = {"started": "now", "python": "3.12", "missing": ["plotly"], "results": [], "items": {}}
    assert "missing: plotly" in table(report)


@pytest.mark.slow
def test_the_list_needs_no_more_than_it_says() -> None:
    """Without the libraries that other parts of gan_lab want."""
    absent = [
        *("imagecodecs", "tifffile", "plotly", "wandb", "jinja2"),
        *("soundfile", "soxr", "sklearn", "timm"),
    ]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent})); "
        "import tests.gpu.work as w; w.penalty_cases(True)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_whole_list(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.gpu",
        "--toy",
        "--minutes",
        "18",
        "--out",
        str(tmp_path),
    ]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert {entry["state"] for entry in report["items"].values()} == {"done"}
