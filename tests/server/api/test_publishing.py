"""publish and broadcast."""

import base64
from collections.abc import Callable
from typing import Any

import pytest

from tests.server.api.conftest import Served

pytestmark = pytest.mark.asyncio(loop_scope="module")

Name = Callable[[str], str]


async def _kept(api: Served, channel: str) -> list[Any]:
    page = await api.result("history", channel=channel, limit=-1)
    return [publication["data"] for publication in page["publications"]]


async def test_publish_returns_the_position(api: Served, channel: Name) -> None:
    """Offsets count 1, 2, 3 in one epoch."""
    name = channel("open")
    results = [await api.result("publish", channel=name, data={"n": n}) for n in range(3)]
    assert [result["offset"] for result in results] == [1, 2, 3]
    assert len({result["epoch"] for result in results}) == 1
    assert results[0]["epoch"]


async def test_publish_without_history_returns_an_empty_result(api: Served, channel: Name) -> None:
    """There is no position."""
    assert await api.call("publish", channel="plain", data=1) == {"result": {}}
    assert await api.result("publish", channel=channel("open"), data=1, skip_history=True) == {}


async def test_subscribers_receive_a_publication(api: Served, channel: Name) -> None:
    """Data and tags are unchanged, without line breaks. There is no info, since no client published it."""
    name = channel("open")
    async with api.client() as client:
        await client.call("subscribe", channel=name)
        body = f'{{"channel": "{name}", "tags": {{"a": "b"}},\n"data": {{"text":\r\n "two\\nlines"}} }}'
        assert (await api.post("/api/publish", body.encode())).status_code == 200
        received = await client.push("pub")
    assert received == {"data": {"text": "two\nlines"}, "offset": 1, "tags": {"a": "b"}}


@pytest.mark.parametrize("data", [None, 0, "", False, [], {}, "text", 1.5, {"a": [1, {"b": None}]}])
async def test_every_json_value_is_data(api: Served, channel: Name, data: Any) -> None:
    """This includes empty values."""
    name = channel("open")
    await api.result("publish", channel=name, data=data)
    assert await _kept(api, name) == [data]


async def test_base64_data_has_priority(api: Served, channel: Name) -> None:
    """`data` beside it is ignored. What is JSON in it is shown as JSON."""
    name = channel("open")
    encoded = base64.b64encode(b'{"a":\n1}').decode()
    await api.result("publish", channel=name, b64data=encoded, data="other")
    assert await _kept(api, name) == [{"a": 1}]


@pytest.mark.parametrize("encoded", ["***", "e30", "größe"])
async def test_base64_must_be_valid(api: Served, channel: Name, encoded: str) -> None:
    """Error 107 names the member."""
    code, message = await api.error("publish", channel=channel("open"), b64data=encoded)
    assert code == 107
    assert message.startswith("bad request: no base64 at `$.b64data`: ")


@pytest.mark.parametrize("data", [b"no JSON", bytes(range(256))])
async def test_data_that_is_no_json_is_kept_as_bytes(api: Served, channel: Name, data: bytes) -> None:
    """The history shows it in base64."""
    name, encoded = channel("open"), base64.b64encode(data).decode()
    await api.result("publish", channel=name, b64data=encoded)
    kept = (await api.result("history", channel=name, limit=-1))["publications"]
    assert kept == [{"b64data": encoded, "offset": 1}]


async def test_a_namespace_can_require_json(api: Served) -> None:
    """With `publication_data_format = "json"`, other bytes are error 107."""
    other = base64.b64encode(b"no JSON").decode()
    assert await api.result("publish", channel="values:1", b64data="MQo=") == {}
    refused = await api.error("publish", channel="values:1", b64data=other)
    assert refused == (107, "bad request: data is no JSON, which publication_data_format requires")
    assert (await api.error("publish", channel="objects:1", b64data=other))[0] == 107


@pytest.mark.parametrize("encoded", ["***", base64.b64encode(b"no JSON").decode()])
async def test_info_in_base64_must_hold_json(api: Served, channel: Name, encoded: str) -> None:
    """Every client of the channel and the HTTP API can read it, in any format."""
    name = channel("open")
    code, message = await api.error("subscribe", channel=name, user="ann", b64info=encoded)
    assert code == 107
    assert "$.b64info" in message


@pytest.mark.parametrize(
    ("method", "where"), [("publish", {"channel": "a"}), ("broadcast", {"channels": ["a"]})]
)
async def test_a_publication_needs_data(api: Served, method: str, where: dict[str, Any]) -> None:
    """Either `data` or `b64data` is required."""
    assert (await api.error(method, **where))[0] == 107


async def test_a_namespace_can_require_objects(api: Served) -> None:
    """With `publication_data_format = "json_object"`, other data is error 107."""
    assert await api.result("publish", channel="objects:1", data={}) == {}
    refused = await api.error("publish", channel="objects:1", data=[])
    assert refused == (107, "bad request: data is no JSON object, which publication_data_format requires")


async def test_a_repeated_key_publishes_once(api: Served, channel: Name) -> None:
    """It returns the first result, also after other publications. Another channel publishes again."""
    name, other = channel("open"), channel("open")
    first = await api.result("publish", channel=name, data=1, idempotency_key="k")
    await api.result("publish", channel=name, data=2)
    assert await api.result("publish", channel=name, data=3, idempotency_key="k") == first
    assert (await api.result("publish", channel=other, data=4, idempotency_key="k"))["offset"] == 1
    assert await _kept(api, name) == [1, 2]


async def test_only_newer_versions_are_published(api: Served, channel: Name) -> None:
    """An old version returns the unchanged top. Versions compare only within their epoch."""
    name = channel("open")
    versions = [(2, "a"), (1, "a"), (2, "a"), (3, "a"), (1, "b")]
    results = [
        await api.result(
            "publish", channel=name, data=f"{epoch}{version}", version=version, version_epoch=epoch
        )
        for version, epoch in versions
    ]
    assert [result["offset"] for result in results] == [1, 1, 1, 2, 3]
    assert await _kept(api, name) == ["a2", "a3", "b1"]


async def test_delta_changes_nothing_in_history(api: Served, channel: Name) -> None:
    """There the publication is whole, and in a channel without deltas it is delivered so."""
    name = channel("open")
    await api.result("publish", channel=name, data={"a": 1}, delta=True)
    assert await _kept(api, name) == [{"a": 1}]


async def test_broadcast_has_one_response_for_each_channel_in_order(api: Served, channel: Name) -> None:
    """A refused channel does not stop the others. A channel without history has an empty result."""
    one, two = channel("open"), channel("open")
    await api.result("publish", channel=two, data=0)
    answers = (await api.result("broadcast", channels=[one, "nowhere:1", "plain", two], data=1))["responses"]
    assert answers[0]["result"]["offset"] == 1
    assert answers[1] == {"error": {"code": 102, "message": "unknown channel"}}
    assert answers[2] == {"result": {}}
    assert answers[3]["result"]["offset"] == 2
    assert await _kept(api, two) == [0, 1]


async def test_a_repeated_broadcast_publishes_once_in_each_channel(api: Served, channel: Name) -> None:
    """The key applies to each channel separately."""
    names = [channel("open"), channel("open")]
    first, again = [
        await api.result("broadcast", channels=names, data=1, idempotency_key="k") for _ in range(2)
    ]
    assert first == again
    assert [await _kept(api, name) for name in names] == [[1], [1]]


async def test_a_broadcast_to_thousands_keeps_their_order(api: Served) -> None:
    """It runs over several turns of the event loop."""
    names = ["open:many" if n % 3 else f"nowhere:{n}" for n in range(1700)]
    answers = (await api.result("broadcast", channels=names, data=1))["responses"]
    assert [("error" in answer) for answer in answers] == [name != "open:many" for name in names]
    offsets = [answer["result"]["offset"] for answer in answers if "result" in answer]
    assert offsets == list(range(1, len(offsets) + 1))
