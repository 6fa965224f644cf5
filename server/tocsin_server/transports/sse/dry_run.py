"""What a session would answer, without a node that does anything about it: nobody joins, nothing is read.

For answering a HEAD request, which must not change anything, and for learning what a token would subscribe.
"""

from __future__ import annotations

from collections.abc import Sequence

from tocsin_server.core.events import (
    Close,
    Effect,
    OpenSubscriptions,
    Received,
    Send,
    SubscriptionsOpened,
    Timestamp,
)
from tocsin_server.core.phases import Phase
from tocsin_server.core.session import Session
from tocsin_server.protocol.messages import Command


def rehearse(session: Session, commands: Sequence[Command], now: Timestamp) -> list[Send | Close]:
    """What the peer would be told before the engine is asked. The session is of no use afterwards."""
    effects = session.handle(Received(commands), now)
    if session.phase is Phase.CONNECTING:
        entered = SubscriptionsOpened(dict.fromkeys(_entered(effects)))
        effects += session.handle(entered, now)
    return [effect for effect in effects if isinstance(effect, Send | Close)]


def server_side_channels(session: Session, connect: Command, now: Timestamp) -> list[str]:
    """The channels that a connect command subscribes by itself. The session is of no use afterwards."""
    return _entered(session.handle(Received([connect]), now))


def _entered(effects: Sequence[Effect]) -> list[str]:
    return [
        entry.channel for effect in effects if isinstance(effect, OpenSubscriptions) for entry in effect.plans
    ]
