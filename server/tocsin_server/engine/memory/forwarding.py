"""The memory engine's forwarding: the only node is this one."""

from __future__ import annotations

from tocsin_server.engine.forwarding import ForwardingHandler
from tocsin_server.errors import EngineError


class MemoryForwarding:
    """Implements Forwarding by calling this node's own handler. Any other node does not exist."""

    def __init__(self) -> None:
        self._handler: ForwardingHandler | None = None

    def start(self, handler: ForwardingHandler) -> None:
        """Call `handler` with commands from now on."""
        self._handler = handler

    def stop(self) -> None:
        """Release the handler. Idempotent."""
        self._handler = None

    async def forward(self, node: str, session: bytes, data: bytes) -> bool:
        """Hand commands to this node."""
        if self._handler is None:
            raise EngineError("the engine is not running")
        return node == self._handler.uid and self._handler.on_commands(session, data)
