"""Tocsin mounted in another application does not need uvicorn."""

import subprocess
import sys
from pathlib import Path

from tests.support.timing import STARTED

WITHOUT_UVICORN = """
import sys
sys.modules["uvicorn"] = None  # any import of it, or from it, is an ImportError
from tests.server.transports.without_uvicorn import main
main()
"""


def test_the_portable_transports_work_where_uvicorn_is_not_installed() -> None:
    """The application, WebSocket over ASGI and event streams, under hypercorn."""
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_UVICORN],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=STARTED,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["id", "connect", "connect"]
