"""What an application that decides about requests provides to a node."""

from __future__ import annotations

from typing import Protocol

from tocsin_server.core.events import Approval, Authorize
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.protocol.messages import Request


class Authorizer(Protocol):
    """Decides about clients' requests, outside their sessions."""

    @property
    def limit_seconds(self) -> float:
        """How long `authorize` may take. Read once, when the node is made."""

    def needs_authorization(self, request: Request) -> bool:
        """Return whether `authorize` decides about this request. Called for every command: must be quick."""

    async def authorize(self, authorize: Authorize) -> Approval | Refusal | Disconnect:
        """Decide about one request.

        The node cancels it after `limit_seconds`. The client's request is refused with error 100 then, and if
        it raises; a connect command is closed with 3004, so that the client reconnects.
        """
