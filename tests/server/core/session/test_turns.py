"""Turns: the commands of one client run a bounded number at a time, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.server.core.playbook import Playbook, Wait, connected, context, error, opened
from tests.support.tokens import subscription_token
from tocsin_server.core import events
from tocsin_server.core.events import Send
from tocsin_server.core.session import BACKLOG_COMMANDS, TOKEN_COST
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import Command, Malformed, Reply

COST = 4
"""What one turn may cost in these tests."""


@pytest.fixture
def playbook() -> Playbook:
    """A connection whose turns a test gives itself."""
    found = connected(replace(context(), turn_cost=COST))
    found >> events.Turn()  # the token of the connect command has used up the first one
    found.takes_turns = False
    return found


def unknown(count: int, first: int = 2) -> list[dict[str, Any]]:
    """Commands that are refused at once."""
    return [{"id": number, "presence": {"channel": "no:such"}} for number in range(first, first + count)]


def replied(playbook: Playbook) -> list[int]:
    """The ids of the replies of the latest input."""
    sent = [effect.message for effect in playbook.effects if isinstance(effect, Send)]
    return [message.id for message in sent if isinstance(message, Reply)]


def state(playbook: Playbook) -> tuple[bool, bool]:
    """Whether the session needs a turn, and whether commands wait."""
    return playbook.session.needs_turn, playbook.session.has_waiting_commands


def test_as_many_commands_as_a_turn_may_cost_run_at_once(playbook: Playbook) -> None:
    """At the limit nothing waits, and the session asks for a turn only for what may follow."""
    playbook >> unknown(COST)
    assert replied(playbook) == [2, 3, 4, 5]
    playbook >> events.Turn() << []
    assert not playbook.session.needs_turn


def test_one_command_more_waits_for_the_next_turn(playbook: Playbook) -> None:
    """Past the limit the session needs a turn, and the rest runs then."""
    playbook >> unknown(COST + 1)
    assert replied(playbook) == [2, 3, 4, 5]
    assert state(playbook) == (True, True)
    playbook >> events.Turn() << [error(6, 102, "unknown channel")]
    assert state(playbook) == (False, False)


def test_each_turn_runs_as_many_commands_again(playbook: Playbook) -> None:
    """All commands of several messages are answered once, in their order."""
    playbook >> unknown(7) >> unknown(6, first=9)
    seen = [2, 3, 4, 5]
    while playbook.session.needs_turn:
        playbook >> events.Turn()
        assert len(replied(playbook)) <= COST
        seen += replied(playbook)
    assert seen == list(range(2, 15))


def test_single_commands_use_up_a_turn_as_those_of_one_message_do(playbook: Playbook) -> None:
    """A client cannot run more by sending more messages."""
    for number in range(2, 2 + COST):
        playbook >> unknown(1, first=number)
        assert replied(playbook) == [number]
    playbook >> unknown(1, first=10) << []
    playbook >> events.Turn()
    assert replied(playbook) == [10]


def test_other_events_run_no_commands_in_a_turn_that_is_used_up(playbook: Playbook) -> None:
    """Only a turn makes the commands go on."""
    playbook >> unknown(COST + 1)
    playbook >> Wait(1) << []
    playbook >> events.ChannelReset("news") << []
    playbook >> events.Turn() << [error(6, 102, "unknown channel")]


def test_a_command_with_a_token_costs_more() -> None:
    """A turn verifies one signature of which two would exceed it."""
    playbook = connected(replace(context(), turn_cost=TOKEN_COST + 1))
    playbook.takes_turns = False
    playbook >> events.Turn()
    token = subscription_token("ada", "$other", secret="x" * 32)
    playbook >> [{"id": n, "subscribe": {"channel": "$a", "token": token}} for n in range(2, 6)]
    assert replied(playbook) == [2, 3]
    playbook >> events.Turn()
    assert replied(playbook) == [4, 5]


def test_a_command_that_waits_for_a_reply_waits_in_its_turn_too(playbook: Playbook) -> None:
    """A turn does not overtake the set-up of a subscription."""
    playbook >> [{"id": 2, "subscribe": {"channel": "news"}}, *unknown(COST, first=3)]
    assert replied(playbook) == []
    playbook >> events.Turn() << []
    playbook >> opened("news")
    assert replied(playbook) == [2, 3, 4, 5, 6]


def test_commands_are_decoded_only_once_they_may_run_soon(playbook: Playbook) -> None:
    """While a subscription is set up, BACKLOG_COMMANDS are decoded, and the rest of the message is not."""
    decoded = 0

    def commands() -> Iterator[Command | Malformed]:
        nonlocal decoded
        for command in JSON.decode_commands(b'{"id":2,"presence":{"channel":"no:such"}}\n' * 1000):
            decoded += 1
            yield command

    playbook >> {"id": 2, "subscribe": {"channel": "news"}}
    playbook >> events.Received(commands()) << []
    assert decoded == BACKLOG_COMMANDS


def test_a_pong_is_taken_while_commands_wait(playbook: Playbook) -> None:
    """A client that waits for a subscription is alive."""
    playbook >> Wait(25)
    before = playbook.session.awaits_pong
    playbook >> {"id": 2, "subscribe": {"channel": "news"}}
    playbook >> b'{"id":3,"presence":{"channel":"no:such"}}\n{}'
    assert (before, playbook.session.awaits_pong) == (True, False)


def test_a_lost_connection_drops_the_commands_that_wait(playbook: Playbook) -> None:
    """It needs no turn any longer."""
    playbook >> unknown(3 * COST) >> events.ConnectionLost()
    assert state(playbook) == (False, False)
    playbook >> events.Turn() << []


def test_a_violation_ends_the_commands_that_wait_behind_it(playbook: Playbook) -> None:
    """The close comes in the turn in which the invalid command would have run."""
    playbook >> [*unknown(COST), {"id": 9, "connect": {}}, *unknown(2, first=10)]
    assert state(playbook) == (True, True)
    playbook >> events.Turn()
    assert playbook.session.is_closed
    assert replied(playbook) == []
