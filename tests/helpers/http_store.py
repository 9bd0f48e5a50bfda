"""A web server on the loopback as a process of its own, which can be killed and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from gan_lab.distributed.processes import free_port
from tests.helpers import range_server


class HttpStore:
    """The server's process.

    Attributes:
        url: of the folder.
    """

    def __init__(self, folder: Path, *, gives_ranges: bool = True) -> None:
        port = free_port()
        self._words = [str(folder), str(port), str(int(gives_ranges))]
        self._port = port
        self.url = f"http://127.0.0.1:{port}"
        self.start()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self.process = subprocess.Popen(
            [sys.executable, range_server.__file__, *self._words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)

    def kill(self) -> None:
        """End the server by SIGKILL."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
