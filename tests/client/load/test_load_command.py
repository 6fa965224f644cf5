"""``tocsin load``, as somebody runs it."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from tests.support.configs import API_KEY
from tests.support.server import Server
from tests.support.timing import STARTED

# the command's function behind a parser of its own: the same whether or not the entry point is installed
COMMAND = "import typer; from tocsin.cli.load import load; app = typer.Typer(); app.command()(load); app()"


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
    assert "20 of 20" in done.stdout
    assert "lost 0 · duplicated 0 · reordered 0 · told of a hole 0" in done.stdout
    told: dict[str, Any] = json.loads(report.read_text())
    assert told["connections"]["connected"] == 20
    assert told["publications"]["acknowledged"] == 40
    assert told["deliveries"]["heard"] == told["deliveries"]["expected"] == 400
    assert sum(second["delivered"] for second in told["over_time"]) == 400
    shapes = {element.tag.rpartition("}")[2] for element in ET.parse(picture).iter()}
    assert {"svg", "rect", "polyline", "text"} <= shapes


def test_ctrl_c_ends_early_and_still_reports(server: Server) -> None:
    process = subprocess.Popen(
        arguments(server, "--seconds", "600"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("publishing"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=STARTED)
    assert process.returncode == 0, said + errors
    assert "lost 0 · duplicated 0 · reordered 0" in said


def test_a_server_that_lets_nobody_in_is_an_exit_code_of_one(cautious: Server) -> None:
    done = run(cautious, "--seconds", "1")
    assert done.returncode == 1
    assert "no connection came about" in done.stdout


def test_what_is_no_address_is_said_in_a_sentence(server: Server) -> None:
    done = run(server, "--url", "nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("tocsin: 'nowhere' is not an address")
