"""What the application makes of lifecycle events, and shows."""

from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from tocsin_demo.database import Database
from tocsin_demo.visit_store import VisitStore
from tocsin_demo.visits import Visits
from tocsin_server.core.lifecycle import LifecycleEvent

CAME = LifecycleEvent("subscribed", "1", 10.5, node="node-1", client="a", user="ann", sequence=2)
WENT = LifecycleEvent("unsubscribed", "2", 11.0, node="node-1", client="a", user="ann", sequence=3)


async def test_each_change_of_a_visit_is_shown_and_published_once(tmp_path: Path) -> None:
    """Events may come again."""
    published: list[tuple[str, Any]] = []

    async def publish(channel: str, event: object) -> None:
        published.append((channel, event))

    visits = Visits(VisitStore(Database(tmp_path / "visits.sqlite")), publish)
    transport = httpx.ASGITransport(Starlette(routes=visits.routes))
    async with httpx.AsyncClient(transport=transport, base_url="http://demo.test") as http:
        await visits.on_events([CAME])
        visit = {"client": "a", "user": "ann", "node": "node-1", "came_at": 10_500.0, "went_at": None}
        assert (await http.get("/demo/visits")).json() == {"visits": [visit], "present": ["a"]}
        await visits.on_events([CAME, WENT])
        shown = (await http.get("/demo/visits")).json()
        assert (shown["visits"][0]["went_at"], shown["present"]) == (11_000.0, [])
    assert [(channel, change.went_at) for channel, change in published] == [
        ("visits", None),
        ("visits", 11_000.0),
    ]
