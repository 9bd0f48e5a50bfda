"""What is installed, and what must not come along."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import gan_lab

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

TOP_LEVEL = {
    *("pyproject.toml", "README.md", "Makefile", "LICENSE", "CHANGELOG.md", "CITATION.cff"),
    *("conf", "docs", "gan_lab", "tests", "notebooks", "slurm"),
}


def tracked_files() -> list[str]:
    """Paths under version control, from the root."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return listing.stdout.rstrip("\0").split("\0")


def pins(file: str) -> dict[str, Version]:
    """Name -> version of a constraints file."""
    lines = (ROOT / ".ci" / file).read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)], cwd=ROOT, check=True
    )
    return folder


def test_wheel_holds_the_package_and_every_config(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path)

    (metadata,) = (path.name for path in tmp_path.glob("*.dist-info"))
    assert {path.name for path in tmp_path.iterdir()} == {"gan_lab", metadata}
    assert metadata == f"gan_laboratory-{gan_lab.__version__}.dist-info"
    configs = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    assert configs
    installed = tmp_path / "gan_lab" / "conf"
    assert {path.relative_to(installed) for path in installed.rglob("*.yaml")} == configs
    modules = {path.relative_to(ROOT) for path in (ROOT / "gan_lab").rglob("*.py")}
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*.py")} == modules
    # pages, templates and whatever else lies beside the code
    others = {name for name in tracked_files() if name.startswith("gan_lab/")}
    assert "gan_lab/explore/page/index.html" in others and "gan_lab/weights/card.md.jinja" in others
    assert {name for name in others if not (tmp_path / name).is_file()} == set()
    assert "gan-lab = gan_lab.cli:main" in (tmp_path / metadata / "entry_points.txt").read_text()


def test_installed_from_a_wheel_it_finds_its_configs(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "import gan_lab, gan_lab.config as c; print(gan_lab.__file__); print(c.conf_dir())"

    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, 'site'); {code}"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()

    site = tmp_path / "site" / "gan_lab"
    assert [Path(path).resolve() for path in found] == [site / "__init__.py", site / "conf"]


def test_what_the_package_index_would_show_can_be_shown(built: Path) -> None:
    files = map(str, built.iterdir())
    check = [sys.executable, "-m", "twine", "check", "--strict", *files]
    subprocess.run(check, check=True)


def test_sdist_can_be_tested_and_built_again(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff"} <= names
    assert {f"docs/{path.name}" for path in (ROOT / "docs").iterdir()} <= names
    assert {"gan_lab/cli.py", "conf/train.yaml", "tests/test_packaging.py"} <= names


def test_command_line_answers_before_anything_heavy_is_imported() -> None:
    code = """if True:
        import sys
        sys.argv = ["gan-lab", "--help"]
        import gan_lab.cli
        try:
            gan_lab.cli.main()
        except SystemExit as end:
            assert not end.code, end.code
        heavy = {"torch", "torchvision", "lightning", "hydra", "omegaconf", "sklearn", "numpy", "PIL"}
        print("heavy:", sorted(heavy & set(sys.modules)))
    """
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert answer.endswith("heavy: []\n")
    for command in ("train", "evaluate", "generate", "prepare-data"):
        assert command in answer


def test_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^## \[?([^\]\s]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [heading for heading in headings if heading.lower() != "unreleased"]
    assert released[0] == gan_lab.__version__


def test_citation_names_this_version_and_license() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == gan_lab.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    assert citation["keywords"] == PROJECT["keywords"]
    # of the Citation File Format 1.2.0
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert all(citation[required] for required in ("message", "title", "abstract"))


def test_constraints_pin_every_dependency_within_its_range() -> None:
    known = pins("constraints.txt")
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    required = [Requirement(line) for group in groups for line in group]
    for requirement in required:
        if requirement.name != PROJECT["name"]:
            assert known[canonicalize_name(requirement.name)] in requirement.specifier


def test_oldest_versions_are_the_promised_ones() -> None:
    promised = {
        canonicalize_name(requirement.name): requirement.specifier
        for requirement in map(Requirement, PROJECT["dependencies"])
    }
    for name, version in pins("oldest.txt").items():
        (floor,) = promised[name]
        assert floor.operator == ">="
        assert Version(floor.version) == version, name


def test_top_level_holds_nothing_else() -> None:
    tops = {path.partition("/")[0] for path in tracked_files()}
    assert {top for top in tops if not top.startswith(".")} <= TOP_LEVEL


def test_no_file_names_a_machine_or_a_package_index() -> None:
    """Such a line works for its author alone."""
    private = re.compile(
        rb"(?<![\w.~-])/(work|root|opt)/\w|/(home|Users)/[a-z]|tmp/dev\b"
        rb"|index-url|find-links|pypi\.org/simple|pythonhosted|download\.pytorch\.org"
    )
    mine = Path(__file__).relative_to(ROOT).as_posix()
    found = []
    for name in tracked_files():
        path = ROOT / name
        if name != mine and path.is_file() and (hit := private.search(path.read_bytes())):
            found.append(f"{name}: {hit[0].decode()}")
    assert found == []
