"""The shape of the package: its rooms, one order of imports, tests that mirror it, and a README of bearable length."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gan_lab"
TESTS = ROOT / "tests"

APPLICATIONS = ("sweeps", "compare", "explore", "bench")
# imports go from left to right alone
ORDER = (
    ("__main__",),
    ("cli",),
    ("commands",),
    APPLICATIONS,
    ("weights",),
    ("models",),
    ("training",),
    ("metrics",),
    ("sampling",),
    ("data",),
    ("distributed",),
    ("layers",),
    ("config", "run", "errors", "console", "seeding", "version"),
)
ROOMS = {
    *("commands", "models", "layers", "training", "distributed", "data", "sampling", "metrics"),
    *("weights", *APPLICATIONS),
}
FILES = {"__init__", "cli", "config", "run", "errors", "console", "seeding", "version"}
ALLOWED = {"__main__.py", "py.typed", "__pycache__"}
LONGEST_README = 220
MOST_FILES = 200

# tests of what several modules do together
TOGETHER = {
    "commands": {"full_disk", "kills", "processes", "resume", "selection", "sound", "stops"},
    "compare": {"command"},
    "data": {"stacked_digits", "training"},
    "distributed": {"hosts", "requeue"},
    "layers": {"growing_blocks"},
    "metrics": {"auto", "golden", "pretrained", "stacked_digits"},
    "models": {"conditioning", "growing_training", "matrix", "resnet_training", "spectral_norm"},
    "sweeps": {"end_to_end", "grid", "requeued", "wandb_sweep"},
    "training": {"bilinear", "golden_losses", "on_models", "penalties"},
    "weights": {"unpickling"},
}
# folders of tests that are of no room
OTHER_TESTS = {"campaign", "gpu", "helpers", "parity", "probes", "slurm"}


@cache
def modules() -> dict[str, Path]:
    """Return the package's files by the names of their modules."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(name: str) -> frozenset[str]:
    """Return what a module imports of the package: anywhere in it, also for type checkers and by a string."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(modules()[name].read_text(encoding="utf-8"))):
        found |= {module for module in imported(node) if module.split(".")[0] == PACKAGE.name}
    return frozenset(found - {name})


def imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute"
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            yield whole if whole in modules() else str(node.module)
    elif isinstance(node, ast.Call) and node.args and "import_module" in ast.unparse(node.func):
        given = node.args[0]
        if isinstance(given, ast.Constant):
            yield str(given.value)
        elif isinstance(given, ast.JoinedStr) and isinstance(given.values[0], ast.Constant):
            yield str(given.values[0].value).rstrip(".")


def room(module: str) -> str:
    """Return the room of a module, or its own name where it stands in none."""
    return module.split(".")[1]


def test_rooms() -> None:
    entries = {path.name for path in PACKAGE.iterdir()}
    assert entries - ALLOWED == ROOMS | {f"{name}.py" for name in FILES}


def test_the_package_has_few_files() -> None:
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert len(files) <= MOST_FILES


def test_imports_go_one_way() -> None:
    rank = {name: place for place, names in enumerate(ORDER) for name in names}
    wrong = []
    for module in modules():
        if module == PACKAGE.name:
            continue  # it offers load and Gan, and nothing inside imports them from there
        for other in imports(module):
            if other == PACKAGE.name:
                wrong.append(f"{module} imports the package itself")
                continue
            ours, theirs = room(module), room(other)
            apart = ours in APPLICATIONS and theirs in APPLICATIONS
            if ours != theirs and (rank[theirs] < rank[ours] or apart):
                wrong.append(f"{module} imports {other}")
    assert not wrong


def test_no_circle() -> None:
    graph = {module: imports(module) & modules().keys() for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST_README


def test_tests_mirror_the_package() -> None:
    wrong = []
    for path in sorted(TESTS.rglob("test_*.py")):
        *folders, file = path.relative_to(TESTS).parts
        subject = file.removeprefix("test_").removesuffix(".py")
        if not folders or folders[0] in OTHER_TESTS:
            continue
        place = PACKAGE / folders[0]
        names = {p.stem for p in place.rglob("*") if p.suffix == ".py" or p.is_dir()}
        known = any(subject == name or subject.startswith(f"{name}_") for name in names)
        if not known and subject not in TOGETHER.get(folders[0], ()):
            wrong.append(str(path.relative_to(ROOT)))
    assert not wrong, "a test's file is named after a module of its room, or stands in TOGETHER"


def test_no_test_imports_another() -> None:
    wrong = []
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            if any(name.startswith("tests.") and ".test_" in name for name in names):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong
