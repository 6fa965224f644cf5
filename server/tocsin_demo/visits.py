"""Who came to the lobby and went, as lifecycle events tell the application; and the resource `/demo/visits`.

| request            | response                                                                    |
|--------------------|-----------------------------------------------------------------------------|
| `GET /demo/visits` | 200 {visits, present}: the latest visits, and the client ids that are there |

Each change of a visit is published on the channel `visits`.
"""

from collections.abc import Sequence

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tocsin_demo.publishing import VISITS, Publish
from tocsin_demo.responses import json_response, resource
from tocsin_demo.visit_store import Visit, VisitStore
from tocsin_server.core.lifecycle import LifecycleEvent

SHOWN_VISITS = 20


class VisitsView(msgspec.Struct, frozen=True):
    """The latest visits, the newest first, and all connections that are present."""

    visits: list[Visit]
    present: list[str]


class Visits:
    """The handler of events and of requests. It keeps no state: visits are in the store."""

    def __init__(self, store: VisitStore, publish: Publish) -> None:
        self._store = store
        self._publish = publish

    @property
    def routes(self) -> list[Route]:
        """Reading is open to every client."""
        return [resource("/demo/visits", GET=self._show)]

    async def on_events(self, events: Sequence[LifecycleEvent]) -> None:
        """Store events, of which some may be stored already, and publish what changed."""
        for visit in await run_in_threadpool(self._store.record, events):
            await self._publish(VISITS, visit)

    async def _show(self, _request: Request) -> Response:
        return json_response(await run_in_threadpool(self._view))

    def _view(self) -> VisitsView:
        return VisitsView(self._store.latest(SHOWN_VISITS), self._store.present())
