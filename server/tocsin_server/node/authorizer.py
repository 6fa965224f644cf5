"""What an application that decides about requests provides to a node."""

from __future__ import annotations

from typing import Protocol

from tocsin_server.core.events import Approval, Authorize
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.protocol.messages import Request


class Authorizer(Protocol):
    """Decides about clients' requests, outside their sessions."""

    @property
    def authorization_seconds(self) -> float:
        """How long `authorize` may take. Read once, when the node is made."""

    def needs_authorization(self, request: Request) -> bool:
        """Return whether `authorize` decides about this request.

        Called once or twice for every command: must be quick.
        """

    async def authorize(self, authorize: Authorize) -> Approval | Refusal | Disconnect:
        """Decide about one request.

        The node cancels it after `authorization_seconds`. Then, and if it raises, a request is refused with
        error 100, and a connect closes the connection with 3004, so that the client reconnects.
        """
