"""What every SDK must do in every transport and format that it offers. `make test-sdks` runs this file."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

from tests.sdks.combinations import every_combination
from tests.sdks.conftest import Clients, Nodes
from tests.sdks.driven_client import DrivenClient
from tests.sdks.nodes import CHANNEL_LIMIT
from tests.support.api import Api
from tests.support.proxy import Proxy
from tests.support.refusal import Refused
from tests.support.timing import SOON, TICK
from tests.support.tokens import connection_token, seconds_from_now, subscription_token
from tocsin_server import errors

Json = dict[str, Any]
Name = Callable[[str], str]

TEXT = {"text": "grüße ✓ \u2028\n", "list": [1, 2.5, None, True]}
BYTES = bytes(range(256))

REFUSED_SUBSCRIPTIONS = {
    "nowhere:1": 102,
    "closed:1": 103,
    "$open:1": 103,
    "open:größe": 107,
    "digits:12a": 107,
}
REFUSALS = {each.code for each in vars(errors).values() if isinstance(each, errors.Refusal)}
DISCONNECTS = [each for each in vars(errors).values() if isinstance(each, errors.Disconnect)]
NOT_CAUSED_BY_A_CLIENT = {
    errors.INTERNAL_ERROR.code,
    errors.UNAUTHORIZED.code,  # event streams only
    errors.METHOD_NOT_FOUND.code,  # mounted servers only
    errors.CONFLICT.code,  # never sent
}


async def subscribed(client: DrivenClient, channel: str, **options: Any) -> Json:
    await client.subscribe(channel, **options)
    return await client.events.next("subscribed")


async def code_of(call: Awaitable[Any]) -> int:
    """The code of the refusal. Raises AssertionError if the call succeeded."""
    try:
        await call
    except Refused as refused:
        return refused.code
    raise AssertionError("the call was not refused")


@every_combination()
async def test_a_connection_and_a_subscription_outlive_their_tokens(clients: Clients, channel: Name) -> None:
    """The SDK replaces an expired connection token, and refreshes valid tokens before they expire."""
    news = channel("open")
    lives = [-10, 2, 100]
    tokens = [
        connection_token("ann", exp=seconds_from_now(life), info={"exp": f"in {life} s"}) for life in lives
    ]
    client = await clients.start(token=tokens[0], tokens=tokens[1:])
    await client.events.next("token_requested")
    await client.events.next("connected")
    tokens = [
        subscription_token("ann", news, exp=seconds_from_now(life), info={"exp": f"in {life} s"})
        for life in lives[1:]
    ]
    await client.subscribe(news, tokens=tokens)
    await client.events.next("subscribed")

    async def of_publisher() -> list[str]:
        """`exp` of the tokens of the connection and of the subscription, as publications show it."""
        await client.publish(news, {})
        info = (await client.events.next("publication"))["info"]
        return [info["conn_info"]["exp"], info["chan_info"]["exp"]]

    requested = await client.events.take("token_requested", 3)
    assert sorted(event["channel"] or "" for event in requested) == ["", news, news]
    async with asyncio.timeout(SOON):
        while await of_publisher() != ["in 100 s", "in 100 s"]:  # noqa: ASYNC110 -- only publications show it
            await asyncio.sleep(TICK)
    for event in ("connected", "subscribed"):
        assert len(client.events.of(event)) == 1


@every_combination("expired subscription token")
async def test_an_expired_subscription_token_is_replaced(clients: Clients, channel: Name) -> None:
    """After error 109 the SDK requests a token and subscribes."""
    client, _ = await clients.connected("ann")
    news = channel("closed")
    tokens = [subscription_token("ann", news, exp=seconds_from_now(life)) for life in (-10, 100)]
    await client.subscribe(news, tokens=tokens)
    await client.events.next("subscribed")
    assert (await client.events.next("subscription_error"))["code"] == 109
    await client.events.take("token_requested", 2)


@every_combination()
async def test_clients_of_two_nodes_share_a_channel(clients: Clients, nodes: Nodes, channel: Name) -> None:
    """Publications, presence and history are the same on both nodes. Publications carry their publisher."""
    news = channel("open")
    ann, ann_id = await clients.connected("ann")
    bob, bob_id = await clients.connected("bob", nodes.other)
    for client in (ann, bob):
        await subscribed(client, news)
    await ann.publish(news, TEXT)
    for client in (ann, bob):
        received = await client.events.next("publication")
        assert (received["data"], received["offset"]) == (TEXT, 1)
        assert (received["info"]["user"], received["info"]["client"]) == ("ann", ann_id)

    present = await bob.presence(news)
    assert {client: info["user"] for client, info in present.items()} == {ann_id: "ann", bob_id: "bob"}
    assert await bob.presence_stats(news) == {"clients": 2, "users": 2}

    for number in (2, 3):
        await bob.publish(news, number)
    page = await ann.history(news, limit=2)
    assert [(entry["offset"], entry["data"]) for entry in page["publications"]] == [(1, TEXT), (2, 2)]
    assert page["offset"] == 3
    since = {"offset": 3, "epoch": page["epoch"]}
    page = await ann.history(news, limit=1, since=since, reverse=True)
    assert [entry["data"] for entry in page["publications"]] == [2]

    await ann.unsubscribe(news)
    assert (await ann.events.next("unsubscribed"))["code"] == 0
    await bob.events.next("leave")
    assert list(await bob.presence(news)) == [bob_id]


@every_combination()
async def test_joins_and_leaves_reach_the_subscribers_of_another_node(
    clients: Clients, nodes: Nodes, channel: Name
) -> None:
    """A subscriber receives its own join, and joins and leaves of others with their client info."""
    news = channel("open")
    ann, ann_id = await clients.connected("ann")
    await subscribed(ann, news)
    assert (await ann.events.next("join"))["info"]["client"] == ann_id
    bob, bob_id = await clients.connected("bob", nodes.other)
    await subscribed(bob, news)
    info = (await ann.events.next("join"))["info"]
    assert (info["user"], info["client"]) == ("bob", bob_id)
    await bob.disconnect()
    assert (await ann.events.next("leave"))["info"]["client"] == bob_id


@every_combination()
async def test_a_token_and_the_back_end_subscribe_a_client(clients: Clients, api: Api, channel: Name) -> None:
    """Server-side subscriptions receive publications, with the tags that the back end gave them."""
    by_token, by_api = channel("open"), channel("open")
    user = channel("user")
    client = await clients.start(token=connection_token(user, channels=[by_token]))
    assert (await client.events.next("server_subscribed"))["channel"] == by_token
    await api.call("subscribe", user=user, channel=by_api, data={"welcome": True})
    subscription = await client.events.next("server_subscribed")
    assert (subscription["channel"], subscription["data"]) == (by_api, {"welcome": True})
    for name in (by_token, by_api):
        await api.publish(name, TEXT, tags={"kind": "greeting"})
        received = await client.events.next("server_publication")
        assert (received["channel"], received["data"]) == (name, TEXT)
        assert (received["tags"], received["info"]) == ({"kind": "greeting"}, None)


@every_combination()
async def test_exactly_what_was_missed_is_recovered_on_the_other_node(
    clients: Clients, nodes: Nodes, proxy: Proxy, api: Api, other_api: Api, channel: Name
) -> None:
    """Twice: after the network failed, on the other node; and after the server forced a reconnect."""
    news, user = channel("open"), channel("user")
    client, _ = await clients.connected(user, proxy)
    await subscribed(client, news)
    await api.publish_numbers(news, range(1, 4))
    await client.events.take("publication", 3)

    proxy.cut()
    await proxy.wait_for_attempt()
    await other_api.publish_numbers(news, range(4, 9))
    proxy.forward_to(nodes.other)
    proxy.restore()
    back = await client.events.next("subscribed")
    assert (back["was_recovering"], back["recovered"]) == (True, True)
    await client.events.take("publication", 5)

    await api.call("disconnect", user=user, disconnect={"code": 3011, "reason": "force reconnect"})
    await api.publish_numbers(news, range(9, 12))
    back = await client.events.next("subscribed")
    assert (back["was_recovering"], back["recovered"]) == (True, True)
    await client.events.take("publication", 3)

    await client.publish(news, {"n": 12})
    await client.events.next("publication")
    received = [(event["offset"], event["data"]["n"]) for event in client.events.of("publication")]
    assert received == [(n, n) for n in range(1, 13)]


@every_combination()
async def test_every_refused_command_has_its_code(clients: Clients, channel: Name) -> None:
    """Each error of the protocol that a client can cause. The connection stays open."""
    by_token, news, seldom = channel("open"), channel("open"), channel("seldom")
    client = await clients.start(token=connection_token("ann", channels=[by_token]))
    await client.events.next("connected")
    seen = set()

    async def refused(name: str, **options: Any) -> int:
        await client.subscribe(name, **options)
        gone = await client.events.next("unsubscribed")
        assert gone["channel"] == name
        seen.add(gone["code"])
        code: int = gone["code"]
        return code

    for name, code in REFUSED_SUBSCRIPTIONS.items():
        assert await refused(name) == code
    assert await refused(by_token) == 105
    assert await refused(news, token=subscription_token("ann", news, secret="another" * 8)) == 103
    expired = subscription_token("ann", name := channel("closed"), expire_at=seconds_from_now(-100))
    assert await refused(name, token=expired) == 110

    await client.publish(seldom, {})
    since = {"offset": 1, "epoch": "elsewhen"}
    calls = [
        (client.publish("nowhere:1", {}), 102),
        (client.publish("closed:1", {}), 103),
        (client.publish(seldom, {}), 111),
        (client.history("closed:1", limit=1), 103),
        (client.history("plain:1", limit=1), 108),
        (client.history(news, limit=1, since=since), 112),
        (client.history(news, limit=1, since={**since, "offset": 0}, reverse=True), 107),
        (client.presence("plain:1"), 108),
        (client.presence_stats("closed:1"), 103),
        (client.rpc("anything", {}), 108),
    ]
    codes = await asyncio.gather(*(code_of(call) for call, _ in calls))
    assert codes == [code for _, code in calls]
    seen.update(codes)

    for _ in range(CHANNEL_LIMIT - 1):  # one is by the token
        await subscribed(client, channel("open"))
    assert await refused(channel("open")) == 106
    assert len(client.events.of("connected")) == 1
    seen.add(109)  # in tests of tokens
    assert seen == REFUSALS - NOT_CAUSED_BY_A_CLIENT


@every_combination()
async def test_every_disconnect_has_its_code(clients: Clients, api: Api, channel: Name) -> None:
    """The SDK reconnects exactly if the range of the code allows it."""
    of_applications = [errors.Disconnect(4000, "of an application"), errors.Disconnect(4500, "for good")]

    async def disconnected(reason: errors.Disconnect) -> None:
        user = channel("user")
        token = connection_token(user)
        client = await clients.start(token=token, tokens=[token])
        await client.events.next("connecting")
        await client.events.next("connected")
        await api.call("disconnect", user=user, disconnect={"code": reason.code, "reason": reason.reason})
        gone = await client.events.next("connecting" if reason.may_reconnect else "disconnected")
        assert (gone["code"], gone["reason"]) == (reason.code, reason.reason)
        if reason.may_reconnect:
            await client.events.next("connected")

    async def rejected(token: str, code: int) -> None:
        client = await clients.start(token=token)
        assert (await client.events.next("disconnected"))["code"] == code

    channels = [channel("open") for _ in range(CHANNEL_LIMIT + 1)]
    ends = [
        *map(disconnected, [*DISCONNECTS, *of_applications]),
        rejected("", 3501),
        rejected(connection_token("ann", secret="another" * 8), 3500),
        rejected(connection_token("ann", channels=channels), 3505),
        rejected(connection_token("ann", expire_at=seconds_from_now(-100)), 110),
        rejected(connection_token("ann", channels=["nowhere:1"]), 102),
    ]
    async with asyncio.TaskGroup() as tasks:
        for end in ends:
            tasks.create_task(end)


@every_combination("bytes")
async def test_bytes_arrive_unchanged(clients: Clients, api: Api, channel: Name) -> None:
    """Bytes that are not text, from a client, from the back end, and in history."""
    binary = channel("binary")
    client, _ = await clients.connected("ann")
    await subscribed(client, binary)
    encoded = base64.b64encode(BYTES).decode()
    await client.publish(binary, binary=encoded)
    await api.call("publish", channel=binary, b64data=encoded)
    received = await client.events.take("publication", 2)
    page = await client.history(binary, limit=2)
    assert [entry["binary"] for entry in (*received, *page["publications"])] == 4 * [encoded]
    assert await code_of(client.publish(channel("open"), binary=encoded)) == 107


@every_combination("delta")
async def test_deltas_arrive_as_what_was_published(clients: Clients, api: Api, channel: Name) -> None:
    """Live and after a recovery, in text with characters of several bytes."""
    news, user = channel("delta"), channel("user")
    client, _ = await clients.connected(user)
    await subscribed(client, news, delta=True)
    documents = [{"text": 20 * "grüße ✓ ", "n": n, "even": n % 2 * "nö"} for n in range(1, 10)]

    async def publish(some: list[Json]) -> None:
        for document in some:
            await api.publish(news, document)

    await publish(documents[:4])
    await client.events.take("publication", 4)
    await api.call("disconnect", user=user, disconnect={"code": 3011, "reason": "force reconnect"})
    await publish(documents[4:7])
    assert (await client.events.next("subscribed"))["recovered"] is True
    await client.events.take("publication", 3)
    await publish(documents[7:])
    await client.events.take("publication", 2)
    assert [event["data"] for event in client.events.of("publication")] == documents


@every_combination("tags filter")
async def test_a_tags_filter_selects_publications(clients: Clients, api: Api, channel: Name) -> None:
    """Live and after a recovery."""
    news, user = channel("filtered"), channel("user")
    client, _ = await clients.connected(user)
    await subscribed(client, news, tag=["kind", "weather"])
    for n in range(1, 5):
        await api.publish(news, {"n": n}, tags={"kind": "sport" if n % 2 else "weather"})
    await client.events.take("publication", 2)
    await api.call("disconnect", user=user, disconnect={"code": 3011, "reason": "force reconnect"})
    for n in range(5, 8):
        await api.publish(news, {"n": n}, tags={"kind": "sport" if n % 2 else "weather"})
    assert (await client.events.next("subscribed"))["recovered"] is True
    await client.events.next("publication")
    await api.publish(news, {"n": 8}, tags={"kind": "weather"})
    await client.events.next("publication")
    received = [(event["offset"], event["data"]["n"]) for event in client.events.of("publication")]
    assert received == [(n, n) for n in (2, 4, 6, 8)]
