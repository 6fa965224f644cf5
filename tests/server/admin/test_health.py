"""Health: whether the process lives, and whether the node is ready, with the unready reason."""

from __future__ import annotations

import time

import httpx

from tests.server.node.faulty_engine import FaultyEngine
from tests.server.served_node import serve_node, settings_of, until
from tocsin_server.app import create_app
from tocsin_server.core.delivery import FailingDelivery
from tocsin_server.hooks.deliveries import Deliveries


async def test_a_served_node_is_live_and_ready() -> None:
    async with serve_node(server={"name": "here"}) as served_node, served_node.http() as http:
        live, ready = await http.get("/health/live"), await http.get("/health/ready")
        assert (live.status_code, live.json()) == (200, {"node": "here"})
        assert (ready.status_code, ready.json()) == (200, {"node": "here", "reason": "", "warnings": []})


async def test_a_deaf_node_is_not_ready_and_has_a_reason() -> None:
    """503 is for load balancers. The process is live, so that no supervisor restarts it."""
    engine = FaultyEngine()
    async with serve_node(engine=engine) as served_node, served_node.http() as http:
        engine.forced_unready_reason = "The pub/sub connection is dead."
        ready = await http.get("/health/ready")
        assert (ready.status_code, ready.json()["reason"]) == (503, "The pub/sub connection is dead.")
        assert (await http.get("/health/live")).status_code == 200
        engine.forced_unready_reason = ""
        assert (await http.get("/health/ready")).status_code == 200


async def test_a_draining_node_is_not_ready() -> None:
    """It is not ready from the first moment on, while its clients are still connected."""
    async with serve_node() as served_node, served_node.http() as http, served_node.connected() as wire:
        await served_node.node.drain(0, lambda: False)
        ready = await http.get("/health/ready")
        assert (ready.status_code, "draining" in ready.json()["reason"]) == (503, True)
        assert (await wire.closed()).code == 3001


async def test_a_node_is_not_ready_from_the_drain_command_on() -> None:
    """The server that stops the process may react later."""
    async with serve_node() as served_node, served_node.http() as http:
        served_node.node.attach_server(lambda: None)
        assert (await http.post("/api/drain", json={"node": served_node.node.name})).json() == {"result": {}}
        ready = await http.get("/health/ready")
        assert (ready.status_code, "draining" in ready.json()["reason"]) == (503, True)


async def test_a_node_that_its_host_application_does_not_run_is_not_ready() -> None:
    """The node is mounted without its lifespan, and cannot serve clients."""
    app = create_app(settings_of({}))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as http:
        ready = await http.get("/health/ready")
        assert (ready.status_code, ready.json()["reason"]) == (503, "The node is not running.")


async def test_health_needs_no_key() -> None:
    """The API needs one."""
    async with serve_node(api={"insecure": False}) as served_node, served_node.http() as http:
        assert (await http.get("/health/ready")).status_code == 200
        assert (await http.post("/api/info", json={})).status_code == 401


async def test_a_webhook_that_has_failed_for_long_is_a_warning() -> None:
    """The node stays ready."""
    webhooks = {"app": {"url": "http://127.0.0.1:9/"}}
    async with (
        serve_node(webhooks=webhooks, events={"types": ["connected"]}) as served,
        served.http() as http,
    ):
        failing = FailingDelivery("d1", 1, 3, time.time() - 400, time.time() + 60, 0.0, 500, "status 500")
        (deliveries,) = served.node.services
        assert isinstance(deliveries, Deliveries)
        await until(lambda: deliveries._running)
        deliveries._running[0].report.failing(0, failing)
        ready = await http.get("/health/ready")
        assert ready.status_code == 200
        (warning,) = ready.json()["warnings"]
        assert warning.startswith("Events for webhooks.app cannot be delivered for 40")
        assert "status 500" in warning


async def test_warnings_of_the_engine_are_named_and_change_nothing() -> None:
    """Such as those about an evicting Redis. `info` has them as well."""
    engine = FaultyEngine()
    async with serve_node(engine=engine) as served_node, served_node.http() as http:
        engine.forced_warnings = ("Redis at r:1 evicts.",)
        ready = await http.get("/health/ready")
        assert (ready.status_code, ready.json()["warnings"]) == (200, ["Redis at r:1 evicts."])
        (info,) = (await http.post("/api/info", json={})).json()["result"]["nodes"]
        assert info["warnings"] == ["Redis at r:1 evicts."]
