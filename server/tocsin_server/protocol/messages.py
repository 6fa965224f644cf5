"""The Centrifuge client protocol in JSON: what travels over a connection, as typed values.

One message carries one or more JSON objects separated by exactly one newline. Application payloads (`data`,
`info`) travel as raw JSON and are never parsed here, only checked to be JSON when they enter. Zero values are
left out when written, except those that clients index without asking.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Raw, Struct

CommandId = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]

NO_JSON = Raw(b"")
"""An absent payload.

The same object everywhere, since msgspec leaves a default out of its output by identity.
"""


class Position(NamedTuple):
    """A place in a channel's log. Offsets compare only within one epoch."""

    offset: int
    epoch: str


class Wire(Struct, omit_defaults=True):
    """A value that travels: unknown fields are ignored, zero values left out."""


class ClientInfo(Wire):
    """Who a connection is, as other clients see it."""

    user: str
    client: str
    conn_info: Raw = NO_JSON
    chan_info: Raw = NO_JSON


class Publication(Wire):
    """One message of a channel. `offset` is 0 where the channel keeps no log."""

    data: Raw
    offset: int = 0
    info: ClientInfo | None = None
    tags: dict[str, str] | None = None

    @property
    def is_logged(self) -> bool:
        """Whether the channel's log holds this publication, so that its offset means something."""
        return self.offset > 0


# --------------------------------------------------------------------------------- commands, client to server


class SubscriptionPosition(Wire):
    """Where a returning client stood in a server-side subscription."""

    recover: bool = False
    offset: Offset = 0
    epoch: str = ""


class ConnectRequest(Wire):
    """The first command: who is there, and where it stood in server-side subscriptions."""

    token: str = ""
    data: Raw = NO_JSON
    subs: dict[str, SubscriptionPosition] = {}
    name: str = ""
    version: str = ""


class SubscribeRequest(Wire):
    """Enter a channel, perhaps recovering from a position."""

    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: Offset = 0
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    flag: int = 0
    tf: Raw = NO_JSON
    """A tags filter, which is refused: no channel allows one."""
    type: int = 0

    @property
    def refuses_unrecovered(self) -> bool:
        """Flag bit 2: the client prefers error 112 to `recovered: false`."""
        return bool(self.flag & 2)


class UnsubscribeRequest(Wire):
    """Leave a channel."""

    channel: str = ""


class PublishRequest(Wire):
    """Publish into a channel."""

    channel: str = ""
    data: Raw = NO_JSON


class PresenceRequest(Wire):
    """Asks who is in a channel."""

    channel: str = ""


class PresenceStatsRequest(Wire):
    """Asks how many are in a channel."""

    channel: str = ""


class SincePosition(Wire):
    """Where a page of history begins."""

    offset: Offset = 0
    epoch: str = ""


class HistoryRequest(Wire):
    """A page of a channel's log. `limit` 0 asks only for the top, a negative one for all."""

    channel: str = ""
    limit: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] = 0
    since: SincePosition | None = None
    reverse: bool = False


class RpcRequest(Wire):
    """Call a method the application registered."""

    method: str = ""
    data: Raw = NO_JSON


class SendRequest(Wire):
    """A message without a reply."""

    data: Raw = NO_JSON


class RefreshRequest(Wire):
    """A fresh connection token."""

    token: str = ""


class SubRefreshRequest(Wire):
    """A fresh subscription token."""

    channel: str = ""
    token: str = ""


class Command(Wire):
    """One command. The first method that is set, in the order below, is the one that counts."""

    id: CommandId = 0
    connect: ConnectRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: UnsubscribeRequest | None = None
    publish: PublishRequest | None = None
    presence: PresenceRequest | None = None
    presence_stats: PresenceStatsRequest | None = None
    history: HistoryRequest | None = None
    rpc: RpcRequest | None = None
    send: SendRequest | None = None
    refresh: RefreshRequest | None = None
    sub_refresh: SubRefreshRequest | None = None

    @property
    def is_pong(self) -> bool:
        """A command without an id that is not `send` answers a ping, whatever else it carries."""
        return self.id == 0 and self.send is None


# ---------------------------------------------------------------------------------- replies, server to client


class ErrorBody(Wire):
    """Why a command was refused."""

    code: int
    message: str
    temporary: bool = False


class SubscribeResult(Wire):
    """What a subscription got."""

    recoverable: bool = False
    positioned: bool = False
    epoch: str = ""
    offset: int = 0
    recovered: bool = False
    was_recovering: bool = False
    publications: list[Publication] = []
    expires: bool = False
    ttl: int = 0
    data: Raw = NO_JSON


class ConnectResult(Wire):
    """What a connection got. `ttl` and `ping` are seconds."""

    client: str
    version: str
    expires: bool = False
    ttl: int = 0
    subs: dict[str, SubscribeResult] = {}
    ping: int = 0
    pong: bool = False
    node: str = ""


class Empty(Wire):
    """A result that says only that it was done."""


class PresenceResult(Wire):
    """Who is in a channel, by client id."""

    presence: dict[str, ClientInfo]


class PresenceStatsResult(Wire):
    """How many are in a channel."""

    num_clients: int
    num_users: int


class HistoryResult(Wire):
    """A page of a log, and its top."""

    publications: list[Publication]
    epoch: str
    offset: int


class RpcResult(Wire):
    """What a method answered."""

    data: Raw = NO_JSON


class RefreshResult(Wire):
    """Until when the connection lives now; `ttl` in seconds."""

    client: str
    version: str
    expires: bool = False
    ttl: int = 0


class SubRefreshResult(Wire):
    """Until when the subscription lives now; `ttl` in seconds."""

    expires: bool = False
    ttl: int = 0


class Reply(Wire):
    """The answer to command `id`: one result or an error."""

    id: int
    error: ErrorBody | None = None
    connect: ConnectResult | None = None
    subscribe: SubscribeResult | None = None
    unsubscribe: Empty | None = None
    publish: Empty | None = None
    presence: PresenceResult | None = None
    presence_stats: PresenceStatsResult | None = None
    history: HistoryResult | None = None
    rpc: RpcResult | None = None
    refresh: RefreshResult | None = None
    sub_refresh: SubRefreshResult | None = None


# ----------------------------------------------------------------------------------- pushes, server to client


class PresenceChange(Wire):
    """Body of a join or leave push."""

    info: ClientInfo


class UnsubscribePush(Wire):
    """The server ended a subscription."""

    code: int
    reason: str


class SubscribePush(Wire):
    """The server made a subscription."""

    recoverable: bool = False
    positioned: bool = False
    epoch: str = ""
    offset: int = 0
    data: Raw = NO_JSON


class RefreshPush(Wire):
    """The server moved the connection's expiry; `ttl` in seconds."""

    expires: bool = False
    ttl: int = 0


class Push(Wire):
    """Something the client did not ask for, about `channel` or, without one, about the connection."""

    channel: str = ""
    pub: Publication | None = None
    join: PresenceChange | None = None
    leave: PresenceChange | None = None
    unsubscribe: UnsubscribePush | None = None
    subscribe: SubscribePush | None = None
    refresh: RefreshPush | None = None


class PushEnvelope(Wire):
    """A push as it stands in a message."""

    push: Push


class Ping(Wire):
    """The empty object, which asks whether the peer is still there."""


Message = Reply | PushEnvelope | Ping

PING = Ping()
EMPTY = Empty()

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Command).decode
_check = msgspec.json.Decoder(Raw).decode


class Malformed:
    """What could not be read as a command."""


MALFORMED = Malformed()


def encode(message: Message) -> bytes:
    """One message as one line of JSON, without the newline."""
    return _encode(message)


def encode_push(push: Push) -> bytes:
    """One push as one line of JSON, without the newline."""
    return _encode(PushEnvelope(push))


def decode_commands(message: bytes) -> Iterator[Command | Malformed]:
    """The commands of one incoming message, ending with MALFORMED where it stops making sense.

    One trailing newline is tolerated; an empty message or line is malformed, and so is what is not UTF-8.
    """
    for line in message.removesuffix(b"\n").split(b"\n"):
        command = _decode_command(line)
        yield command
        if command is MALFORMED:
            return


def _decode_command(line: bytes) -> Command | Malformed:
    try:
        line.decode()  # raw payloads are passed on unread, so their bytes are checked here
        return _decode(line)
    except msgspec.DecodeError:
        mended = mend_surrogates(line)
        return MALFORMED if mended == line else _decode_command(mended)
    except (UnicodeDecodeError, RecursionError):
        return MALFORMED


_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def mend_surrogates(text: bytes) -> bytes:
    """Replace escaped halves of surrogate pairs by U+FFFD, as every UTF-8 encoder does.

    RFC 8259 §8.2 allows them, JavaScript writes them for a string cut in two, and no decoder here takes them.
    """
    return _ESCAPE.sub(lambda found: b"\\ufffd" if found[1] else found[0], text)


def compact(payload: bytes | Raw) -> Raw:
    """`payload` as it may travel: without line breaks, which separate messages on both transports.

    JSON allows them only between tokens, so that nothing is lost.

    Raises ValueError if it is not one JSON value in UTF-8.
    """
    text = bytes(payload)
    text.decode()
    try:
        _check(text)
    except msgspec.DecodeError as error:
        mended = mend_surrogates(text)
        if mended != text:
            return compact(mended)
        raise ValueError(str(error)) from None
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if b"\n" in text or b"\r" in text:
        text = text.replace(b"\n", b"").replace(b"\r", b"")
    return Raw(text.strip(b" \t"))
