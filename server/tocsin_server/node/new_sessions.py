"""The sessions of new connections, and what they ask the node.

The mutable state is the context of the next sessions; only `NewSessions` changes it, when the node starts.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace

from tocsin_server.core.client_limits import ClientLimits
from tocsin_server.core.events import Timestamp
from tocsin_server.core.session import Session
from tocsin_server.core.session_context import SessionContext
from tocsin_server.node.authorizations import Authorizations
from tocsin_server.node.authorizer import Authorizer
from tocsin_server.node.client_request import KeptHeaders
from tocsin_server.node.key_sets import KeySets, authorizer_with


class NewSessions:
    """Makes sessions. Once `start` was called, they ask the application's authorizer, and wait for keys."""

    def __init__(
        self,
        context: SessionContext,
        authorizations: Authorizations,
        key_sets: KeySets,
        application: Authorizer | None,
    ) -> None:
        self._context = context
        self._unlimited_context = replace(context, limits=ClientLimits.unlimited())
        self._authorizations = authorizations
        self._key_sets = key_sets
        self._application = application

    def start(self) -> KeptHeaders | None:
        """Let new sessions ask the authorizer, if it decides about anything.

        Returns what connections must keep of their requests for it; None: nothing.
        """
        application = self._application
        if application is not None and not application.start():
            application = None
        self._authorizations.authorizer = authorizer = authorizer_with(self._key_sets, application)
        if authorizer is None:
            return None
        self._context = replace(
            self._context,
            needs_authorization=authorizer.needs_authorization,
            authorization_seconds=authorizer.authorization_seconds,
            decide_now=self._authorizations.decide_in_step,
        )
        self._unlimited_context = replace(self._context, limits=ClientLimits.unlimited())
        return authorizer.kept_headers

    def make(
        self,
        *,
        sends_pings: bool,
        wants_pong: bool,
        announces_pings: bool,
        is_unidirectional: bool,
        is_executed: bool,
    ) -> Session:
        """Return a session for a new connection; what one that is not executed does counts for no limit."""
        return Session(
            self._context if is_executed else self._unlimited_context,
            _random_uuid(),
            Timestamp(time.monotonic(), time.time()),
            ping_phase=0.5 + random.random() / 2,  # noqa: S311 - spreads load, hides nothing
            sends_pings=sends_pings,
            wants_pong=wants_pong,
            announces_pings=announces_pings,
            is_unidirectional=is_unidirectional,
        )


def _random_uuid() -> str:
    """Return a random UUID (RFC 9562, version 4), in a third of the time that `uuid` takes."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) % 4]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
