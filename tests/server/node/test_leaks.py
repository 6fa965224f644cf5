"""Leaks: a node's memory does not grow with the connections that it had."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

WEBSOCKET_BYTES = 80
"""By how much the process may grow for each connection: a megabyte in all, which is noise.

The smallest leak, an entry in a set and its key, is larger.
"""

HOOKED_BYTES = 400
"""The same for clients that hooks decide about, of which there are fewer."""

STREAM_BYTES = 3_000
"""The same for event streams, whose number is too small to average out the noise."""


def grown(kind: str, enough: int) -> float:
    """Return by how many bytes a process grew for each client. It ends once this is below `enough`."""
    # Without coverage, which would take minutes.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-m", "tests.server.node.churn_clients", kind, str(enough)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])


def test_twenty_thousand_closed_websockets_leave_no_memory() -> None:
    """Closed, and aborted: in the handshake, after it, while subscribing and while subscribed."""
    assert grown("websockets", WEBSOCKET_BYTES) < WEBSOCKET_BYTES


def test_thousands_of_clients_that_hooks_decide_about_leave_no_memory() -> None:
    """Admitted, refused, and left while a hook is asked that answers, raises or takes too long."""
    assert grown("hooks", HOOKED_BYTES) < HOOKED_BYTES


def test_hundreds_of_closed_event_streams_leave_no_memory() -> None:
    """Refused, and aborted before and after their first event."""
    assert grown("streams", STREAM_BYTES) < STREAM_BYTES
