"""Logs: one stream and one format for every logger."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from tests.support.recorded_logs import recorded
from tocsin_server.logging import CLIENT_LOGGERS, REPLACED, configure_logging


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Restore the logging configuration, which is global, after each test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {logger: logger.level for logger in map(logging.getLogger, CLIENT_LOGGERS)}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for logger, its_level in levels.items():
        logger.setLevel(its_level)
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


@pytest.mark.parametrize("level", ["debug", "info"])
def test_requests_of_the_server_to_others_are_not_logged(
    capsys: pytest.CaptureFixture[str], level: str
) -> None:
    """The address of a webhook may have a secret in its query, by any name. Warnings are logged."""
    configure_logging(level)
    for name in ("httpx", "httpcore.http11", "aiohttp.client", "asyncpg"):
        logging.getLogger(name).info("HTTP Request: POST https://app.example/?sig=a-secret")
        logging.getLogger(name).debug("headers: a-secret")
        logging.getLogger(name).warning("%s has a problem", name)
    written = capsys.readouterr().err
    assert "a-secret" not in written
    assert written.count("has a problem") == 4


TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"


@pytest.mark.parametrize("json", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {TOKEN}",
        f'GET /events?channel=a&token={TOKEN} HTTP/1.1"',
        "http://host/api?api_key=hush&x=1",
        "/connection/websocket?cf_connect=hush",
        "https://idp/?Client-Secret=hush",
    ],
)
def test_a_token_in_a_line_of_a_library_is_replaced(
    capsys: pytest.CaptureFixture[str], json: bool, text: str
) -> None:
    """Also in the message of an exception. The rest of the line stays."""
    recorded.is_exempt = True
    configure_logging(json=json)
    try:
        logging.getLogger("a.library").warning("before %s after", text)
        structlog.get_logger().error("task_failed", exc_info=ValueError(text))
        written = capsys.readouterr().err
    finally:
        recorded.is_exempt = False
    assert TOKEN not in written
    assert "hush" not in written
    assert written.count(REPLACED) >= 2
    assert " after" in written
