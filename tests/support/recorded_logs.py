"""Whether a log line of the whole run holds a token, a key, a secret or a payload.

`tests/conftest.py` gives each recorded line to `check`, and lets the test fail during which one was found.
Recorded are the standard error of servers of `tests.support.server`, what tests in this process write and
log, and what they capture with structlog. Each worker of pytest-xdist checks its own tests.
"""

import re
import threading
from typing import Any

import structlog

from tests.support.configs import API_KEY, SECOND_API_KEY
from tests.support.postgres import PASSWORD
from tests.support.tokens import SECRET
from tocsin_server.logging import REPLACED

MARKED_PAYLOAD = "this-payload-must-not-be-logged"
"""A text that tests publish in every way there is."""

FORBIDDEN = re.compile(
    "|".join([r"eyJ[\w-]{5,}\.[\w-]+\.[\w-]+", *map(re.escape, (SECRET, API_KEY, PASSWORD, MARKED_PAYLOAD))])
    + rf"|{re.escape(REPLACED)}|\b{re.escape(SECOND_API_KEY)}\b"
)
"""A JSON Web Token, the keys and secrets of the tests, and the sign that the server replaced one of them."""


class RecordedLogs:
    """The findings since they were last taken. Threads that read servers' output add to them."""

    def __init__(self) -> None:
        self._findings: list[str] = []
        self._lock = threading.Lock()
        self.is_exempt = False
        """Set by tests that cause such lines, to see that they are replaced."""

    def check(self, text: str) -> None:
        found = FORBIDDEN.search(text)
        if found is not None and not self.is_exempt:
            start = max(0, found.start() - 200)
            with self._lock:
                self._findings.append(f"{found[0][:20]}… in: {text[start : found.end() + 50]}")

    def take(self) -> list[str]:
        with self._lock:
            findings, self._findings = self._findings, []
        return findings


recorded = RecordedLogs()


class CheckedCapture(structlog.testing.LogCapture):
    """What `structlog.testing.capture_logs` uses, with a check of each line."""

    def __call__(self, logger: Any, method: str, line: Any) -> Any:
        recorded.check(repr(line))
        return super().__call__(logger, method, line)
