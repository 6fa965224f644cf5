"""Nodes: what concerns all of them, and what they say of themselves."""

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import Node
from tests.server.engine.recording_handler import Witness
from tocsin_server.core.events import ServerDisconnect, ServerRefresh, ServerSubscribe, ServerUnsubscribe
from tocsin_server.core.tokens import Flag, Override
from tocsin_server.engine.nodes import Order, Question
from tocsin_server.errors import FORCE_DISCONNECT, UNSUBSCRIBED_EXPIRED, Disconnect
from tocsin_server.protocol.messages import Position

ORDERS = {
    "disconnect": Order("42", ServerDisconnect(FORCE_DISCONNECT)),
    "disconnect one": Order("", ServerDisconnect(Disconnect(4500, "é")), client="c1", spared=("c2", "c3")),
    "unsubscribe": Order("42", ServerUnsubscribe()),
    "unsubscribe one": Order("42", ServerUnsubscribe("news", UNSUBSCRIBED_EXPIRED)),
    "subscribe": Order("42", ServerSubscribe("news")),
    "subscribe with all": Order(
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
    "refresh": Order("42", ServerRefresh()),
    "refresh with all": Order("42", ServerRefresh(is_expired=True, expire_at=1.5, info=Raw(b"[ 1 ]"))),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
async def test_an_order_is_obeyed_as_it_was_given(node: Node, order: Order) -> None:
    """By the node itself too, once."""
    await node.nodes.order(order)
    await node.witness.until_ordered(1)
    assert node.witness.orders == [order]


async def test_orders_are_obeyed_in_the_order_they_were_given(node: Node) -> None:
    """A subscribe after an unsubscribe is not undone by it."""
    for order in ORDERS.values():
        await node.nodes.order(order)
    await node.witness.until_ordered(len(ORDERS))
    assert node.witness.orders == list(ORDERS.values())


@pytest.mark.parametrize("question", [Question(), Question(True, "chat:*"), Question(True)])
async def test_a_survey_asks_this_node_too(node: Node, question: Question) -> None:
    """What it answers is passed on as it is."""
    survey = await node.nodes.survey(question)
    assert list(survey.reports) == [Witness("n1").report(question)]
    assert not survey.silent
    assert node.witness.questions == [question]
