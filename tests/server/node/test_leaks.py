"""Leaks: connections that come and go, in every way there is to go, leave everything where it was."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.timing import SOON

ROOT = Path(__file__).parents[3]

WEBSOCKET_BYTES = 80
"""By how much the process may grow for each connection that came and went: a megabyte in all, which is noise.

The smallest thing that could be left behind, an entry in a set and its key, is larger.
"""

STREAM_BYTES = 3_000
"""The same for event streams, of which there are too few to divide the noise by."""


def grown(kind: str) -> float:
    """By how many bytes a process of its own grew for each visitor; without coverage, which takes minutes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-m", "tests.server.node.churn_clients", kind]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=20 * SOON, check=False
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])


def test_twenty_thousand_websockets_that_came_and_went_leave_nothing() -> None:
    """Clean, aborted in the handshake, after it, while entering a channel and while in it."""
    assert grown("websockets") < WEBSOCKET_BYTES


def test_hundreds_of_event_streams_that_came_and_went_leave_nothing() -> None:
    """Refused, aborted before and after they were open."""
    assert grown("streams") < STREAM_BYTES
