"""The nodes of a node that stands alone: itself."""

from __future__ import annotations

from tocsin_server.engine.nodes import ControlCommand, ControlHandler, Survey, SurveyRequest
from tocsin_server.errors import EngineError


class MemoryNodeRegistry:
    """What concerns every node concerns this one."""

    def __init__(self) -> None:
        self._household: ControlHandler | None = None

    def start(self, household: ControlHandler) -> None:
        """Order and ask `household` from now on."""
        self._household = household

    def stop(self) -> None:
        """Reach nobody any more. Idempotent."""
        self._household = None

    async def publish_control(self, order: ControlCommand) -> None:
        """This node obeys."""
        self._resident().on_control(order)

    async def survey(self, question: SurveyRequest) -> Survey:
        """This node answers."""
        return Survey([self._resident().node_info(question)])

    def _resident(self) -> ControlHandler:
        if self._household is None:
            raise EngineError("the engine is not running")
        return self._household
