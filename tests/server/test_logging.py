"""Logs: one stream and one format for every logger."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from tocsin_server.logging import configure_logging


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Restore the logging configuration, which is global, after each test."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def test_a_line_is_a_json_object_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """The members have the same order in every line."""
    configure_logging()
    structlog.get_logger("tocsin.node").info("node_started", port=8000, frame=b"\xff")
    line = json.loads(capsys.readouterr().err)
    assert list(line) == ["timestamp", "level", "event", "logger", "port", "frame"]
    assert (line["event"], line["level"], line["logger"]) == ("node_started", "info", "tocsin.node")


def test_a_line_on_a_terminal_has_keys_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has colours unless NO_COLOR is set."""
    monkeypatch.setattr(sys, "stderr", stderr := Terminal())
    monkeypatch.delenv("NO_COLOR", raising=False)
    configure_logging()
    structlog.get_logger().info("node_started", port=8000)
    assert "\x1b[" in stderr.getvalue()
    monkeypatch.setattr(sys, "stderr", stderr := Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    configure_logging()
    structlog.get_logger().info("node_started", port=8000)
    assert "node_started" in stderr.getvalue()
    assert "port=8000" in stderr.getvalue()
    assert "\x1b[" not in stderr.getvalue()


@pytest.mark.parametrize("name", ["uvicorn.error", "uvicorn.access", "websockets.server", "another.library"])
def test_lines_of_other_libraries_have_the_same_format(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Also if uvicorn configured its loggers before."""
    logging.getLogger(name).addHandler(logging.NullHandler())
    logging.getLogger(name).propagate = not name.startswith("uvicorn")
    configure_logging()
    logging.getLogger(name).warning("%s is %d", "port", 5)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["level"], line["logger"]) == ("port is 5", "warning", name)


def test_lines_below_the_level_are_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    """This applies to our lines and to those of libraries."""
    configure_logging("warning")
    structlog.get_logger().info("ours")
    logging.getLogger("uvicorn.error").info("theirs")
    assert capsys.readouterr().err == ""


def test_the_level_can_be_changed(capsys: pytest.CaptureFixture[str]) -> None:
    """A second call replaces the first one, and no line is written twice."""
    configure_logging("warning")
    configure_logging("debug")
    structlog.get_logger().debug("once")
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_shows_no_local_variables(capsys: pytest.CaptureFixture[str], *, as_json: bool) -> None:
    """A local variable may hold a token."""
    token = "".join(reversed("hsuh"))
    configure_logging(json=as_json)
    try:
        len(token) / 0
    except ZeroDivisionError:
        structlog.get_logger().exception("broken")
        logging.getLogger("another.library").exception("broken too")
    written = capsys.readouterr().err
    assert written.count("ZeroDivisionError: ") == 2
    assert token not in written


def test_a_line_stays_one_line_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Text from a client cannot forge a second line."""
    configure_logging()
    structlog.get_logger().info("refused", channel='x\n{"event": "forged"}')
    assert len(capsys.readouterr().err.splitlines()) == 1
