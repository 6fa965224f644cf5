"""Strings of a publication that an application publishes: what UTF-8 cannot encode is refused."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from tests.server.served_node import new_channel, serve_node
from tocsin_server.engine.broker import NewPublication
from tocsin_server.errors import BAD_REQUEST, Refused

HALF = "\ud83d"
"""Half of a surrogate pair."""


@pytest.mark.parametrize(
    "strings",
    [
        {"idempotency_key": HALF},
        {"version": 1, "version_epoch": HALF},
        {"tags": {HALF: "a"}},
        {"tags": {"a": HALF}},
    ],
    ids=["key", "version epoch", "name of a tag", "tag"],
)
async def test_half_of_a_surrogate_pair_is_refused(strings: dict[str, Any]) -> None:
    """Before the engine gets it, so with every engine. Nothing is published."""
    channel = new_channel("log")
    async with serve_node() as served:
        with pytest.raises(Refused, match="half of a surrogate pair") as refused:
            await served.node.operations.publish(channel, NewPublication(Raw(b"1"), **strings))
        assert refused.value.refusal.code == BAD_REQUEST.code
        whole = {name: value for name, value in strings.items() if name != "tags" and value != HALF}
        publication = NewPublication(Raw(b"1"), tags={"a": "\U0001f600"}, **whole)
        position = await served.node.operations.publish(channel, publication)
        assert position.offset == 1


async def test_half_of_a_surrogate_pair_in_the_name_of_a_channel_is_refused() -> None:
    """Only the name of a personal channel may have characters beyond ASCII."""
    async with serve_node() as served:
        for channel in (f"#{HALF}", f"log:#{HALF}"):
            with pytest.raises(Refused, match="half of a surrogate pair") as refused:
                await served.node.operations.publish(channel, NewPublication(Raw(b"1")))
            assert refused.value.refusal.code == BAD_REQUEST.code
