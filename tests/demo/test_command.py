"""`tocsin demo` as a command: how it ends, and what it says when it cannot begin."""

import signal
import subprocess
from pathlib import Path

from tests.demo.conftest import running_demo
from tests.support.server import TOCSIN, Server
from tests.support.timing import STARTED


def refusal(*flags: str) -> str:
    """What the command says on standard error as it ends with 1."""
    ended = subprocess.run(
        [TOCSIN, "demo", *flags], capture_output=True, text=True, timeout=STARTED, check=False
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == ""
    return ended.stderr


def test_a_port_that_is_taken_is_named(demo: Server) -> None:
    said = refusal("--port", str(demo.port))
    assert said == f"Port {demo.port} cannot be used: address already in use. --port 0 chooses a free one.\n"


def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    nowhere = tmp_path / "missing" / "demo.sqlite"
    said = refusal("--port", "0", "--database", str(nowhere))
    assert said == f"The database {nowhere} cannot be used: unable to open database file.\n"


def test_it_ends_well_on_ctrl_c(tmp_path: Path) -> None:
    """As it does on SIGTERM, which `running_demo` sends and judges everywhere else."""
    for demo in running_demo(tmp_path / "demo.sqlite"):
        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(STARTED) == 0
