"""The revocation store interface: keeps revocations of tokens, and hands them to every node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tocsin_server.core.revocations import Revocation


class RevocationHandler(Protocol):
    """The callbacks of a revocation store, implemented by the node. Synchronous; they never raise."""

    @property
    def known_revocations(self) -> Sequence[Revocation]:
        """Those that this node knows, for a store that has lost some."""

    def on_revocations(self, revocations: Sequence[Revocation]) -> None:
        """Tokens were revoked, here or by another node. Some may be known already, or have expired."""


class RevocationStore(Protocol):
    """The revocation store of one node.

    When the engine has started, the handler has been given every revocation that the store keeps. Those that
    other nodes add follow at once, or within seconds if their announcement is lost.
    """

    async def add(self, revocation: Revocation) -> None:
        """Keep a revocation until its `expire_at`, and hand it to the handler of every node.

        This node's handler has it when this returns. Raises EngineError if the engine cannot do its work.
        """
