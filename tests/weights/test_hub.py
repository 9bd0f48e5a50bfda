"""Models of the Hugging Face hub, with a local mock server."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

import gan_lab
from gan_lab.commands.launch import launch
from gan_lab.errors import InputError
from gan_lab.weights import hub
from tests.helpers.generators import run_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "somebody/digits"


class Hub(BaseHTTPRequestHandler):
    """One model with one commit, which is main and v1."""

    folder: Path
    requested: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.requested.append(path)
        files = sorted(file for file in self.folder.iterdir() if file.is_file())
        if path in [f"/api/models/{NAME}{tail}" for tail in ("", "/revision/main", "/revision/v1")]:
            siblings = [{"rfilename": file.name} for file in files]
            self.answer({"id": NAME, "sha": COMMIT, "siblings": siblings})
        elif path.startswith(f"/api/models/{NAME}/tree/"):
            self.answer(
                [
                    {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": digest(f)}
                    for f in files
                ]
            )
        elif path.startswith(f"/{NAME}/resolve/{COMMIT}/"):
            file = self.folder / path.rpartition("/")[2]
            self.send(200, file.read_bytes(), ETag=f'"{digest(file)}"')
        else:
            self.send(404, b"{}", **{"X-Error-Code": "RepoNotFound"})

    def answer(self, value: object) -> None:
        self.send(200, json.dumps(value).encode())

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    out = root / "model"
    assert launch("export", [f"run={run_of('gan', root / 'run')}", f"out={out}"]) == 0
    (out / "generator.onnx").write_bytes(b"not needed")
    return out


@pytest.fixture
def requested(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The paths that were requested."""
    kind = type("Here", (Hub,), {"folder": model, "requested": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield kind.requested  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("revision", ["", "@main", "@v1", f"@{COMMIT}"])
def test_a_model_is_loaded_from_the_hub(revision: str, requested: list[str], model: Path) -> None:
    gan = gan_lab.load(f"hf://{NAME}{revision}")
    assert torch.equal(gan.sample(3), gan_lab.load(model).sample(3))
    files = {path.rpartition("/")[2] for path in requested if "/resolve/" in path}
    assert files == {"model.json", "model.safetensors"}, "what loading needs, and no more"


def test_the_second_load_is_from_the_cache(requested: list[str]) -> None:
    first = hub.download(f"hf://{NAME}")
    before = len([path for path in requested if "/resolve/" in path])
    assert hub.download(f"hf://{NAME}") == first
    assert len([path for path in requested if "/resolve/" in path]) == before


def test_commands_accept_hub_models(requested: list[str], tmp_path: Path) -> None:
    overrides = [f"run=hf://{NAME}@v1", f"out={tmp_path / 'out'}", "num_images=2", "format=grid"]
    assert launch("generate", overrides) == 0
    assert (tmp_path / "out" / "grid.png").exists()


def test_an_unknown_model(requested: list[str]) -> None:
    with pytest.raises(InputError, match="hf://somebody/none could not be downloaded"):
        gan_lab.load("hf://somebody/none")


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match=r"could not be downloaded .* check the name, the network"):
        gan_lab.load(f"hf://{NAME}")


@pytest.mark.parametrize("source", ["hf://digits", "hf://a/b/c", "hf://", "hf://a b/c", "hf:///x"])
def test_names(source: str) -> None:
    with pytest.raises(InputError, match="is not a model of the Hugging Face hub"):
        gan_lab.load(source)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install 'gan-laboratory\[hub\]'"):
        gan_lab.load(f"hf://{NAME}")
