"""A Space: a folder that runs the explore page of one exported model, alone and from the wheel."""

import json
import multiprocessing
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError

import pytest
import yaml

import gan_lab
from gan_lab.commands.launch import launch
from gan_lab.weights.export import PORT, TAKEN, space_files
from tests.helpers.generators import run_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("space")
    overrides = [f"run={run_of('gan', root / 'run')}", f"out={root / 'model'}", "license=CC0-1.0"]
    assert launch("export", [*overrides, f"space={root / 'app'}"]) == 0
    return root / "app"


def command_of(space: Path) -> list[str]:
    """The command of the container."""
    (line,) = re.findall(r"^CMD (.*)$", (space / "Dockerfile").read_text(), re.MULTILINE)
    return json.loads(line)


def test_what_it_holds(space: Path) -> None:
    assert {path.name for path in space.iterdir()} == {
        *("README.md", "Dockerfile", "requirements.txt", "model")
    }
    assert {path.name for path in (space / "model").iterdir()} <= set(TAKEN)
    front = yaml.safe_load((space / "README.md").read_text().split("---\n")[1])
    assert front == {
        "title": "run",
        "sdk": "docker",
        "app_port": PORT,
        "license": "cc0-1.0",
    }
    assert f"=={gan_lab.__version__}" in (space / "requirements.txt").read_text()
    assert command_of(space)[:3] == ["gan-lab", "explore", "run=model"]


def test_it_is_replaced_and_wheels_stay(space: Path) -> None:
    wheel = space / "gan_laboratory-0-py3-none-any.whl"
    wheel.touch()
    model = space.parent / "model"
    assert launch("export", [f"run={model}", f"space={space}", "name=again"]) == 0
    assert "title: again" in (space / "README.md").read_text()
    assert wheel.name in space_files(space)
    wheel.unlink()


@pytest.mark.parametrize("place", ["", "model", "full"])
def test_other_folders_are_left_alone(
    space: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = space.parent
    (root / "full").mkdir(exist_ok=True)
    (root / "full" / "thesis.tex").touch()
    overrides = [f"run={root / 'model'}", f"space={root / place}"]
    assert launch("export", overrides) == 2
    assert "give another" in capsys.readouterr().err


def test_a_push_uploads_model_and_space(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    class Api:
        def create_repo(self, **given: Any) -> None:
            calls.append(("create", given))

        def upload_folder(self, **given: Any) -> SimpleNamespace:
            calls.append(("upload", given))
            return SimpleNamespace(commit_url="https://hub/commit/1")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "secret")
    overrides = [
        f"run={space.parent / 'model'}",
        f"out={tmp_path / 'model'}",
        "push=somebody/digits",
    ]
    assert launch("export", [*overrides, f"space={tmp_path / 'app'}"]) == 0
    kinds = [(what, given["repo_type"], given.get("space_sdk")) for what, given in calls]
    assert kinds == [
        *(("create", "model", None), ("upload", "model", None)),
        *(("create", "space", "docker"), ("upload", "space", None)),
    ]
    files = calls[-1][1]["allow_patterns"]
    assert {"Dockerfile", "model/model.json", "model/model.safetensors"} <= set(files)
    assert "models:\n- somebody/digits\n" in (tmp_path / "app" / "README.md").read_text()


def ask(url: str, content: Mapping[str, Any] | None = None) -> Any:
    data = None if content is None else json.dumps(content).encode()
    return urllib.request.urlopen(urllib.request.Request(url, data), timeout=60)


def served(space: Path) -> tuple[list[str], str]:
    """Return the container's command, at a free port of this machine, and the page's address."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    changed = {"host=0.0.0.0": "host=127.0.0.1", f"port={PORT}": f"port={port}"}
    return [changed.get(word, word) for word in command_of(space)], f"http://127.0.0.1:{port}"


def check_it_serves(url: str, alive: Callable[[], bool]) -> None:
    """Ask for the page and for an image, as soon as it answers."""
    while True:
        assert alive()
        with suppress(URLError):
            page = ask(url)
            break
        time.sleep(0.2)
    assert b"<html" in page.read()
    assert "frame-ancestors https://huggingface.co" in page.headers["Content-Security-Policy"]
    (about,) = json.loads(ask(f"{url}/api/models").read())
    assert about["name"] == "model"
    image = ask(f"{url}/api/draw", {"point": {"seed": 3}}).read()
    assert image.startswith(b"\x89PNG")


def serve(command: list[str], folder: Path) -> None:
    """Run the container's command."""
    os.chdir(folder)
    launch(command[1], command[2:])


def test_it_serves_the_page(space: Path) -> None:
    command, url = served(space)
    app = multiprocessing.get_context("fork").Process(target=serve, args=(command, space))
    app.start()
    try:
        check_it_serves(url, app.is_alive)
    finally:
        app.kill()
        app.join()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_runs_in_an_empty_environment_from_the_wheel(space: Path, tmp_path: Path) -> None:
    dist, place = tmp_path / "dist", tmp_path / "environment"
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist)]
    subprocess.run(build, cwd=ROOT, check=True)
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    (wheel,) = dist.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "-q"]
    subprocess.run([*pip, "--no-index", str(wheel)], check=True)
    # what it needs besides, of this environment: .pth files there, as of this checkout, are not read
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site,) = (place / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text("\n".join(others) + "\n")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    code = "import gan_lab; print(gan_lab.__file__)"
    found = subprocess.run(
        [python, "-c", code], cwd=space, env=environment, check=True, capture_output=True, text=True
    )
    assert Path(found.stdout.strip()).is_relative_to(place)
    command, url = served(space)
    app = subprocess.Popen([place / "bin" / command[0], *command[1:]], cwd=space, env=environment)
    try:
        check_it_serves(url, lambda: app.poll() is None)
    finally:
        app.kill()
        app.wait()
    dry = "train experiment=quickstart dry_run=true trainer=cpu"
    subprocess.run(
        [place / "bin" / "gan-lab", *shlex.split(dry)],
        cwd=tmp_path,
        env=environment,
        check=True,
    )
