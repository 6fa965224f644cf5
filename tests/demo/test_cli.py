"""`tocsin demo` as a command: how it ends, and its message when it cannot start."""

import signal
import subprocess
from pathlib import Path

from tests.demo.conftest import running_demo
from tests.support.server import TOCSIN, Server
from tests.support.timing import STARTED


def error_of(*flags: str) -> str:
    """Run the command, which must exit with 1, and return its standard error."""
    ended = subprocess.run(
        [TOCSIN, "demo", *flags], capture_output=True, text=True, timeout=STARTED, check=False
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == ""
    return ended.stderr


def test_a_port_in_use_is_named(demo: Server) -> None:
    error = error_of("--port", str(demo.port))
    assert error == f"Port {demo.port} cannot be used: address already in use. --port 0 chooses a free one.\n"


def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    nowhere = tmp_path / "missing" / "demo.sqlite"
    error = error_of("--port", "0", "--database", str(nowhere))
    assert error == f"The database {nowhere} cannot be used: unable to open database file.\n"


def test_ctrl_c_ends_the_demo_with_code_0(tmp_path: Path) -> None:
    """So does SIGTERM, with which `running_demo` ends every demo."""
    for demo in running_demo(tmp_path / "demo.sqlite"):
        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(STARTED) == 0
