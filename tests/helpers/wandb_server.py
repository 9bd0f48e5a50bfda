"""A mock W&B server for runs and workspaces; nothing leaves the machine."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import wandb


class Answers(BaseHTTPRequestHandler):
    """The part of W&B's API that the tests use."""

    server: "Server"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found: dict[str, Any] = {}
        if self.path == "/graphql":
            requests = json.loads(body)
            self.server.requests.append(requests)
            found = self.server.answer(requests["query"], requests.get("variables") or {})
        answer = json.dumps({"data": found}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_PUT = do_POST


class Server(ThreadingHTTPServer):
    """The server.

    Attributes:
        requests: queries with their variables.
        summaries: of the runs of its project.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.requests: list[dict[str, Any]] = []
        self.summaries: list[dict[str, float]] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "cA==", "name": "p", "entity": {"id": "ZQ==", "name": "me"}}
        if "upsertBucket" in query:
            bucket = {"id": "Yg==", "name": variables["name"], "config": "{}", "project": project}
            return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": 0}, "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": "/taken"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if "upsertView" in query:
            view = {"id": "dg==", "name": variables["name"]}
            return {"upsertView": {"view": view, "inserted": True}}
        if "runs(" in query:
            return {"project": {**project, **self.runs()}}
        return {"viewer": {"id": "dg==", "entity": "me", "username": "me", "flags": "{}"}}

    def runs(self) -> dict[str, Any]:
        nodes = [
            {"id": str(i), "name": f"run{i}", "summaryMetrics": json.dumps(summary), "config": "{}"}
            for i, summary in enumerate(self.summaries)
        ]
        edges = [{"node": node, "cursor": node["id"]} for node in nodes]
        page = {"endCursor": None, "hasNextPage": False}
        return {"runCount": len(nodes), "runs": {"edges": edges, "pageInfo": page}}

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of our own, and a key for it."""
    server = Server()
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "5")
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")
    wandb.teardown()  # it reads its environment once
    yield server
    wandb.teardown()
    server.stop()
