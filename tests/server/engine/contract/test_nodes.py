"""The node registry: control commands and surveys."""

import asyncio

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import Node
from tests.server.engine.recording_handler import node_info
from tests.support.timing import SOON, TICK
from tocsin_server.core.events import ServerDisconnect, ServerRefresh, ServerSubscribe, ServerUnsubscribe
from tocsin_server.core.tokens import Flag, Override
from tocsin_server.engine.nodes import ControlCommand, SurveyRequest
from tocsin_server.errors import FORCE_DISCONNECT, UNSUBSCRIBED_EXPIRED, Disconnect, Unanswered
from tocsin_server.protocol.messages import Position

COMMANDS = {
    "disconnect": ControlCommand("42", ServerDisconnect(FORCE_DISCONNECT)),
    "disconnect one": ControlCommand(
        "", ServerDisconnect(Disconnect(4500, "é")), client="c1", exclude_clients=("c2", "c3")
    ),
    "unsubscribe": ControlCommand("42", ServerUnsubscribe()),
    "unsubscribe one": ControlCommand("42", ServerUnsubscribe("news", UNSUBSCRIBED_EXPIRED)),
    "subscribe": ControlCommand("42", ServerSubscribe("news")),
    "subscribe with all": ControlCommand(
        "42",
        ServerSubscribe(
            "news",
            Raw(b'{"n":1e999}'),
            Raw(b'"\\u00e9"'),
            expire_at=4102444800.5,
            since=Position(2**53 + 1, "abcdefgh"),
            override=Override(presence=Flag(True), force_push_join_leave=Flag(False)),
        ),
    ),
    "subscribe with bytes": ControlCommand("42", ServerSubscribe("news", binary_data=bytes(range(256)))),
    "refresh": ControlCommand("42", ServerRefresh()),
    "refresh with all": ControlCommand(
        "42", ServerRefresh(is_expired=True, expire_at=1.5, info=Raw(b"[ 1 ]"))
    ),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
async def test_a_control_command_arrives_unchanged(node: Node, command: ControlCommand) -> None:
    """The sending node applies it as well, once."""
    await node.nodes.publish_control(command)
    await node.handler.until_commanded(1)
    assert node.handler.commands == [command]


async def test_a_control_command_is_confirmed_once_it_is_applied(node: Node) -> None:
    """As when a subscription is live."""
    loop = asyncio.get_running_loop()
    node.handler.applied = [loop.create_future(), loop.create_future()]
    publishing = asyncio.create_task(node.nodes.publish_control(COMMANDS["subscribe"]))
    await node.handler.until_commanded(1)
    for applied in node.handler.applied:
        await asyncio.sleep(0)
        assert not publishing.done()
        applied.set_result(None)
    await publishing


async def test_a_node_that_does_not_apply_a_control_command_in_time_is_named(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a subscription does not become live."""
    for engine in ("memory", "redis"):
        monkeypatch.setattr(f"tocsin_server.engine.{engine}.nodes.RESPONSE_SECONDS", TICK)
    loop = asyncio.get_running_loop()
    node.handler.applied = [loop.create_future(), loop.create_future()]
    node.handler.applied[0].set_result(None)
    async with asyncio.timeout(SOON):
        with pytest.raises(Unanswered) as raised:
            await node.nodes.publish_control(COMMANDS["subscribe"])
    assert raised.value.uids == {"n1"}
    assert not node.handler.applied[1].done()


async def test_control_commands_keep_their_order(node: Node) -> None:
    """A subscribe after an unsubscribe is not undone by it."""
    for command in COMMANDS.values():
        await node.nodes.publish_control(command)
    await node.handler.until_commanded(len(COMMANDS))
    assert node.handler.commands == list(COMMANDS.values())


@pytest.mark.parametrize(
    "survey_request", [SurveyRequest(), SurveyRequest(True, "chat:*"), SurveyRequest(True)]
)
async def test_a_survey_includes_this_node(node: Node, survey_request: SurveyRequest) -> None:
    """Its answer arrives unchanged."""
    survey = await node.nodes.survey(survey_request)
    assert list(survey.nodes) == [node_info("n1")]
    assert not survey.silent
    assert node.handler.requests == [survey_request]
