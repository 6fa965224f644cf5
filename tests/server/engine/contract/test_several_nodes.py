"""Several nodes over one store: what one does, all know."""

import asyncio

from tests.server.engine.contract.harness import LOG, NO_LOG, Node, publication
from tests.server.engine.contract.test_nodes import COMMANDS
from tests.server.engine.contract.test_subscribing import JOIN
from tocsin_server.engine.broker import TOP_ONLY, HistoryQuery
from tocsin_server.engine.nodes import SurveyRequest
from tocsin_server.protocol.messages import ClientInfo


async def test_both_hear_what_either_publishes(node: Node, neighbour: Node) -> None:
    """Each publication once, with or without a log; joins too."""
    for each in (node, neighbour):
        await each.broker.subscribe("news")
    for each in (node, neighbour):
        await each.broker.publish("news", publication(1), LOG)
        await each.broker.publish("news", publication(2), NO_LOG)
        await each.broker.publish_join_leave("news", JOIN)
    for each in (node, neighbour):
        await each.handler.until_pushed(2)
        assert each.handler.payloads("news") == [b"1", b"2"] * 2
        assert each.handler.pushes == [("news", JOIN)] * 2


async def test_each_hears_only_what_it_listens_to(node: Node, neighbour: Node) -> None:
    """One node's interest is not the other's."""
    await node.broker.subscribe("news")
    await node.broker.publish("news", publication(1), NO_LOG)
    await node.catch_up()
    await neighbour.catch_up()
    assert node.handler.payloads("news") == [b"1"]
    assert not neighbour.handler.payloads("news")


async def test_both_hear_concurrent_publications_in_the_order_of_offsets(node: Node, neighbour: Node) -> None:
    """The store gives the order, not the nodes."""
    for each in (node, neighbour):
        await each.broker.subscribe("news")
    publishers = [node, neighbour] * 50
    await asyncio.gather(
        *(each.broker.publish("news", publication(n), LOG) for n, each in enumerate(publishers))
    )
    for each in (node, neighbour):
        await each.handler.until_received(100)
        assert each.handler.offsets("news") == list(range(1, 101))
    assert node.handler.payloads("news") == neighbour.handler.payloads("news")


async def test_both_read_one_log(node: Node, neighbour: Node) -> None:
    """One epoch, one top, the same publications, removed for both."""
    top = (await node.broker.read_history("news", TOP_ONLY, LOG)).top
    assert await neighbour.broker.publish("news", publication(1), LOG) == (1, top.epoch)
    history = await node.broker.read_history("news", HistoryQuery(limit=-1), LOG)
    assert history == await neighbour.broker.read_history("news", HistoryQuery(limit=-1), LOG)
    assert len(history.publications) == 1
    await neighbour.broker.remove_history("news")
    assert await node.broker.read_history("news", HistoryQuery(limit=-1), LOG) == ((1, top.epoch), [])


async def test_both_see_who_is_present_on_either(node: Node, neighbour: Node) -> None:
    """A user on two nodes is one user."""
    await node.presence.add("news", ClientInfo("42", "c1"))
    await neighbour.presence.add("news", ClientInfo("42", "c2"))
    for each in (node, neighbour):
        assert sorted(await each.presence.members("news")) == ["c1", "c2"]
        assert await each.presence.stats("news") == (2, 1)
    await neighbour.presence.remove("news", "c2")
    assert list(await node.presence.members("news")) == ["c1"]


async def test_an_order_reaches_both(node: Node, neighbour: Node) -> None:
    """Whichever gives it."""
    for each in (node, neighbour):
        await each.nodes.publish_control(COMMANDS["disconnect"])
    for each in (node, neighbour):
        await each.handler.until_commanded(2)
        assert each.handler.commands == [COMMANDS["disconnect"]] * 2


async def test_a_survey_asks_both(node: Node, neighbour: Node) -> None:
    """And none that has stopped."""
    for each in (node, neighbour):
        assert sorted(report.uid for report in (await each.nodes.survey(SurveyRequest())).nodes) == [
            "n1",
            "n2",
        ]
    await neighbour.engine.stop()
    assert [report.uid for report in (await node.nodes.survey(SurveyRequest())).nodes] == ["n1"]
