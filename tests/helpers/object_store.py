"""An S3 server of moto on the loopback, behind a proxy that can be closed, slowed or made to hang."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import boto3

from gan_lab.distributed.processes import free_port

BUCKET = "lab"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "b",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class ObjectStore:
    """moto's server as a process of its own, and a port that passes bytes on to it.

    Attributes:
        url: of the port.
        received: bytes that came back from the server.
        delay_s: before each block of these is passed on.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._port = free_port()
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        self.is_open = True
        self.delay_s = 0.0
        self.received = 0
        self.start()
        threading.Thread(target=self._accept, daemon=True).start()

    def start(self) -> None:
        """Start the server; a new one is empty."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONWARNINGS": "ignore"},
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        self._client().create_bucket(Bucket=BUCKET)

    def kill(self) -> None:
        """End the server by SIGKILL, with all that it holds."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def upload(self, folder: Path, prefix: str) -> str:
        """Copy a folder's files, and return their URL."""
        for path in sorted(folder.iterdir()):
            self.put(f"{prefix}/{path.name}", path.read_bytes())
        return f"s3://{BUCKET}/{prefix}"

    def put(self, name: str, data: bytes) -> None:
        self._client().put_object(Bucket=BUCKET, Key=name, Body=data)

    def delete(self, name: str) -> None:
        self._client().delete_object(Bucket=BUCKET, Key=name)

    def close(self) -> None:
        self._door.close()
        self.kill()

    def _client(self):  # type: ignore[no-untyped-def]
        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self._port}",
            aws_access_key_id="a",
            aws_secret_access_key="b",
            region_name="us-east-1",
        )

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            if not self.is_open:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            back = threading.Thread(target=self._pass, args=(server, client, True), daemon=True)
            back.start()
            self._pass(client, server, False)
            back.join()
        except OSError:
            return
        finally:
            client.close()

    def _pass(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        """Pass bytes on until one side closes, or the door is shut."""
        try:
            while (data := source.recv(1 << 16)) and self.is_open:
                if counts:
                    self.received += len(data)
                    time.sleep(self.delay_s)
                target.sendall(data)
        except OSError:
            pass
        for side in (source, target):
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
