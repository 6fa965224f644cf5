"""The events of a stream: publications of the channels in its query, with ids, and all other events."""

import asyncio
import re
from collections.abc import Callable

from msgspec import Raw

from tests.server.transports.sse.stream_server import Event, StreamServer, stream_server
from tests.support.timing import SOON
from tests.support.tokens import connection_token
from tocsin_server.core.events import ServerRefresh, ServerSubscribe, ServerUnsubscribe
from tocsin_server.engine.broker import NewPublication
from tocsin_server.protocol.messages import Position

Name = Callable[[str], str]


async def test_a_stream_begins_with_its_position_and_continues_with_publications(
    server: StreamServer, channel: Name
) -> None:
    """The first event has only an id, which a browser keeps silently; each publication has its own id."""
    news = channel("history")
    epoch = (await server.publish(news, 1)).epoch
    async with server.stream(news, begins=False) as stream:
        assert await stream.next() == Event(id=f"1@{epoch}")
        await server.publish(news, 2)
        message = {"channel": news, "pub": {"data": 2, "offset": 2}}
        assert await stream.next() == Event(data=message, id=f"2@{epoch}")


async def test_curl_reads_a_stream(server: StreamServer, channel: Name) -> None:
    """A stream is lines of text, each event written as soon as it is published."""
    news = channel("history")
    curl = await asyncio.create_subprocess_exec(
        "curl", "-sN", "--noproxy", "*", server.url + server.path(news), stdout=asyncio.subprocess.PIPE
    )
    assert curl.stdout is not None
    async with asyncio.timeout(SOON):
        first = await curl.stdout.readuntil(b"\n\n")
        second = await curl.stdout.readuntil(b"\n\n")
        await server.publish(news, 1)
        message = await curl.stdout.readuntil(b"\n\n")
    curl.terminate()
    await curl.wait()
    assert second.startswith(b'event: connect\ndata: {"client":"')
    begin = re.fullmatch(rb"id: 0@(\w+)\nretry: \d+\n\n", first)
    assert begin is not None
    epoch = begin[1].decode()
    push = f'{{"channel":"{news}","pub":{{"data":1,"offset":1}}}}'
    assert message.decode() == f"id: 1@{epoch}\ndata: {push}\n\n"


async def test_several_channels_share_one_stream(server: StreamServer, channel: Name) -> None:
    """The id has the positions of all of them, in the order of the query, for a message of any of them."""
    one, plain, two = channel("history"), channel("plain"), channel("history")
    async with server.stream(one, "lobby", two, begins=False) as stream:
        first, _, second = str((await stream.next()).id).split(",")
        assert (first[:2], second[:2]) == ("0@", "0@")
        for name in (two, "lobby", one):
            await server.publish(name, 1)
        received = [await stream.next() for _ in range(3)]
    assert [event.data["channel"] for event in received] == [two, "lobby", one]
    assert [event.id for event in received] == [
        f"{first},,{second.replace('0@', '1@')}",
        None,
        f"{first.replace('0@', '1@')},,{second.replace('0@', '1@')}",
    ]
    assert plain != one


async def test_a_batch_arrives_complete_with_an_id_for_each_message(
    server: StreamServer, channel: Name
) -> None:
    """On a stream of one channel, and on a stream of two."""
    one, two = channel("history"), channel("history")
    async with server.stream(one) as alone, server.stream(two, one) as both:
        epoch = (await server.publish(one, *range(1, 6))).epoch
        for stream, prefix in ((alone, ""), (both, f"0@{(await server.top(two)).epoch},")):
            events = [await stream.next() for _ in range(5)]
            assert [event.data["pub"]["data"] for event in events] == [1, 2, 3, 4, 5]
            assert [event.id for event in events] == [f"{prefix}{offset}@{epoch}" for offset in range(1, 6)]


async def test_data_is_one_line(server: StreamServer, channel: Name) -> None:
    """JSON escapes line breaks in strings, and those between its tokens are removed."""
    news = channel("history")
    async with server.stream(news) as stream:
        await server.node.operations.publish(
            news, NewPublication(Raw('{"a\\n\\r":"zw\\u2028ö\\n: x"}'.encode()))
        )
        assert (await stream.message())["pub"]["data"] == {"a\n\r": "zw\u2028ö\n: x"}


async def test_a_stream_recovers_from_its_last_event_id(server: StreamServer, channel: Name) -> None:
    """By the header that browsers send, or by the query, in each channel with missed publications."""
    one, two = channel("history"), channel("history")
    async with server.stream(one, two) as stream:
        await server.publish(two, 1)
        assert await stream.numbers(1) == [1]
    position = stream.last_id
    await server.publish(one, 11, 12)
    await server.publish(two, 2, 3)
    nowhere: dict[str, str] = {}
    for headers, query in (({"Last-Event-ID": position}, nowhere), (nowhere, {"last_event_id": position})):
        async with server.stream(one, two, headers=headers, query=query, begins=False) as stream:
            assert await stream.next() == Event(id=position)
            events = [await stream.next() for _ in range(4)]
            assert [event.data["pub"]["data"] for event in events] == [11, 12, 2, 3]
            after = [[part[:1] for part in str(event.id).split(",")] for event in events]
            assert after == [["1", "1"], ["2", "1"], ["2", "2"], ["2", "3"]]
            assert await stream.is_quiet()


async def test_the_last_event_id_header_overrides_the_query(server: StreamServer, channel: Name) -> None:
    """The URL stays the same, and a browser that reconnects sends its latest position in the header."""
    news = channel("history")
    epoch = (await server.publish(news, 1, 2, 3)).epoch
    header = {"Last-Event-ID": f"2@{epoch}"}
    async with server.stream(news, headers=header, last_event_id=f"0@{epoch}") as stream:
        assert await stream.numbers(1) == [3]


async def test_a_position_without_an_epoch_matches_any(server: StreamServer, channel: Name) -> None:
    """`0@` recovers everything that history keeps."""
    news = channel("history")
    await server.publish(news, 1, 2)
    async with server.stream(news, last_event_id="0@") as stream:
        assert await stream.numbers(2) == [1, 2]


async def test_a_channel_in_cache_mode_recovers_its_newest_publication(
    server: StreamServer, channel: Name
) -> None:
    """The publications between are not a gap."""
    price = channel("latest")
    epoch = (await server.publish(price, 1, 2, 3)).epoch
    async with server.stream(price, last_event_id=f"1@{epoch}") as stream:
        assert await stream.next() == Event(
            data={"channel": price, "pub": {"data": 3, "offset": 3}}, id=f"3@{epoch}"
        )


async def test_a_channel_without_permitted_recovery_has_no_position(
    server: StreamServer, channel: Name
) -> None:
    """Its history could not be recovered from, so its events have no ids."""
    news = channel("unrecoverable")
    async with server.stream(news, begins=False) as stream:
        assert await stream.next() == Event(id="")
        await server.publish(news, 1)
        assert await stream.next() == Event(data={"channel": news, "pub": {"data": 1, "offset": 1}})


async def test_joins_and_leaves_are_events_of_their_own_kind(server: StreamServer, channel: Name) -> None:
    """Where the channel forces them, the client's own included. Their data is the push of a WebSocket."""
    room = channel("seen")
    async with server.stream(room, token=connection_token("ann")) as ann:
        own = await ann.next()
        assert (own.kind, own.data["join"]["info"]["user"], own.id) == ("join", "ann", None)
        async with server.stream(room, token=connection_token("bob")) as bob:
            joined = await ann.next()
            assert (joined.kind, joined.data["join"]["info"]["user"]) == ("join", "bob")
            assert await bob.next() == joined
            bob.abort()
        left = await ann.next()
        assert (left.kind, left.data["leave"]) == ("leave", joined.data["join"])


async def test_the_api_unsubscribes_and_subscribes_a_channel_of_a_stream(
    server: StreamServer, channel: Name
) -> None:
    """The stream stays open, its client gets each event, and the channel's ids continue afterwards."""
    one, two = channel("history"), channel("history")
    async with server.stream(one, two, token=connection_token("ann")) as stream:
        await server.publish(one, 1)
        assert await stream.numbers(1) == [1]
        await server.control("ann", ServerUnsubscribe(one))
        assert await stream.next() == Event(
            "unsubscribe", {"channel": one, "code": 2000, "reason": "server unsubscribe"}
        )
        why = {"code": 2000, "reason": "server unsubscribe"}
        assert await stream.message() == {"channel": one, "unsubscribe": why}, "for an `onmessage` handler"
        await server.publish(one, 2)
        await server.publish(two, 1)
        assert (await stream.message())["channel"] == two
        await server.control("ann", ServerSubscribe(one, since=Position(1, "")))
        assert await stream.next() == Event("subscribe", {"channel": one})
        await server.publish(one, 3)
        events = [await stream.next(), await stream.next()]
    assert [event.data["pub"]["data"] for event in events] == [2, 3]
    assert [str(event.id)[:2] for event in events] == ["2@", "3@"]


async def test_a_channel_that_the_query_does_not_name_has_no_position(
    server: StreamServer, channel: Name
) -> None:
    """Channels that a token or the API subscribes in addition do not change the id."""
    news, granted, added = channel("history"), channel("closed"), channel("history")
    token = connection_token("ann", channels=[granted])
    async with server.stream(news, token=token) as stream:
        await server.publish(granted, 1)
        assert await stream.next() == Event(data={"channel": granted, "pub": {"data": 1, "offset": 1}})
        await server.control("ann", ServerSubscribe(added))
        assert await stream.next() == Event("subscribe", {"channel": added})
        await server.publish(added, 2)
        assert (await stream.next()).id is None
        epoch = (await server.publish(news, 3)).epoch
        assert (await stream.next()).id == f"1@{epoch}"


async def test_a_refresh_is_not_an_event(server: StreamServer, channel: Name) -> None:
    """A client cannot act on its connection's new expiry, since a stream cannot refresh."""
    news = channel("history")
    async with server.stream(news, token=connection_token("ann")) as stream:
        await server.control("ann", ServerRefresh(expire_at=2**33))
        await server.publish(news, 1)
        assert await stream.numbers(1) == [1]


async def test_an_idle_stream_is_kept_alive_by_comments() -> None:
    """About as often as a WebSocket is pinged. Proxies see traffic, and an EventSource ignores comments."""
    async with (
        stream_server(client={"ping_interval": "40ms", "pong_timeout": "30ms"}) as server,
        server.stream("lobby") as stream,
    ):
        await stream.commented(2)
