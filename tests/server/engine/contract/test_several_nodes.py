"""Several nodes over one store."""

import asyncio

from tests.server.engine.contract.harness import HISTORY, NO_HISTORY, Node, publication
from tests.server.engine.contract.test_nodes import COMMANDS
from tests.server.engine.contract.test_subscribing import JOIN
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import TOP_ONLY, HistoryQuery, NewPublication
from tocsin_server.engine.nodes import SurveyRequest
from tocsin_server.protocol.messages import ClientInfo, Position
from tocsin_server.protocol.payloads import Binary


async def test_both_nodes_receive_the_publications_of_either(node: Node, other_node: Node) -> None:
    """Each once, with or without history. Joins as well."""
    for each in (node, other_node):
        await each.broker.subscribe("news")
    for each in (node, other_node):
        await each.broker.publish("news", publication(1), HISTORY)
        await each.broker.publish("news", publication(2), NO_HISTORY)
        await each.broker.publish_join_leave("news", JOIN)
    for each in (node, other_node):
        await each.handler.until_pushed(2)
        assert each.handler.payloads("news") == [b"1", b"2"] * 2
        assert each.handler.pushes == [("news", JOIN)] * 2


async def test_data_that_is_no_json_arrives_at_both_nodes_and_in_the_history(
    node: Node, other_node: Node
) -> None:
    """Marked as such, with every byte."""
    data = Binary(range(256))
    await other_node.broker.subscribe("news")
    await node.broker.publish("news", NewPublication(data), HISTORY)
    await other_node.handler.until_received(1)
    history = await other_node.broker.read_history("news", HistoryQuery(limit=-1), HISTORY)
    for found in (other_node.handler.payloads("news"), [kept.data for kept in history.publications]):
        assert found == [data]
    assert isinstance(history.publications[0].data, Binary)


async def test_a_node_receives_only_its_own_subscriptions(node: Node, other_node: Node) -> None:
    """A subscription of one node does not affect the other."""
    await node.broker.subscribe("news")
    await node.broker.publish("news", publication(1), NO_HISTORY)
    await node.catch_up()
    await other_node.catch_up()
    assert node.handler.payloads("news") == [b"1"]
    assert not other_node.handler.payloads("news")


async def test_both_nodes_receive_concurrent_publications_in_the_order_of_offsets(
    node: Node, other_node: Node
) -> None:
    """The store determines the order."""
    for each in (node, other_node):
        await each.broker.subscribe("news")
    publishers = [node, other_node] * 50
    await asyncio.gather(
        *(each.broker.publish("news", publication(n), HISTORY) for n, each in enumerate(publishers))
    )
    for each in (node, other_node):
        await each.handler.until_received(100)
        assert each.handler.offsets("news") == list(range(1, 101))
    assert node.handler.payloads("news") == other_node.handler.payloads("news")


async def test_both_nodes_read_the_same_history(node: Node, other_node: Node) -> None:
    """One epoch and one top. A removal affects both."""
    top = (await node.broker.read_history("news", TOP_ONLY, HISTORY)).top
    assert await other_node.broker.publish("news", publication(1), HISTORY) == Position(1, top.epoch)
    history = await node.broker.read_history("news", HistoryQuery(limit=-1), HISTORY)
    assert history == await other_node.broker.read_history("news", HistoryQuery(limit=-1), HISTORY)
    assert len(history.publications) == 1
    await other_node.broker.remove_history("news")
    assert await node.broker.read_history("news", HistoryQuery(limit=-1), HISTORY) == History(
        Position(1, top.epoch), []
    )


async def test_both_nodes_see_the_same_presence(node: Node, other_node: Node) -> None:
    """A user on two nodes is one user."""
    await node.presence.add("news", ClientInfo("42", "c1"))
    await other_node.presence.add("news", ClientInfo("42", "c2"))
    for each in (node, other_node):
        assert sorted(await each.presence.members("news")) == ["c1", "c2"]
        assert await each.presence.stats("news") == (2, 1)
    await other_node.presence.remove("news", "c2")
    assert list(await node.presence.members("news")) == ["c1"]


async def test_a_control_command_reaches_both_nodes(node: Node, other_node: Node) -> None:
    """From either of them."""
    for each in (node, other_node):
        await each.nodes.publish_control(COMMANDS["disconnect"])
    for each in (node, other_node):
        await each.handler.until_commanded(2)
        assert each.handler.commands == [COMMANDS["disconnect"]] * 2


async def test_a_survey_includes_both_nodes(node: Node, other_node: Node) -> None:
    """A node that has stopped is not included."""
    for each in (node, other_node):
        assert sorted(report.uid for report in (await each.nodes.survey(SurveyRequest())).nodes) == [
            "n1",
            "n2",
        ]
    await other_node.engine.stop()
    assert [report.uid for report in (await node.nodes.survey(SurveyRequest())).nodes] == ["n1"]
