"""A line for each refusal while they are few, a sample while they are many."""

from __future__ import annotations

import pytest
import structlog

from tests.support.tokens import connection_token
from tocsin_server.config.loading import Settings
from tocsin_server.core.events import Received
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.node.node import Node
from tocsin_server.node.sampled_log import BURST, LINES_PER_SECOND, SampledLog
from tocsin_server.protocol.messages import Command, ConnectRequest


class Clock:
    """The time, as the test sets it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_an_attack_leaves_a_sample(clock: Clock) -> None:
    """A line after a pause says how many were left out."""
    log = SampledLog(clock)
    with structlog.testing.capture_logs() as lines:
        for _ in range(1000):
            log.write("client_refused", error="x")
        assert len(lines) == BURST
        clock.now += 1 / LINES_PER_SECOND
        log.write("client_refused", error="y")
        log.write("client_refused", error="z")
    assert lines[BURST:] == [
        {"event": "client_refused", "log_level": "info", "error": "y", "left_out": 1000 - BURST}
    ]


def test_few_refusals_have_a_line_each(clock: Clock) -> None:
    """However long they go on."""
    log = SampledLog(clock)
    with structlog.testing.capture_logs() as lines:
        for number in range(1000):
            clock.now += 1 / LINES_PER_SECOND
            log.write("client_refused", error=str(number))
    assert len(lines) == 1000
    assert not any("left_out" in line for line in lines)


def test_an_attack_of_one_kind_hides_no_line_of_another(clock: Clock) -> None:
    """The kind is the event, and the limit. Fields that clients choose make no kind of their own."""
    log = SampledLog(clock)
    with structlog.testing.capture_logs() as lines:
        for number in range(1000):
            log.write("request_refused", reason="too many", address=str(number))
            log.write("limit_reached", limit="client.channel_limit", client=str(number))
        log.write("client_refused", error="expired")
        log.write("limit_reached", limit="client.message_limit_bytes")
    assert [line["event"] for line in lines[2 * BURST :]] == ["client_refused", "limit_reached"]
    assert len(log._samples) == 4


def test_a_line_has_its_level_its_traceback_and_no_empty_fields(clock: Clock) -> None:
    log = SampledLog(clock)
    with structlog.testing.capture_logs() as lines:
        log.write("task_failed", level="error", exc_info=True, user="", address=None, count=0)
    assert lines == [{"event": "task_failed", "log_level": "error", "exc_info": True, "count": 0}]


async def test_a_node_logs_why_it_refuses_a_client() -> None:
    """With the client id, and without the token."""
    node = Node(Settings(), MemoryEngine())
    session = node.new_session()
    token = connection_token("ada", secret="hush" * 10)
    command = Command(id=1, connect=ConnectRequest(token=token))
    with structlog.testing.capture_logs() as lines:
        session.handle(Received([command]), node.now())
    assert lines == [
        {
            "event": "client_refused",
            "log_level": "info",
            "client": session.client,
            "subject": "connection token",
            "error": "neither client.token_hmac_secret nor client.token_public_key is set",
        }
    ]
