"""A server of files."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mae.data.streaming import remote

Serve = Callable[..., str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Serve a folder over http; return its URL. The first ``failures`` requests of each path meet ``status``."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(failures: int = 0, status: int = 503, most: int | None = None) -> str:
        met: dict[str, int] = {}

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args, directory=str(tmp_path))

            def do_GET(self) -> None:
                met[self.path] = met.get(self.path, 0) + 1
                if met[self.path] <= failures and "manifest" not in self.path:
                    if most is None:
                        self.send_error(status)
                        return
                    data = (tmp_path / self.path[1:]).read_bytes()  # the line breaks in the middle
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data[:most])
                    return
                super().do_GET()

            def log_message(self, *args: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.01))
