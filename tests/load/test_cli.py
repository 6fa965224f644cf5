"""``tocsin load``, as a real process."""

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

# with a parser of its own, so that the entry point need not be installed
COMMAND = "import typer; from tocsin_load.cli import load; app = typer.Typer(); app.command()(load); app()"

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


def test_a_run_is_reported_as_text_json_and_chart(server: Server, tmp_path: Path) -> None:
    report, chart = tmp_path / "report.json", tmp_path / "chart.svg"
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
        str(chart),
    ]
    done = run(server, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "publishing: 20 connected" in done.stdout
    assert "20 of 20" in done.stdout
    assert "lost 0 · duplicated 0 · reordered 0 · in gaps 0" in done.stdout
    written: dict[str, Any] = json.loads(report.read_text())
    assert written["connections"]["connected"] == 20
    assert written["publications"]["acknowledged"] == 40
    assert written["deliveries"]["delivered"] == written["deliveries"]["expected"] == 400
    assert sum(second["delivered"] for second in written["over_time"]) == 400
    shapes = {element.tag.rpartition("}")[2] for element in ET.parse(chart).iter()}
    assert {"svg", "rect", "polyline", "text"} <= shapes


def shown_on(terminal: int, expected: re.Pattern[str] | None = None) -> str:
    """The output of a terminal, until it matches a pattern or the other end is closed."""
    give_up_at = time.monotonic() + STARTED
    output, shown = b"", ""
    with contextlib.suppress(OSError):
        while expected is None or not expected.search(shown):
            assert select.select([terminal], [], [], max(0, give_up_at - time.monotonic()))[0], shown
            output += os.read(terminal, 2**16)
            shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", output.decode(errors="replace"))
    return shown


def test_a_terminal_shows_the_progress_and_ctrl_c_stops_early_with_a_report(server: Server) -> None:
    """One line changes: connected, published, delivered, latency. Ctrl-C reaches only the parent."""
    terminal, other_end = pty.openpty()
    with contextlib.closing(os.fdopen(terminal, "rb", 0)):
        process = subprocess.Popen(
            arguments(server, "--seconds", "600"),
            stdout=other_end,
            stderr=other_end,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
            start_new_session=True,
        )
        os.close(other_end)
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


def test_a_run_without_any_connection_exits_with_1(token_only_server: Server) -> None:
    done = run(token_only_server, "--seconds", "0.2")
    assert done.returncode == 1
    assert "no connection could be opened" in done.stdout


def test_a_wrong_address_is_explained_in_a_sentence(server: Server) -> None:
    done = run(server, "--url", "nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("tocsin: 'nowhere' is not an address")
