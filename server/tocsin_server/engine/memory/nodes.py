"""The nodes of a node that stands alone: itself."""

from __future__ import annotations

from tocsin_server.engine.nodes import Household, Order, Question, Survey
from tocsin_server.errors import EngineError


class MemoryNodes:
    """What concerns every node concerns this one."""

    def __init__(self) -> None:
        self._household: Household | None = None

    def start(self, household: Household) -> None:
        """Order and ask `household` from now on."""
        self._household = household

    def stop(self) -> None:
        """Reach nobody any more. Idempotent."""
        self._household = None

    async def order(self, order: Order) -> None:
        """This node obeys."""
        self._resident().obey(order)

    async def survey(self, question: Question) -> Survey:
        """This node answers."""
        return Survey([self._resident().report(question)])

    def _resident(self) -> Household:
        if self._household is None:
            raise EngineError("the engine is not running")
        return self._household
