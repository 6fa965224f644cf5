"""``tocsin load``, as somebody runs it."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from tests.support.configs import API_KEY
from tests.support.server import Server
from tests.support.timing import STARTED

# the command's function behind a parser of its own: the same whether or not the entry point is installed
COMMAND = "import typer; from tocsin.cli.load import load; app = typer.Typer(); app.command()(load); app()"

LIVE = re.compile(r"publishing +20/20 connected · [\d,]+ published · [1-9][\d,]* delivered/s · p50 \S+ ")


def arguments(server: Server, *flags: str) -> list[str]:
    usual = [
        "--url",
        server.url,
        "--api-key",
        API_KEY,
        "--connections",
        "20",
        "--channels",
        "2",
        "--rate",
        "0",
    ]
    return [sys.executable, "-c", COMMAND, *usual, *flags]


def run(server: Server, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments(server, *flags), capture_output=True, text=True, timeout=2 * STARTED, check=False
    )


def test_a_run_is_reported_as_text_json_and_picture(server: Server, tmp_path: Path) -> None:
    report, picture = tmp_path / "report.json", tmp_path / "picture.svg"
    flags = [
        "--channel-prefix",
        "open:command-",
        "--transport",
        "mix",
        "--count",
        "40",
        "--json",
        str(report),
        "--plot",
        str(picture),
    ]
    done = run(server, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "publishing: 20 connected" in done.stdout
    assert "20 of 20" in done.stdout
    assert "lost 0 · duplicated 0 · reordered 0 · told of a hole 0" in done.stdout
    told: dict[str, Any] = json.loads(report.read_text())
    assert told["connections"]["connected"] == 20
    assert told["publications"]["acknowledged"] == 40
    assert told["deliveries"]["heard"] == told["deliveries"]["expected"] == 400
    assert sum(second["delivered"] for second in told["over_time"]) == 400
    shapes = {element.tag.rpartition("}")[2] for element in ET.parse(picture).iter()}
    assert {"svg", "rect", "polyline", "text"} <= shapes


def shown_on(terminal: int, wanted: re.Pattern[str] | None = None) -> str:
    """What a terminal shows until it shows what is wanted, or until nobody has it any more."""
    give_up_at = time.monotonic() + STARTED
    written, shown = b"", ""
    with contextlib.suppress(OSError):
        while wanted is None or not wanted.search(shown):
            assert select.select([terminal], [], [], max(0, give_up_at - time.monotonic()))[0], shown
            written += os.read(terminal, 2**16)
            shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", written.decode(errors="replace"))
    return shown


def test_a_terminal_shows_how_it_goes_and_ctrl_c_ends_early_and_still_reports(server: Server) -> None:
    """One line that changes: connected, published, delivered, how late. Ctrl-C leaves the workers to it."""
    terminal, its_end = pty.openpty()
    with contextlib.closing(os.fdopen(terminal, "rb", 0)):
        process = subprocess.Popen(
            arguments(server, "--seconds", "600"),
            stdout=its_end,
            stderr=its_end,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
            start_new_session=True,
        )
        os.close(its_end)
        try:
            shown = shown_on(terminal, LIVE)
            assert LIVE.search(shown), shown
            os.killpg(process.pid, signal.SIGINT)
            shown = shown_on(terminal)
            assert "lost 0 · duplicated 0 · reordered 0" in shown
            assert process.wait(STARTED) == 0, shown
        finally:
            process.kill()
            process.wait()


def test_a_server_that_lets_nobody_in_is_an_exit_code_of_one(token_only_server: Server) -> None:
    done = run(token_only_server, "--seconds", "1")
    assert done.returncode == 1
    assert "no connection came about" in done.stdout


def test_what_is_no_address_is_said_in_a_sentence(server: Server) -> None:
    done = run(server, "--url", "nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("tocsin: 'nowhere' is not an address")
