"""Every hook on every transport and engine: what it answers, or does wrong, and what interrupts it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from tests.server.engine.redis.redis_server import redis_running
from tests.server.hooks.deciding import NAMED_ORIGIN, Decisions, deciding_node
from tests.server.hooks.deciding_clients import Client, Outcome, client_of, close_http
from tests.server.served_node import ServedNode, until
from tests.support.timing import SOON, TICK
from tocsin_server import errors
from tocsin_server.config.options import EngineOptions
from tocsin_server.core.events import ServerDisconnect
from tocsin_server.engine.engine import Engine
from tocsin_server.engine.factory import create_engine
from tocsin_server.hooks import dispatcher
from tocsin_server.hooks.dispatcher import HookDispatcher
from tocsin_server.hooks.events import ConnectEvent

pytestmark = pytest.mark.asyncio(loop_scope="module")

BIDIRECTIONAL = ("websocket", "asgi", "http_stream", "emulated_sse")
UNIDIRECTIONAL = ("uni_websocket", "uni_http_stream", "uni_sse")
KINDS = ("subscribe", "publish", "rpc")

_numbers = itertools.count()


@dataclass
class Nodes:
    """Nodes with one engine: with a long deadline of hooks, and with a short one, each under both servers."""

    patient: dict[bool, tuple[ServedNode, Decisions]]
    hasty: dict[bool, tuple[ServedNode, Decisions]]

    def of(self, transport: str, *, is_hasty: bool = False) -> tuple[ServedNode, Decisions]:
        return (self.hasty if is_hasty else self.patient)[transport == "asgi"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["memory", "redis"])
async def nodes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Nodes]:
    folder = tmp_path_factory.mktemp("redis")
    grace = dispatcher.GRACE_SECONDS
    dispatcher.GRACE_SECONDS = TICK
    async with AsyncExitStack() as stack:
        url = "memory://" if request.param == "memory" else _redis_url(stack, folder)
        found = Nodes({}, {})
        for group, seconds in ((found.patient, 10 * SOON), (found.hasty, TICK)):
            for is_asgi in (False, True):
                node = deciding_node(_engine(url), hook_timeout=seconds, is_asgi=is_asgi)
                group[is_asgi] = await stack.enter_async_context(node)
        with capture_logs():  # to write tracebacks to a console takes longer than all else
            yield found
        for _, decisions in (*found.patient.values(), *found.hasty.values()):
            decisions.released.set()
        await close_http()
    dispatcher.GRACE_SECONDS = grace


def _redis_url(stack: AsyncExitStack, folder: Path) -> str:
    redis = stack.enter_context(redis_running(folder, "appendonly no"))
    return f"redis://127.0.0.1:{redis.port}"


def _engine(url: str) -> Engine:
    prefix = {} if url.startswith("memory") else {"prefix": f"n{next(_numbers)}"}
    return create_engine(EngineOptions.model_validate({"url": url, **prefix}))


def connect_outcome(transport: str, case: str) -> Outcome:
    """What must become of a connect command."""
    codes = {"disconnect": 4500, "error": 3004, "timeout": 3004, "late": 3004, "draining": 3001}
    if transport == "sse":
        statuses = {"refuse": (400, 1000), "disconnect": (401, 4500)}
        return Outcome("status", statuses.get(case, (503, codes.get(case))))
    if case == "refuse":
        return Outcome("closed", 3507) if transport in UNIDIRECTIONAL else Outcome("error", 1000)
    return Outcome("closed", codes[case])


async def drop_of(served: ServedNode, client_id: str) -> None:
    """Do to a connection what a node that drains does."""
    (found,) = [one for one in served.node.state.connections if one.session.client == client_id]
    served.node.handle_event(found, ServerDisconnect(errors.SHUTDOWN))


async def check_connect(transport: str, case: str, nodes: Nodes) -> None:
    served, decisions = nodes.of(transport, is_hasty=case in ("timeout", "late"))
    name = f"{case}.{next(_numbers)}"
    async with client_of(transport, served, {"x-case": name, "x-more": "1"}) as client:
        connecting = asyncio.ensure_future(client.connect())
        await until(lambda: decisions.asked_about(name))
        (event,) = decisions.asked_about(name)
        assert isinstance(event, ConnectEvent)
        request = event.request
        assert (request.transport, request.headers["x-more"]) == (transport, "1")
        assert (request.protocol, request.address) == ("json", "127.0.0.1")
        if case == "gone":
            client.abort()
            connecting.cancel()
            if transport != "sse":  # a stream that opens notices it once the hook has answered
                await until(lambda: not _has(served, event.client))
            return
        if case == "draining":
            await drop_of(served, event.client)
        outcome = await connecting
        if case == "admit":
            assert outcome.kind == "ok", (transport, outcome)
            if transport != "sse":
                assert outcome.value["data"] == {"transport": transport}
            assert {one.session.user for one in _of(served, event.client)} == {"ada"}
        else:
            assert outcome == connect_outcome(transport, case), (transport, case)
            await until(lambda: not [one for one in _of(served, event.client) if one.session.user])


def _of(served: ServedNode, client_id: str) -> list[Any]:
    return [one for one in served.node.state.connections if one.session.client == client_id]


def _has(served: ServedNode, client_id: str) -> bool:
    return bool(_of(served, client_id))


CASES = ("admit", "refuse", "disconnect", "error", "timeout", "late", "gone", "draining")


@pytest.mark.parametrize("transport", [*BIDIRECTIONAL, *UNIDIRECTIONAL, "sse"])
async def test_a_connect_hook_decides(nodes: Nodes, transport: str) -> None:
    await asyncio.gather(*(check_connect(transport, case, nodes) for case in CASES))
    await settle(nodes)


@pytest.mark.parametrize("transport", [*BIDIRECTIONAL, *UNIDIRECTIONAL, "sse"])
async def test_cookies_count_only_from_origins_that_are_named(nodes: Nodes, transport: str) -> None:
    """The page of any other origin cannot act for its visitor."""
    served, decisions = nodes.of(transport)
    origins = {"": {"a": "1"}, NAMED_ORIGIN: {"a": "1"}, "https://other.example": {}}
    for origin, cookies in origins.items():
        name = f"cookies.{next(_numbers)}"
        headers = {"x-case": name, "Cookie": "a=1", **({"Origin": origin} if origin else {})}
        async with client_of(transport, served, headers) as client:
            assert (await client.connect()).kind == "ok"
            (event,) = decisions.asked_about(name)
            assert isinstance(event, ConnectEvent)
            assert event.request.cookies == cookies, (transport, origin)
            assert ("cookie" in event.request.headers) == bool(cookies)
    await settle(nodes)


async def settle(nodes: Nodes) -> None:
    """Let the hooks that wait answer. Nothing of any connection is left then."""
    for served, decisions in (*nodes.patient.values(), *nodes.hasty.values()):
        decisions.released.set()
        node, asked = served.node, served.node._session_io.authorizations.authorizer
        assert isinstance(asked, HookDispatcher)
        await until(lambda node=node, asked=asked: not node.state.connections and not len(asked))  # type: ignore[misc]
        decisions.released.clear()


COMMAND_OUTCOMES = {
    "refuse": Outcome("error", 1000),
    "disconnect": Outcome("closed", 4500),
    "error": Outcome("error", 100),
    "timeout": Outcome("error", 100),
    "late": Outcome("error", 100),
    "draining": Outcome("closed", 3001),
}


def command_of(kind: str, case: str) -> dict[str, Any]:
    """The members of a command of which a hook is asked."""
    match kind:
        case "rpc":
            return {"method": case, "data": [1]}
        case "publish":
            return {"channel": case, "data": [1]}
    return {"channel": case}


async def check_command(transport: str, kind: str, case: str, nodes: Nodes) -> None:
    served, decisions = nodes.of(transport, is_hasty=case in ("timeout", "late"))
    name = f"{case}.{next(_numbers)}"
    async with client_of(transport, served, {}) as client:
        connected = await client.connect()
        assert connected.kind == "ok", (transport, connected)
        client_id = connected.value["client"]
        calling = asyncio.ensure_future(client.call(2, kind, command_of(kind, name)))
        await until(lambda: decisions.asked_about(name))
        if case == "gone":
            client.abort()
            calling.cancel()
            await until(lambda: not _has(served, client_id))
            return
        if case == "draining":
            await drop_of(served, client_id)
        outcome = await calling
        if case == "admit":
            assert outcome.kind == "ok", (transport, kind, outcome)
        else:
            assert outcome == COMMAND_OUTCOMES[case], (transport, kind, case)
        if outcome.kind != "closed":
            await _answers_another(client)


async def _answers_another(client: Client) -> None:
    """The connection goes on."""
    assert (await client.call(9, "unsubscribe", {"channel": "other"})).kind == "ok"


@pytest.mark.parametrize("transport", BIDIRECTIONAL)
async def test_hooks_of_commands_decide(nodes: Nodes, transport: str) -> None:
    await asyncio.gather(*(check_command(transport, kind, case, nodes) for kind in KINDS for case in CASES))
    await settle(nodes)


@pytest.mark.parametrize(
    ("case", "outcome"),
    [
        ("refuse", Outcome("status", (400, 1000))),
        ("disconnect", Outcome("status", (403, 4500))),
        ("error", Outcome("status", (503, 100))),
        ("timeout", Outcome("status", (503, 100))),
    ],
)
async def test_a_subscribe_hook_decides_about_the_channels_of_an_event_stream(
    nodes: Nodes, case: str, outcome: Outcome
) -> None:
    served, _ = nodes.of("sse", is_hasty=case == "timeout")
    async with client_of("sse", served, {}, channel=case) as client:
        assert await client.connect() == outcome
