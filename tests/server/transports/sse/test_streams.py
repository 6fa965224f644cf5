"""What an event stream carries: the channels of its query, and its position in all of them."""

import asyncio
import re
from collections.abc import Callable

from msgspec import Raw

from tests.server.transports.sse.streams import Event, Served, served
from tests.support.timing import SOON
from tests.support.tokens import connection_token
from tocsin_server.core.events import ServerRefresh, ServerSubscribe, ServerUnsubscribe
from tocsin_server.engine.broker import NewPublication
from tocsin_server.protocol.messages import Position

Name = Callable[[str], str]


async def test_a_stream_begins_with_its_position_and_goes_on_with_what_is_published(
    tocsin: Served, channel: Name
) -> None:
    """An id alone, which a browser keeps without dispatching anything; then each publication with its own."""
    news = channel("log")
    _, epoch = await tocsin.publish(news, 1)
    async with tocsin.stream(news, begins=False) as stream:
        assert await stream.next() == Event(id=f"1@{epoch}")
        await tocsin.publish(news, 2)
        message = {"channel": news, "pub": {"data": 2, "offset": 2}}
        assert await stream.next() == Event(data=message, id=f"2@{epoch}")


async def test_curl_reads_it(tocsin: Served, channel: Name) -> None:
    """A stream is lines of text, written as they come."""
    news = channel("log")
    curl = await asyncio.create_subprocess_exec(
        "curl", "-sN", "--noproxy", "*", tocsin.url + tocsin.path(news), stdout=asyncio.subprocess.PIPE
    )
    assert curl.stdout is not None
    async with asyncio.timeout(SOON):
        first = await curl.stdout.readuntil(b"\n\n")
        second = await curl.stdout.readuntil(b"\n\n")
        await tocsin.publish(news, 1)
        message = await curl.stdout.readuntil(b"\n\n")
    curl.terminate()
    await curl.wait()
    assert second.startswith(b'event: connect\ndata: {"client":"')
    begin = re.fullmatch(rb"id: 0@(\w+)\nretry: \d+\n\n", first)
    assert begin is not None
    epoch = begin[1].decode()
    push = f'{{"channel":"{news}","pub":{{"data":1,"offset":1}}}}'
    assert message.decode() == f"id: 1@{epoch}\ndata: {push}\n\n"


async def test_several_channels_share_one_stream(tocsin: Served, channel: Name) -> None:
    """The id is the position in all of them, in the order of the query, whichever the message is of."""
    one, plain, two = channel("log"), channel("plain"), channel("log")
    async with tocsin.stream(one, "lobby", two, begins=False) as stream:
        first, _, second = str((await stream.next()).id).split(",")
        assert (first[:2], second[:2]) == ("0@", "0@")
        for name in (two, "lobby", one):
            await tocsin.publish(name, 1)
        heard = [await stream.next() for _ in range(3)]
    assert [event.data["channel"] for event in heard] == [two, "lobby", one]
    assert [event.id for event in heard] == [
        f"{first},,{second.replace('0@', '1@')}",
        None,
        f"{first.replace('0@', '1@')},,{second.replace('0@', '1@')}",
    ]
    assert plain != one


async def test_what_is_published_at_once_arrives_whole(tocsin: Served, channel: Name) -> None:
    """A burst leaves joined, and every message in it still has its own id."""
    one, two = channel("log"), channel("log")
    async with tocsin.stream(one) as alone, tocsin.stream(two, one) as both:
        _, epoch = await tocsin.publish(one, *range(1, 6))
        for stream, prefix in ((alone, ""), (both, f"0@{(await tocsin.top(two)).epoch},")):
            events = [await stream.next() for _ in range(5)]
            assert [event.data["pub"]["data"] for event in events] == [1, 2, 3, 4, 5]
            assert [event.id for event in events] == [f"{prefix}{offset}@{epoch}" for offset in range(1, 6)]


async def test_data_is_one_line_whatever_is_in_it(tocsin: Served, channel: Name) -> None:
    """Line breaks inside strings are escaped by JSON, and those between its tokens are left out."""
    news = channel("log")
    async with tocsin.stream(news) as stream:
        await tocsin.node.operations.publish(
            news, NewPublication(Raw('{"a\\n\\r":"zw\\u2028ö\\n: x"}'.encode()))
        )
        assert (await stream.message())["pub"]["data"] == {"a\n\r": "zw\u2028ö\n: x"}


async def test_each_stream_goes_on_where_it_was(tocsin: Served, channel: Name) -> None:
    """By the header that browsers send, or by the query, on whichever channel something was missed."""
    one, two = channel("log"), channel("log")
    async with tocsin.stream(one, two) as stream:
        await tocsin.publish(two, 1)
        assert await stream.numbers(1) == [1]
    position = stream.last_id
    await tocsin.publish(one, 11, 12)
    await tocsin.publish(two, 2, 3)
    nowhere: dict[str, str] = {}
    for headers, query in (({"Last-Event-ID": position}, nowhere), (nowhere, {"last_event_id": position})):
        async with tocsin.stream(one, two, headers=headers, query=query, begins=False) as stream:
            assert await stream.next() == Event(id=position)
            events = [await stream.next() for _ in range(4)]
            assert [event.data["pub"]["data"] for event in events] == [11, 12, 2, 3]
            after = [[part[:1] for part in str(event.id).split(",")] for event in events]
            assert after == [["1", "1"], ["2", "1"], ["2", "2"], ["2", "3"]]
            assert await stream.is_quiet()


async def test_the_header_is_newer_than_the_query(tocsin: Served, channel: Name) -> None:
    """An address is made once; a browser that comes back says in the header how far it got since."""
    news = channel("log")
    _, epoch = await tocsin.publish(news, 1, 2, 3)
    header = {"Last-Event-ID": f"2@{epoch}"}
    async with tocsin.stream(news, headers=header, last_event_id=f"0@{epoch}") as stream:
        assert await stream.numbers(1) == [3]


async def test_a_position_without_an_epoch_matches_any(tocsin: Served, channel: Name) -> None:
    """`0@` is everything that is kept."""
    news = channel("log")
    await tocsin.publish(news, 1, 2)
    async with tocsin.stream(news, last_event_id="0@") as stream:
        assert await stream.numbers(2) == [1, 2]


async def test_a_channel_that_keeps_only_the_latest_gives_that(tocsin: Served, channel: Name) -> None:
    """In cache mode what lies between is not missed, so it is no gap."""
    price = channel("latest")
    _, epoch = await tocsin.publish(price, 1, 2, 3)
    async with tocsin.stream(price, last_event_id=f"1@{epoch}") as stream:
        assert await stream.next() == Event(
            data={"channel": price, "pub": {"data": 3, "offset": 3}}, id=f"3@{epoch}"
        )


async def test_positions_that_are_not_granted_are_not_promised(tocsin: Served, channel: Name) -> None:
    """A log that the client may not read gives no ids, since nothing could be recovered from them."""
    news = channel("unasked")
    async with tocsin.stream(news, begins=False) as stream:
        assert await stream.next() == Event(id="")
        await tocsin.publish(news, 1)
        assert await stream.next() == Event(data={"channel": news, "pub": {"data": 1, "offset": 1}})


async def test_joins_and_leaves_are_events_of_their_own(tocsin: Served, channel: Name) -> None:
    """Where the channel forces them; their data is the push of the WebSocket, one's own join included."""
    room = channel("seen")
    async with tocsin.stream(room, token=connection_token("ann")) as ann:
        own = await ann.next()
        assert (own.kind, own.data["join"]["info"]["user"], own.id) == ("join", "ann", None)
        async with tocsin.stream(room, token=connection_token("bob")) as bob:
            joined = await ann.next()
            assert (joined.kind, joined.data["join"]["info"]["user"]) == ("join", "bob")
            assert await bob.next() == joined
            bob.abort()
        left = await ann.next()
        assert (left.kind, left.data["leave"]) == ("leave", joined.data["join"])


async def test_the_server_ends_a_subscription_and_makes_it_again(tocsin: Served, channel: Name) -> None:
    """The stream stays, its client is told, and the channel goes on with ids when it is back."""
    one, two = channel("log"), channel("log")
    async with tocsin.stream(one, two, token=connection_token("ann")) as stream:
        await tocsin.publish(one, 1)
        assert await stream.numbers(1) == [1]
        await tocsin.order("ann", ServerUnsubscribe(one))
        assert await stream.next() == Event(
            "unsubscribe", {"channel": one, "code": 2000, "reason": "server unsubscribe"}
        )
        await tocsin.publish(one, 2)
        await tocsin.publish(two, 1)
        assert (await stream.message())["channel"] == two
        await tocsin.order("ann", ServerSubscribe(one, since=Position(1, "")))
        assert await stream.next() == Event("subscribe", {"channel": one})
        await tocsin.publish(one, 3)
        events = [await stream.next(), await stream.next()]
    assert [event.data["pub"]["data"] for event in events] == [2, 3]
    assert [str(event.id)[:2] for event in events] == ["2@", "3@"]


async def test_a_channel_the_query_does_not_name_is_heard_without_a_position(
    tocsin: Served, channel: Name
) -> None:
    """What a token or the server subscribes in addition does not change what the id means."""
    news, granted, added = channel("log"), channel("closed"), channel("log")
    token = connection_token("ann", channels=[granted])
    async with tocsin.stream(news, token=token) as stream:
        await tocsin.publish(granted, 1)
        assert await stream.next() == Event(data={"channel": granted, "pub": {"data": 1, "offset": 1}})
        await tocsin.order("ann", ServerSubscribe(added))
        assert await stream.next() == Event("subscribe", {"channel": added})
        await tocsin.publish(added, 2)
        assert (await stream.next()).id is None
        _, epoch = await tocsin.publish(news, 3)
        assert (await stream.next()).id == f"1@{epoch}"


async def test_what_a_client_cannot_act_on_is_not_told(tocsin: Served, channel: Name) -> None:
    """Its connection's new expiry concerns nobody: a stream cannot refresh."""
    news = channel("log")
    async with tocsin.stream(news, token=connection_token("ann")) as stream:
        await tocsin.order("ann", ServerRefresh(expire_at=2**33))
        await tocsin.publish(news, 1)
        assert await stream.numbers(1) == [1]


async def test_an_idle_stream_is_kept_alive_by_comments() -> None:
    """About as often as a WebSocket is pinged; no proxy takes the stream for dead, no client is bothered."""
    async with (
        served(client={"ping_interval": "40ms", "pong_timeout": "30ms"}) as tocsin,
        tocsin.stream("lobby") as stream,
    ):
        await stream.commented(2)
