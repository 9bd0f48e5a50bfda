"""A web server that gives parts of the files of a folder: python range_server.py FOLDER PORT RANGES.

With RANGES of 0 it gives whole files alone, as Python's own server does; files below a folder `secret` are forbidden.
It tells the length of a file, and no ETag. It imports nothing else, so that it starts at once.
"""

import os
import re
import sys
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(SimpleHTTPRequestHandler):
    """Answers requests with a Range by that part (RFC 9110, 14)."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    gives_ranges = True

    def send_head(self):  # type: ignore[no-untyped-def]
        if "/secret/" in self.path:
            return self.send_error(HTTPStatus.FORBIDDEN)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if wanted is None or not self.gives_ranges or not path.is_file():
            return super().send_head()
        start, stop, size = int(wanted[1]), int(wanted[2]) + 1, path.stat().st_size
        if start >= size:
            return self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
        stop = min(stop, size)
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        with path.open("rb") as file:
            self.wfile.write(os.pread(file.fileno(), stop - start, start))
        return None


if __name__ == "__main__":
    folder, port, ranges = sys.argv[1:]
    Handler.gives_ranges = ranges == "1"
    address = ("127.0.0.1", int(port))
    ThreadingHTTPServer(address, partial(Handler, directory=folder)).serve_forever()
