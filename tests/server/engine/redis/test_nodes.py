"""The Redis node registry: a silent node is named, and blocks no other node."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.server.engine.contract.harness import Node
from tests.server.engine.redis.blackhole_proxy import BlackholeProxy
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.membership.lease_state import leases
from tests.server.engine.redis.node_process import NodeProcess
from tests.server.engine.redis.redis_server import RedisServer
from tests.support.api import NO_TLS, Api
from tests.support.configs import STANDARD
from tests.support.server import Server, run_server
from tests.support.timing import QUIET, STARTED, TICK
from tests.support.tokens import connection_token
from tests.support.wire_client import Json, connect_wire
from tocsin_server.core.events import ServerRefresh
from tocsin_server.engine.nodes import ControlCommand, SurveyRequest
from tocsin_server.engine.redis import nodes
from tocsin_server.engine.redis.membership.failure_detector import FailureDetector
from tocsin_server.errors import Unanswered


@pytest.fixture
async def servers(
    redis_server: RedisServer, proxy: BlackholeProxy, prefix: str, tmp_path: Path
) -> AsyncIterator[list[Server]]:
    """Three nodes, each in its own process. The last one reaches Redis through the proxy."""
    with contextlib.ExitStack() as stack:

        def serve(name: str, url: str) -> Server:
            folder = tmp_path / name
            folder.mkdir()
            config = {**STANDARD, "server": {"name": name}, "engine": {"url": url, "prefix": prefix}}
            return stack.enter_context(run_server(config, folder))

        three = ("one", redis_server.url), ("two", redis_server.url), ("deaf", proxy.url)
        yield await asyncio.gather(*(asyncio.to_thread(serve, *each) for each in three))
        proxy.pass_all()


async def node_infos(api: Api) -> dict[str, Json]:
    """The entries of the table of nodes, by name."""
    return {node["name"]: node for node in (await api.call("info"))["nodes"]}


async def until_deaf(server: Server) -> None:
    """Wait until the node has detected that it is deaf."""
    async with asyncio.timeout(STARTED), httpx.AsyncClient(trust_env=False, verify=NO_TLS) as http:
        while "silent" not in (await http.get(f"{server.url}/health/ready")).text:  # noqa: ASYNC110 - no event
            await asyncio.sleep(TICK)


async def test_a_deaf_node_is_named_and_blocks_no_other_node(
    servers: list[Server], proxy: BlackholeProxy
) -> None:
    """It is in the table, API calls that need it fail with its uid, and other nodes can be drained.

    Each call waits for the silent node, so calls that do not depend on each other are made together.
    """
    one, two, deaf = servers
    async with Api(one) as api, connect_wire(one, token=connection_token("42")) as wire:
        uid = (await node_infos(api))["deaf"]["uid"]
        proxy.drop_pubsub()
        proxy.drop_subscribers()
        found, *responses = await asyncio.gather(
            node_infos(api),
            api.post("channels", {}),
            api.post("disconnect", {"user": "42"}),
            api.post("drain", {"node": "deaf"}),
        )
        assert {name: node["state"] for name, node in found.items()} == {
            "one": "ready",
            "two": "ready",
            "deaf": "silent",
        }
        assert found["deaf"]["uid"] == uid
        refusal = {"error": {"code": 100, "message": f"internal server error: no answer from node {uid[:8]}"}}
        assert [response.json() for response in responses] == [refusal] * 3
        assert (await wire.closed()).code == 3503, "the called node applied the command"
        await until_deaf(deaf)
        async with Api(deaf) as deaf_api:
            info, *drains = await asyncio.gather(
                deaf_api.call("info"), deaf_api.call("drain", node="deaf"), api.call("drain", node="two")
            )
            assert drains == [{}, {}]
            states = {node["uid"]: node["state"] for node in info["nodes"]}
            assert states.pop(uid) == "deaf", "it knows that without receiving any message"
            assert set(states.values()) == {"silent"}
    for server in (two, deaf):
        assert await asyncio.to_thread(server.process.wait, STARTED) == 0


@pytest.fixture
def no_lease_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease expires in hardly more time than a node has for its response."""
    monkeypatch.setattr(FailureDetector, "expired", lambda *_: iter(()))


@pytest.mark.usefixtures("no_lease_expires")
async def test_a_survey_names_a_silent_node(
    node: Node, node_process: NodeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what an earlier survey returned about it."""
    survey = await node.nodes.survey(SurveyRequest(wants_channels=True))
    (known,) = [report for report in survey.nodes if report.uid == "other"]
    node_process.signal(signal.SIGSTOP)
    monkeypatch.setattr(nodes, "RESPONSE_SECONDS", QUIET)
    survey = await node.nodes.survey(SurveyRequest())
    assert [report.uid for report in survey.nodes] == ["n1"]
    assert [(one.uid, one.name, one.state) for one in survey.silent] == [("other", known.name, "silent")]
    assert survey.silent[0].num_clients == 0
    assert not survey.silent[0].channels


@pytest.mark.usefixtures("no_lease_expires")
async def test_a_control_command_names_a_silent_node(
    node: Node, node_process: NodeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other nodes apply it."""
    node_process.signal(signal.SIGSTOP)
    monkeypatch.setattr(nodes, "RESPONSE_SECONDS", QUIET)
    with pytest.raises(Unanswered, match="no answer from node other"):
        await node.nodes.publish_control(ControlCommand("42", ServerRefresh()))
    assert node.handler.commands == [ControlCommand("42", ServerRefresh())]


async def test_a_control_command_names_this_node_if_it_is_not_applied_here_in_time(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if another node did not confirm it."""
    node.handler.applied = [asyncio.get_running_loop().create_future()]
    monkeypatch.setattr(nodes, "RESPONSE_SECONDS", QUIET)
    with pytest.raises(Unanswered, match="no answer from node n1"):
        await node.nodes.publish_control(ControlCommand("42", ServerRefresh()))


async def test_another_node_confirms_a_control_command_once_it_is_applied_there(
    node: Node, running: Running, redis_server: RedisServer
) -> None:
    """Its sender waits for that."""
    async with running(redis_server.url, "n2") as other:
        other.handler.applied = [asyncio.get_running_loop().create_future()]
        publishing = asyncio.create_task(node.nodes.publish_control(ControlCommand("42", ServerRefresh())))
        await other.handler.until_commanded(1)
        await asyncio.sleep(QUIET)
        assert not publishing.done()
        other.handler.applied[0].set_result(None)
        await publishing


@pytest.mark.usefixtures("short_leases")
async def test_a_survey_does_not_wait_for_a_stopped_node(
    node: Node, running: Running, redis_server: RedisServer, prefix: str
) -> None:
    """Even if it had just taken a new lease, and the old one has not expired yet."""
    async with running(redis_server.url, "n2"):
        before = leases(redis_server, prefix, "n2")
        redis_server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        async with asyncio.timeout(STARTED):
            while leases(redis_server, prefix, "n2") <= before:  # noqa: ASYNC110 - there is no event to await
                await asyncio.sleep(QUIET / 10)
    assert [report.uid for report in (await node.nodes.survey(SurveyRequest())).nodes] == ["n1"]
