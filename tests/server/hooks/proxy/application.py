"""A back end as the documentation of Centrifugo's HTTP proxy shows one, which knows nothing of Tocsin.

Its users have sessions in a cookie. It is written with Python's own server, which runs in threads.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]

SESSIONS = {"c-56": "56", "c-57": "57"}
COOKIE = "sessionid=c-56"


class Application(ThreadingHTTPServer):
    """The server, what it was asked, and how it answers refreshes."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, Json]] = []
        self.expires_in = 0.0
        """How long connections and subscriptions last, in seconds; 0: for ever."""
        self.is_over = False
        """Refreshes are answered with `expired`."""
        self.is_broken = False
        """Every request is answered with status 500."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/centrifugo/{{event}}"

    @property
    def expire_at(self) -> int:
        return int(time.time() + self.expires_in + 0.999) if self.expires_in else 0

    def asked_about(self, event: str) -> list[Json]:
        return [body for name, body in self.asked if name == event]


class Handler(BaseHTTPRequestHandler):
    """One method for each event."""

    protocol_version = "HTTP/1.1"
    server: Application

    def do_POST(self) -> None:
        body: Json = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        event = self.path.removeprefix("/centrifugo/")
        self.server.asked.append((event, body))
        answer = json.dumps(getattr(self, f"on_{event}")(body)).encode()
        self.send_response(500 if self.server.is_broken else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_arguments: object) -> None:
        pass

    def on_connect(self, body: Json) -> Json:
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("sessionid")
        user = SESSIONS.get(cookie.value) if cookie is not None else None
        if user is None:
            return {"disconnect": {"code": 4501, "reason": "unauthorized"}}
        return {
            "result": {
                "user": user,
                "expire_at": self.server.expire_at,
                "info": {"name": f"user {user}"},
                "data": {"you sent": body.get("data")},
                "subs": {f"room:inbox-{user}": {"data": {"unread": 3}}},
            }
        }

    def on_refresh(self, _body: Json) -> Json:
        if self.server.is_over:
            return {"result": {"expired": True}}
        return {"result": {"expire_at": self.server.expire_at}}

    on_sub_refresh = on_refresh

    def on_subscribe(self, body: Json) -> Json:
        if body["channel"].endswith("secret"):
            return {"error": {"code": 403, "message": "permission denied"}}
        result = {"info": {"role": "member"}, "data": {"topic": "news"}, "expire_at": self.server.expire_at}
        return {"result": result}

    def on_publish(self, body: Json) -> Json:
        if "b64data" in body:
            data = base64.b64decode(body["b64data"]) + b"\xff"
            return {"result": {"b64data": base64.b64encode(data).decode()}}
        if "spam" in str(body["data"]):
            return {"disconnect": {"code": 4500, "reason": "spam"}}
        if "input" not in body["data"]:
            return {"error": {"code": 1000, "message": "custom error"}}
        return {"result": {"data": {**body["data"], "author": body["user"]}}}

    def on_rpc(self, body: Json) -> Json:
        if body["method"] == "getCurrentPrice":
            return {"result": {"data": {"answer": "2019", "for": body["data"]}}}
        return {"error": {"code": 1001, "message": "unknown method", "temporary": True}}


@contextmanager
def application() -> Iterator[Application]:
    """Run the application in threads."""
    with Application() as server:
        running = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        running.start()
        try:
            yield server
        finally:
            server.shutdown()
            running.join()
