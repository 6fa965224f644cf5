"""Revokes tokens on every node, and ends what they have allowed on this one: connections, and subscriptions.

A revocation counts for new connections from the step on in which it is added. Open ones are found by their
user in the same step, or by their token's id in slices of the event loop.

The mutable state is the revocations, the token ids that are still to be searched for, and whether a search
runs. Only the methods of `TokenRevoker` change it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog
from msgspec.structs import replace

from tocsin_server import errors
from tocsin_server.config.loading import Settings
from tocsin_server.core.events import Event, TokensRevoked
from tocsin_server.core.node_state import NodeState
from tocsin_server.core.revocations import Revocation, Revocations
from tocsin_server.engine.revocations import RevocationStore
from tocsin_server.errors import Refused
from tocsin_server.node.connection import Connection
from tocsin_server.node.slices import in_slices

log = structlog.get_logger()


class TokenRevoker:
    """The revocations of one node, and the search for the connections that they end.

    `store` is the engine's. `handle_event` hands an event to a connection. `spawn` runs a task of the node.
    `limit_reached` counts and logs that a limit refused something.
    """

    def __init__(
        self,
        settings: Settings,
        store: RevocationStore,
        state: NodeState[Connection],
        *,
        handle_event: Callable[[Connection, Event], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        limit_reached: Callable[[str], None],
    ) -> None:
        self.revocations = Revocations()
        """All that this node knows."""
        self._ttl_seconds = settings.client.token_revocation_ttl
        self._limit = settings.limits.revocation_limit
        self._limit_reached = limit_reached
        self._store = store
        self._state = state
        self._handle_event = handle_event
        self._spawn = spawn
        self._wanted: set[str] = set()
        self._is_searching = False

    async def revoke(self, revocation: Revocation) -> None:
        """Revoke tokens on every node. An `expire_at` or `issued_before` of 0 is replaced by its default.

        Raises Refused, or EngineError.
        """
        now = time.time()
        if revocation.expire_at and revocation.expire_at <= now:
            raise Refused(errors.bad_request("expire_at has passed"))
        limit = self._limit
        if len(self.revocations) >= limit:
            self.revocations.prune(now)
            if len(self.revocations) >= limit:
                self._limit_reached("limits.revocation_limit")
                reason = f"there are limits.revocation_limit ({limit}) revocations"
                raise Refused(errors.because(errors.LIMIT_EXCEEDED, reason))
        complete = replace(
            revocation,
            expire_at=revocation.expire_at or now + self._ttl_seconds,
            issued_before=revocation.issued_before or (now if revocation.user else 0),
        )
        await self._store.add(complete)

    def apply(self, revocations: Sequence[Revocation], unix_now: float) -> None:
        """Add revocations, and end what they revoke."""
        added = [one for one in revocations if self.revocations.add(one, unix_now)]
        if added:
            log.info("tokens_revoked", revocations=len(added))
        for user in {one.user for one in added if one.user}:
            for connection in self._state.hub.connections_of(user):
                self._handle_event(connection, TokensRevoked())
        if not self._state.connections:
            return
        self._wanted.update(one.token_id for one in added if one.token_id)
        if self._wanted and not self._is_searching:
            self._is_searching = True
            self._spawn(self._search())

    async def _search(self) -> None:
        """Search all connections once for all the ids that were added meanwhile."""
        try:
            while self._wanted:
                token_ids, self._wanted = self._wanted, set()
                async for connection in in_slices(list(self._state.connections)):
                    if connection.session.has_token(token_ids):
                        self._handle_event(connection, TokensRevoked())
        finally:
            self._is_searching = False
