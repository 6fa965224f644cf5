"""Health: the process lives, and whether the node can do its work, with the reason if it cannot."""

from __future__ import annotations

import httpx

from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import serve_node, settings_of
from tocsin_server.app import create_app


async def test_a_serving_node_is_live_and_ready() -> None:
    async with serve_node(server={"name": "here"}) as served_node, served_node.http() as http:
        live, ready = await http.get("/health/live"), await http.get("/health/ready")
        assert (live.status_code, live.json()) == (200, {"node": "here"})
        assert (ready.status_code, ready.json()) == (200, {"node": "here", "trouble": ""})


async def test_a_node_that_cannot_hear_is_not_ready_and_says_why() -> None:
    """503 for whoever balances the load; the process lives, so nobody restarts it."""
    engine = FaultyEngine()
    async with serve_node(engine=engine) as served_node, served_node.http() as http:
        engine.why_not = "The link to the store is deaf."
        ready = await http.get("/health/ready")
        assert (ready.status_code, ready.json()["trouble"]) == (503, "The link to the store is deaf.")
        assert (await http.get("/health/live")).status_code == 200
        engine.why_not = ""
        assert (await http.get("/health/ready")).status_code == 200


async def test_a_node_that_drains_is_not_ready() -> None:
    """From the first moment, while its clients are still being sent away."""
    async with serve_node() as served_node, served_node.http() as http, served_node.connected() as wire:
        await served_node.node.drain(0, lambda: False)
        ready = await http.get("/health/ready")
        assert (ready.status_code, "draining" in ready.json()["trouble"]) == (503, True)
        assert (await wire.closed()).code == 3001


async def test_a_node_that_is_told_to_leave_is_not_ready_from_then_on() -> None:
    """Not only once whoever serves it gets to it."""
    async with serve_node() as served_node, served_node.http() as http:
        served_node.node.on_drain_requested = lambda: None
        assert (await http.post("/api/drain", json={"node": served_node.node.name})).json() == {"result": {}}
        ready = await http.get("/health/ready")
        assert (ready.status_code, "draining" in ready.json()["trouble"]) == (503, True)


async def test_an_application_that_forgot_to_run_its_node_is_told() -> None:
    """Mounted without its lifespan: not ready, instead of taking clients it cannot serve."""
    app = create_app(settings_of({}))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
        ready = await http.get("/health/ready")
        assert (ready.status_code, ready.json()["trouble"]) == (503, "The node is not running.")


async def test_health_needs_no_key() -> None:
    """Unlike the API beside it."""
    async with serve_node(api={"insecure": False}) as served_node, served_node.http() as http:
        assert (await http.get("/health/ready")).status_code == 200
        assert (await http.post("/api/info", json={})).status_code == 401
