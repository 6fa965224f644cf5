"""The forwarding interface: commands of an emulated connection, on their way to the node that has it."""

from __future__ import annotations

from typing import Protocol


class ForwardingHandler(Protocol):
    """The callback of forwarding, implemented by the node. It never raises."""

    @property
    def uid(self) -> str:
        """The node's unique id."""

    def on_commands(self, session: bytes, data: bytes) -> bool:
        """Hand commands to the session of this node with this digest, synchronously. False: there is none."""


class Forwarding(Protocol):
    """Forwards commands to other nodes."""

    async def forward(self, node: str, session: bytes, data: bytes) -> bool:
        """Hand commands to a session of the node with this uid. False: that node or session is gone.

        Calls of one node for one session take effect in their order, each at most once. `session` is the
        digest of a session id. Raises Unanswered if the node does not confirm in time, so that the outcome is
        unknown, and EngineError if nothing was sent.
        """
