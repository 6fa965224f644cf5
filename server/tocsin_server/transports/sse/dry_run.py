"""The effects of a session, computed and not executed: nothing is subscribed, published or read.

It answers HEAD requests, which must not change anything, and finds the channels that a token subscribes by
itself. Each function consumes its session, which must not be used afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence

from tocsin_server.core.events import (
    Close,
    ConnectionReserved,
    Effect,
    Event,
    OpenSubscriptions,
    Received,
    ReserveConnection,
    Send,
    SubscriptionsOpened,
    Timestamp,
    Turn,
)
from tocsin_server.core.phases import Phase
from tocsin_server.core.session import Session
from tocsin_server.protocol.messages import Command


def expected_answers(session: Session, commands: Sequence[Command], now: Timestamp) -> list[Send | Close]:
    """The replies to commands, or the close, where they depend on neither engine nor authorizer."""
    effects = _connected(session, Received(commands), now)
    if session.phase is Phase.CONNECTING:
        opened = SubscriptionsOpened(dict.fromkeys(_channels_of(effects)))
        effects += _run(session, opened, now)
    return [effect for effect in effects if isinstance(effect, Send | Close)]


def server_side_channels(session: Session, connect: Command, now: Timestamp) -> list[str]:
    """The channels that a connect command subscribes by itself."""
    return _channels_of(_connected(session, Received([connect]), now))


def _connected(session: Session, event: Received, now: Timestamp) -> list[Effect]:
    """Handle the connect command, as if the user had few connections on other nodes."""
    effects = _run(session, event, now)
    if any(isinstance(effect, ReserveConnection) for effect in effects):
        effects += _run(session, ConnectionReserved(), now)
    return effects


def _run(session: Session, event: Event, now: Timestamp) -> list[Effect]:
    """Handle an event, with all the turns that its commands need."""
    effects = session.handle(event, now)
    while session.needs_turn:
        effects += session.handle(Turn(), now)
    return effects


def _channels_of(effects: Sequence[Effect]) -> list[str]:
    return [
        plan.channel for effect in effects if isinstance(effect, OpenSubscriptions) for plan in effect.plans
    ]
