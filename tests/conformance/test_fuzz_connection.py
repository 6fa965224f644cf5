"""Hypothesis sends valid, nearly valid and invalid bytes, in one write and byte by byte.

The server must answer the same, however the network cuts the stream.

The input is the same in every run (`derandomize`): a failure is caused by a change. To search for more,
remove that setting and raise `max_examples`.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.raw_connection import (
    Frame,
    Op,
    RawConnection,
    close_frame,
    frame,
    open_raw_websocket,
    open_tcp,
)
from tests.support.server import Server

pytestmark = pytest.mark.usefixtures("other_clients_are_unharmed")

FUZZING = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

CHANNELS = st.sampled_from(["plain:fuzz"] * 4 + ["plain:other", "closed:1", "nowhere:1", "digits:x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
IN_CHANNEL = {"channel": CHANNELS}
RECOVERY = {"recover": st.booleans(), "offset": st.integers(0, 5), "epoch": st.text(max_size=3)}
ANSWERED = {
    "subscribe": st.fixed_dictionaries(IN_CHANNEL, optional=RECOVERY),
    "unsubscribe": st.fixed_dictionaries(IN_CHANNEL),
    "publish": st.fixed_dictionaries({**IN_CHANNEL, "data": JSON}),
    "presence": st.fixed_dictionaries(IN_CHANNEL),
    "history": st.fixed_dictionaries(IN_CHANNEL, optional={"limit": st.integers(-2, 9)}),
    "rpc": st.fixed_dictionaries({"method": st.text(max_size=5)}),
}
"""Methods with parameters that always get a reply, possibly an error."""
CLOSED = {
    "connect": st.fixed_dictionaries({}, optional={"token": st.text(max_size=5)}),
    "refresh": st.fixed_dictionaries({"token": st.text(max_size=5)}),
    "send": st.fixed_dictionaries({"data": JSON}),
    "subscribe": JSON,
    "publish": JSON,
}
"""Methods with parameters most of which close the connection."""


def commands_of(methods: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    calls = st.one_of(*[st.fixed_dictionaries({name: params}) for name, params in methods.items()])
    return st.builds(lambda number, call: {"id": number, **call}, st.integers(1, 99), calls)


FIRST_END, LAST_END = 1001, 1002
CALLS_ELSEWHERE = 20
"""After so many calls of another connection without a reply, an incomplete frame contains the command."""
CONNECT = frame('{"id": 100, "connect": {}}')


def text_frame(text: str) -> bytes:
    return frame(text.encode("utf-8", "replace"))


SENSE = st.lists(commands_of(ANSWERED), min_size=1, max_size=4).map(
    lambda each: text_frame("\n".join(json.dumps(command) for command in each))
)
NONSENSE = st.one_of(
    st.builds(lambda command: text_frame(json.dumps(command)), commands_of(CLOSED)),
    st.builds(
        lambda command, cut: text_frame(json.dumps(command)[:cut]), commands_of(ANSWERED), st.integers(0, 60)
    ),
    st.builds(text_frame, st.text(max_size=20)),
    st.builds(
        frame,
        st.binary(max_size=20),
        st.integers(0, 15),
        fin=st.booleans(),
        reserved=st.integers(0, 7),
        masked=st.booleans(),
    ),
    st.binary(max_size=20),
)
CONVERSATIONS = st.builds(
    lambda start, good, bad: start + b"".join(good + bad),
    st.sampled_from([CONNECT, CONNECT, CONNECT, b""]),
    st.lists(SENSE, max_size=5),
    st.lists(NONSENSE | SENSE, max_size=3),
)


class Answer(NamedTuple):
    """Everything that a connection received.

    Replies are compared as a set: each has an id, and a reply that waits for the engine may be overtaken.
    """

    replies: list[Any]
    pushes: list[Any]
    pongs: list[bytes]
    closes: list[bytes]


def unsubscribe(number: int) -> bytes:
    """A command that is always answered and changes nothing."""
    return frame(json.dumps({"id": number, "unsubscribe": {"channel": "plain:end"}}))


async def call_elsewhere(server: Server) -> None:
    """Call several times on another connection. This proves progress, however slow the server is."""
    async with open_raw_websocket(server) as connection, aclosing(connection.frames()) as frames:
        await connection.send(CONNECT)
        await anext(frames)
        for number in range(1, CALLS_ELSEWHERE + 1):
            await connection.send(unsubscribe(number))
            await anext(frames)


async def cancelled(task: asyncio.Task[None]) -> None:
    """Cancel a task unless it is done, and raise its error."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


class Reader:
    """Collects an answer frame by frame, until the server closes or has answered the last command."""

    def __init__(self, server: Server, connection: RawConnection) -> None:
        self._server = server
        self.connection = connection
        self.answer = Answer([], [], [], [])
        self._client = b"?"

    @property
    def is_closed(self) -> bool:
        return bool(self.answer.closes)

    async def finish(self) -> Answer:
        """Send two last commands. When the second reply is here, every effect of the first has arrived."""
        reading = asyncio.create_task(self._send_last_commands())
        try:
            count = -1
            while not reading.done() and count < (count := sum(map(len, self.answer))):
                elsewhere = asyncio.create_task(call_elsewhere(self._server))
                await asyncio.wait([reading, elsewhere], return_when=asyncio.FIRST_COMPLETED)
                await cancelled(elsewhere)
        finally:
            await cancelled(reading)
        self.answer.replies.sort(key=json.dumps)
        return self.answer

    async def _send_last_commands(self) -> None:
        async with aclosing(self.connection.frames()) as frames:
            for number in (FIRST_END, LAST_END):
                if not self.is_closed:
                    await self.connection.send(unsubscribe(number))
                    await self._until_reply(number, frames)

    async def _until_reply(self, number: int, frames: AsyncIterator[Frame]) -> None:
        async for op, payload in frames:
            if op == Op.TEXT:
                assert not self.is_closed, "no data follows a close frame (RFC 6455 §5.5.1)"
                for line in payload.splitlines():
                    self._take(line)
            elif op == Op.PONG:
                self.answer.pongs.append(payload)
            else:
                assert op == Op.CLOSE
                self.answer.closes.append(payload)
                self.connection.end()
            if any(reply.get("id") == number for reply in self.answer.replies):
                return

    def _take(self, line: bytes) -> None:
        client = json.loads(line).get("connect", {}).get("client", "").encode()
        self._client = client or self._client
        message = json.loads(line.replace(self._client, b"this connection"))
        (self.answer.pushes if "push" in message else self.answer.replies).append(message)


def is_part(one: list[Any], other: list[Any]) -> bool:
    """Whether the shorter list is a subsequence of the longer one."""
    fewer, more = sorted((one, other), key=len)
    rest = iter(more)
    return all(message in rest for message in fewer)


@FUZZING
@given(conversation=CONVERSATIONS)
async def test_an_answer_does_not_depend_on_how_the_bytes_are_cut(
    server: Server, conversation: bytes
) -> None:
    """Replies, pushes, pongs and the close are the same.

    Order differs where the server does not wait: a close may overtake a pong and the reply to a subscribe; an
    unsubscribe may overtake the push of an earlier publication.
    """
    answers = []
    for send in (RawConnection.send, RawConnection.send_slowly):
        async with open_raw_websocket(server) as connection:
            await send(connection, conversation)
            answers.append(await Reader(server, connection).finish())
    whole, slow = answers
    assert whole.closes == slow.closes
    assert is_part(whole.pushes, slow.pushes)
    if whole.closes:
        assert is_part(whole.replies, slow.replies)
        assert is_part(whole.pongs, slow.pongs)
    else:
        assert (whole.replies, whole.pongs) == (slow.replies, slow.pongs)


@FUZZING
@given(noise=st.binary(min_size=1, max_size=300))
async def test_noise_ends_with_a_close(server: Server, noise: bytes) -> None:
    """After random bytes the server closes with a code, by itself or when the client closes."""
    async with open_raw_websocket(server) as connection:
        await connection.send(CONNECT + noise + close_frame() * 3)
        connection.end()
        frames = [received async for received in connection.frames()]
    assert all(op in {Op.TEXT, Op.CLOSE, Op.PONG} for op, _ in frames)


FRAGMENTS = st.lists(st.sampled_from([b"", b" ", b"{", b'"id"', b"}"]), min_size=1, max_size=60)
CONTROL = st.builds(frame, st.binary(max_size=4), st.sampled_from([Op.PING, Op.PONG]))


def fragmented(pieces: list[bytes], control: bytes, *, ends: bool) -> bytes:
    """A message in fragments with a control frame after each; its last fragment may be missing."""
    kinds = [Op.TEXT] + [Op.CONTINUATION] * (len(pieces) - 1)
    last = len(pieces) - 1
    return b"".join(
        frame(piece, kind, fin=ends and index == last) + control
        for index, (piece, kind) in enumerate(zip(pieces, kinds, strict=True))
    )


@FUZZING
@given(
    parts=st.lists(
        st.builds(fragmented, FRAGMENTS, CONTROL | st.just(b""), ends=st.booleans())
        | SENSE
        | st.builds(lambda ping, count: ping * count, CONTROL, st.integers(1, 60)),
        max_size=6,
    )
)
async def test_many_small_frames_are_answered_or_closed(server: Server, parts: list[bytes]) -> None:
    """Frames that are read in several turns are answered as those that are read at once."""
    conversation = CONNECT + b"".join(parts)
    answers = []
    for cut in (len(conversation), 97):
        async with open_raw_websocket(server) as connection:
            for start in range(0, len(conversation), cut):
                await connection.send(conversation[start : start + cut])
            answers.append(await Reader(server, connection).finish())
    whole, pieces = answers
    assert whole.closes == pieces.closes
    assert is_part(whole.pongs, pieces.pongs)
    assert is_part(whole.pushes, pieces.pushes)


POST = b"POST /api/info HTTP/1.1\r\nHost: here\r\n"
REQUESTS = st.sampled_from(
    [
        b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n",
        b"HEAD /health/live HTTP/1.0\r\n\r\n",
        POST + b"Content-Length: 2\r\n\r\n{}",
        POST + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\na: b\r\n\r\n",
        POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /events?channel=plain:fuzz HTTP/1.1\r\nHost: here\r\n\r\n",
        b"\r\n",
    ]
)


@FUZZING
@given(requests=st.lists(REQUESTS | st.binary(max_size=30), min_size=1, max_size=12))
async def test_requests_behind_each_other_are_answered_in_order_or_the_connection_ends(
    server: Server, requests: list[bytes]
) -> None:
    """Each response that begins has the form of one."""
    async with open_tcp(server) as connection:
        await connection.send(b"".join(requests))
        connection.end()
        answer = await connection.read_to_end()
    assert not answer or answer.startswith(b"HTTP/1.1 ")
    for status in re.findall(rb"HTTP/1\.1 (\d+) ", answer):
        assert int(status) < 500
