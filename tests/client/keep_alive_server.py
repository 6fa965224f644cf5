"""A small HTTP API that keeps connections open, and knows which channel was published on which of them."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class KeepAliveServer:
    """Answers each publication with its channel as the epoch. ``ports`` has the clients' ports by channel."""

    def __init__(self) -> None:
        self.url = ""
        self.ports: dict[str, list[int]] = {}
        self.requests: list[dict[str, str]] = []


@contextlib.contextmanager
def keep_alive_server() -> Iterator[KeepAliveServer]:
    """Run the server in threads."""
    served = KeepAliveServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.ports.setdefault(call["channel"], []).append(self.client_address[1])
            served.requests.append(dict(self.headers))
            body = json.dumps({"result": {"offset": 1, "epoch": call["channel"]}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 # its name upstream

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.socket.close()
