"""A real `tocsin serve` process, started with a configuration file on a free port."""

import contextlib
import json
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode

from tests.support.recorded_logs import recorded
from tests.support.timing import STARTED

TOCSIN = Path(sys.executable).with_name("tocsin")
READY = re.compile(r"listening on (https?://\S+)")

Config = Mapping[str, Any]


class Server:
    """A running server. Threads collect its standard output and standard error."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.url = ""
        self.stderr_lines: list[tuple[float, str]] = []
        """The lines on standard error, each with the monotonic second at which it came."""
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._collect_errors, daemon=True),
            threading.Thread(target=self._collect_output, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def websocket_url(self) -> str:
        return self.url.replace("http://", "ws://") + "/connection/websocket"

    @property
    def api_url(self) -> str:
        return self.url + "/api"

    def events_url(self, *channels: str, **query: str) -> str:
        """The URL of an event stream of these channels."""
        return f"{self.url}/events?" + urlencode([*(("channel", name) for name in channels), *query.items()])

    @property
    def stderr(self) -> str:
        """Everything on standard error since the start, as one text."""
        return "".join(line for _, line in self.stderr_lines)

    def wait_until_ready(self) -> None:
        """Wait for the line with the address, and set `url`. Raises AssertionError if the process ends."""
        while (line := self._next_line()) is not None:
            if found := READY.search(line):
                self.url = found[1].rstrip("/")
                return
        raise AssertionError(f"tocsin serve ended before it listened:\n{self.stderr}")

    def stop(self) -> int:
        """Send SIGTERM, wait for the end, and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STARTED)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"tocsin serve did not end on SIGTERM:\n{self.stderr}") from None
        finally:
            for reader in self._readers:
                reader.join(STARTED)
        return code

    def _next_line(self) -> str | None:
        try:
            return self._lines.get(timeout=STARTED)
        except queue.Empty:
            raise AssertionError(f"tocsin serve did not print its address:\n{self.stderr}") from None

    def _collect_errors(self) -> None:
        with _opened(self.process.stderr) as stream:
            for line in iter(stream.readline, ""):
                self.stderr_lines.append((time.monotonic(), line))
                recorded.check(line)

    def _collect_output(self) -> None:
        with _opened(self.process.stdout) as stream:
            for line in stream:
                self._lines.put(line)
        self._lines.put(None)


@contextlib.contextmanager
def run_server(config: Config, directory: Path, *flags: str) -> Iterator[Server]:
    """Run a server with this configuration. At the end, check its exit code and its log."""
    file = directory / "tocsin.toml"
    file.write_text(as_toml(config))
    command = [str(TOCSIN), "serve", "--port", "0", "--config", str(file), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    server = Server(process)
    try:
        server.wait_until_ready()
        yield server
    finally:
        code = server.stop()
    assert "Traceback" not in server.stderr, server.stderr
    assert code == 0, f"exit code {code}:\n{server.stderr}"


def as_toml(config: Config, prefix: str = "") -> str:
    """TOML text of nested tables. JSON strings, numbers, lists and booleans are valid TOML values."""
    tables = {key: value for key, value in config.items() if isinstance(value, Mapping)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in config.items() if key not in tables]
    for key, table in tables.items():
        lines += [f"[{prefix}{key}]", as_toml(table, f"{prefix}{key}.")]
    return "\n".join(lines)


def _opened(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
