"""What a session would answer, without a node that does anything about it: nobody joins, nothing is read.

For answering a HEAD request, which must not change anything, and for learning what a token would subscribe.
"""

from __future__ import annotations

from collections.abc import Sequence

from tocsin_server.core.events import Close, Commanded, Effect, Enter, Entered, Instant, Send
from tocsin_server.core.session import Phase, Session
from tocsin_server.protocol.messages import Command


def rehearse(session: Session, commands: Sequence[Command], now: Instant) -> list[Send | Close]:
    """What the peer would be told before the engine is asked. The session is of no use afterwards."""
    effects = session.handle(Commanded(commands), now)
    if session.phase is Phase.CONNECTING:
        entered = Entered(dict.fromkeys(_entered(effects)))
        effects += session.handle(entered, now)
    return [effect for effect in effects if isinstance(effect, Send | Close)]


def server_side_channels(session: Session, connect: Command, now: Instant) -> list[str]:
    """The channels that a connect command subscribes by itself. The session is of no use afterwards."""
    return _entered(session.handle(Commanded([connect]), now))


def _entered(effects: Sequence[Effect]) -> list[str]:
    return [entry.channel for effect in effects if isinstance(effect, Enter) for entry in effect.entries]
