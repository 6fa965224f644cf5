"""What an application that decides about requests provides to a node."""

from __future__ import annotations

from typing import Protocol

from tocsin_server.core.events import Authorize, AuthorizedOutcome
from tocsin_server.node.client_request import ClientRequest, KeptHeaders
from tocsin_server.protocol.messages import Request


class Authorizer(Protocol):
    """Decides about clients' requests, outside their sessions."""

    @property
    def authorization_seconds(self) -> float:
        """How long `authorize` may take. Read once, when the node starts."""

    @property
    def kept_headers(self) -> KeptHeaders | None:
        """What connections keep of their requests; None: nothing. Read once, when the node starts."""

    def start(self) -> bool:
        """Return whether it decides about any request. Called when the node starts."""

    def needs_authorization(self, request: Request) -> bool:
        """Return whether `authorize` decides about this request.

        Called once or twice for every command: must be quick.
        """

    async def authorize(self, authorize: Authorize, request: ClientRequest | None) -> AuthorizedOutcome:
        """Decide about one request. `request` is the one with which the client connected.

        It is None if `kept_headers` is. This ends within `authorization_seconds`; a later answer is ignored.
        If it raises, TimeoutError included, a request is refused with error 100, and a connect closes the
        connection with 3004, so that the client reconnects.
        """
