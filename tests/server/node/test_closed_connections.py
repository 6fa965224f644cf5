"""The log lines of closed connections: at level info one for many."""

import asyncio
import logging

import pytest
import structlog

from tests.support.timing import SOON
from tocsin_server import errors
from tocsin_server.node import closed_connections
from tocsin_server.node.closed_connections import ClosedConnections


@pytest.fixture(autouse=True)
def debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, closed_connections.__name__)


async def test_many_closed_connections_are_one_line_at_info() -> None:
    """At debug each has a line, with who it was and why."""
    closed = ClosedConnections()
    with structlog.testing.capture_logs() as lines:
        for number in range(10_000):
            closed.add(errors.SHUTDOWN, lambda number=number: {"client": str(number), "user": "ann"})  # type: ignore[misc]
        closed.add(errors.SLOW, lambda: {"client": "c", "user": ""})
        closed.write()
        closed.write()
    infos = [line for line in lines if line["log_level"] == "info"]
    codes = {str(errors.SHUTDOWN.code): 10_000, str(errors.SLOW.code): 1}
    assert infos == [{"event": "connections_closed", "log_level": "info", "count": 10_001, "codes": codes}]
    assert lines[0] == {
        "event": "connection_closed",
        "log_level": "debug",
        "client": "0",
        "user": "ann",
        "code": errors.SHUTDOWN.code,
        "reason": errors.SHUTDOWN.reason,
    }


async def test_no_fields_are_made_for_a_line_that_is_not_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, closed_connections.__name__)
    made: list[dict[str, str]] = []

    def fields() -> dict[str, str]:
        made.append({})
        return made[0]

    closed = ClosedConnections()
    with structlog.testing.capture_logs() as lines:
        closed.add(errors.SHUTDOWN, fields)
        closed.write()
    assert not made
    assert [line["event"] for line in lines] == ["connections_closed"]


async def test_the_line_is_written_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_connections, "SUM_SECONDS", 0.0)
    closed = ClosedConnections()
    with structlog.testing.capture_logs() as lines:
        closed.add(errors.SHUTDOWN, dict)
        async with asyncio.timeout(SOON):
            while closed._timer is not None:  # noqa: ASYNC110 - a timer is no event to wait for
                await asyncio.sleep(0)
    assert [line["event"] for line in lines] == ["connection_closed", "connections_closed"]
