"""The memory engine's node registry: the only node is this one."""

from __future__ import annotations

import asyncio

from tocsin_server.engine.nodes import RESPONSE_SECONDS, ControlCommand, ControlHandler, Survey, SurveyRequest
from tocsin_server.errors import EngineError, Unanswered


class MemoryNodeRegistry:
    """Implements NodeRegistry by calling this node's own handler."""

    def __init__(self) -> None:
        self._handler: ControlHandler | None = None

    def start(self, handler: ControlHandler) -> None:
        """Call `handler` with control commands and survey requests from now on."""
        self._handler = handler

    def stop(self) -> None:
        """Release the handler. Idempotent."""
        self._handler = None

    async def publish_control(self, command: ControlCommand) -> None:
        """Apply a control command to this node, as NodeRegistry describes."""
        handler = self._running_handler()
        if applied := handler.on_control(command):
            _, waiting = await asyncio.wait(applied, timeout=RESPONSE_SECONDS)
            if waiting:
                raise Unanswered([handler.uid])

    async def survey(self, request: SurveyRequest) -> Survey:
        """Survey this node."""
        return Survey([await self._running_handler().node_info(request)])

    def _running_handler(self) -> ControlHandler:
        if self._handler is None:
            raise EngineError("the engine is not running")
        return self._handler
