"""The protobuf codec: what it reads and writes, compared with JSON and with the SDK's own classes."""

from __future__ import annotations

import json
from typing import Any

import centrifuge.protocol.client_pb2 as classes_of_sdk
import msgspec
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, Struct, structs

from tocsin_server.protocol import messages
from tocsin_server.protocol.codec import Codec
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import MALFORMED, PING, PONG, Command, Push, PushEnvelope, Reply
from tocsin_server.protocol.payloads import Binary, payload_of
from tocsin_server.protocol.protobuf.classes import COMMAND_CLASS, PUSH_CLASS
from tocsin_server.protocol.protobuf.codec import PROTOBUF, varint
from tocsin_server.protocol.protobuf.conversion import ENTRIES_LIMIT, FILTER_BYTES, NODES_LIMIT, writer_of
from tocsin_server.protocol.protobuf.fields import COMMAND, PUSH, REPLY, JsonOf, Kind, ListOf, MapOf, Message

sdk: Any = classes_of_sdk
"""The classes that centrifuge-python has. Their schema lacks the newest fields."""

texts = st.text(st.characters(codec="utf-8"), max_size=8)
payloads = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
).map(lambda value: Raw(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()))
NEWER = {"tf", "flag", "type"}
uint32s = st.integers(0, 2**32 - 1)
offsets = st.integers(0, 2**63 - 1)


def structs_of(kind: type[Struct], **members: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Structs of a type whose members are given, or stay at their default."""
    optional = {name for name in members if name not in _required(kind)}
    return st.fixed_dictionaries(
        {name: strategy for name, strategy in members.items() if name not in optional},
        optional={name: members[name] for name in optional},
    ).map(lambda given_members: kind(**given_members))


def _required(kind: type[Struct]) -> set[str]:
    return {field.name for field in structs.fields(kind) if field.required}


# --------------------------------------------------------------------------------------------------- commands

positions = structs_of(messages.SubscriptionPosition, recover=st.booleans(), offset=offsets, epoch=texts)
since = structs_of(messages.SincePosition, offset=offsets, epoch=texts)
channels = structs_of(messages.PresenceRequest, channel=texts)
commands = structs_of(
    Command,
    id=uint32s,
    connect=structs_of(
        messages.ConnectRequest,
        token=texts,
        data=payloads,
        subs=st.dictionaries(texts, positions, max_size=3),
        name=texts,
        version=texts,
    ),
    subscribe=structs_of(
        messages.SubscribeRequest,
        channel=texts,
        token=texts,
        recover=st.booleans(),
        epoch=texts,
        offset=offsets,
        positioned=st.booleans(),
        recoverable=st.booleans(),
        join_leave=st.booleans(),
        flag=st.integers(-(2**63), 2**63 - 1),
        type=st.integers(-(2**31), 2**31 - 1),
    ),
    unsubscribe=structs_of(messages.UnsubscribeRequest, channel=texts),
    publish=structs_of(messages.PublishRequest, channel=texts, data=payloads),
    presence=channels,
    presence_stats=structs_of(messages.PresenceStatsRequest, channel=texts),
    history=structs_of(
        messages.HistoryRequest,
        channel=texts,
        limit=st.integers(-(2**31), 2**31 - 1),
        since=since,
        reverse=st.booleans(),
    ),
    rpc=structs_of(messages.RpcRequest, method=texts, data=payloads),
    send=structs_of(messages.SendRequest, data=payloads),
    refresh=structs_of(messages.RefreshRequest, token=texts),
    sub_refresh=structs_of(messages.SubRefreshRequest, channel=texts, token=texts),
)


def sdk_message(kind: Any, fields: Any) -> Any:
    """A message of the SDK's class from what JSON shows of it; payloads are the bytes of their JSON."""
    message = kind()
    for name, value in fields.items():
        descriptor = kind.DESCRIPTOR.fields_by_name[name]
        _set(message, descriptor, name, value)
    return message


def _set(message: Any, descriptor: Any, name: str, value: Any) -> None:
    target = getattr(message, name)
    if descriptor.type == descriptor.TYPE_BYTES:
        setattr(message, name, bytes(value))
    elif descriptor.type != descriptor.TYPE_MESSAGE:
        setattr(message, name, value)
    elif not descriptor.message_type.GetOptions().map_entry:
        target.SetInParent()
        target.MergeFrom(sdk_message(type(target), value))
    else:
        for key, entry in value.items():
            target[key].MergeFrom(sdk_message(type(target[key]), entry))


def as_fields(struct: Struct) -> dict[str, Any]:
    """The members of a struct that are not at their default."""
    members: dict[str, Any] = {}
    for field in structs.fields(struct):
        value = getattr(struct, field.name)
        if isinstance(value, Struct):
            members[field.name] = as_fields(value)
        elif isinstance(value, dict):
            members[field.name] = {key: as_fields(one) for key, one in value.items()}
        elif value is not None:
            members[field.name] = value
    return members


def written_by_sdk(command: Command) -> bytes:
    """A command as the SDK's own classes write it, followed by the fields that they do not have."""
    fields = as_fields(command)
    request = fields.get("subscribe", {})
    request.pop("tf", None)
    newer = {name: request.pop(name) for name in NEWER & request.keys()}
    written: bytes = sdk_message(sdk.Command, fields).SerializeToString()
    if newer:
        written += COMMAND_CLASS(subscribe=newer).SerializeToString()
    return written


def frame(*encoded: bytes) -> bytes:
    return PROTOBUF.join(encoded)


def decoded(data: bytes, codec: Codec = PROTOBUF) -> list[Any]:
    return list(codec.decode_commands(data))


def readable(value: Any) -> Any:
    """A message with its payloads as bytes, since two Raw are equal only if they are one object."""
    if isinstance(value, Struct):
        return type(value), [readable(member) for member in structs.astuple(value)]
    if isinstance(value, dict):
        return {key: readable(member) for key, member in value.items()}
    return bytes(value) if isinstance(value, Raw) else value


@given(commands)
def test_a_command_is_the_same_in_json_and_in_protobuf(command: Command) -> None:
    """The SDK's own classes write it, and both codecs read an equal value."""
    (read,) = decoded(frame(written_by_sdk(command)))
    (same,) = decoded(msgspec.json.encode(command), JSON)
    assert readable(read) == readable(same)


filters = st.recursive(
    st.fixed_dictionaries(
        {"key": texts.filter(bool), "cmp": st.sampled_from(["eq", "in", "ex"])},
        optional={"val": texts.filter(bool), "vals": st.lists(texts, min_size=1, max_size=3)},
    ),
    lambda nodes: st.fixed_dictionaries(
        {"op": st.sampled_from(["and", "or", "not"]), "nodes": st.lists(nodes, min_size=1, max_size=3)}
    ),
    max_leaves=5,
)


def filter_message(node: dict[str, Any]) -> bytes:
    """A tags filter as bytes, by hand: the SDK's classes are of an older schema."""
    numbers = {"op": 1, "key": 2, "cmp": 3, "val": 4}
    parts = [text_field(numbers[name], text) for name, text in node.items() if name in numbers]
    parts += [text_field(5, text) for text in node.get("vals", [])]
    parts += [bytes_field(6, filter_message(inner)) for inner in node.get("nodes", [])]
    return b"".join(parts)


def bytes_field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def text_field(number: int, text: str) -> bytes:
    return bytes_field(number, text.encode())


@given(filters)
def test_a_tags_filter_is_read_as_its_json(tags_filter: dict[str, Any]) -> None:
    request = text_field(1, "news") + bytes_field(13, filter_message(tags_filter))
    (command,) = decoded(frame(b"\x08\x01" + bytes_field(5, request)))
    assert json.loads(bytes(command.subscribe.tf)) == tags_filter


def test_a_tags_filter_without_fields_is_none() -> None:
    (command,) = decoded(frame(bytes_field(5, bytes_field(13, b""))))
    assert command.subscribe.tf is messages.NO_JSON


@pytest.mark.parametrize("parts", [bytes_field(6, b"") * NODES_LIMIT, text_field(4, "x" * FILTER_BYTES)])
def test_a_tags_filter_that_is_too_large_is_malformed(parts: bytes) -> None:
    assert decoded(frame(bytes_field(5, bytes_field(13, parts)))) == [MALFORMED]


def test_a_map_with_too_many_entries_is_malformed() -> None:
    """Each costs a microsecond or two, and no client has so many positions."""
    entries = [bytes_field(3, text_field(1, str(number))) for number in range(ENTRIES_LIMIT + 1)]
    (command,) = decoded(frame(bytes_field(4, b"".join(entries[1:]))))
    assert len(command.connect.subs) == ENTRIES_LIMIT
    assert decoded(frame(bytes_field(4, b"".join(entries)))) == [MALFORMED]


@pytest.mark.parametrize(
    ("data", "payload"),
    [
        (b'{"a":1}', Raw(b'{"a":1}')),
        (b'{"a":\n1}', Binary(b'{"a":\n1}')),
        (b" 1", Binary(b" 1")),
        (b'"\\ud83d"', Binary(b'"\\ud83d"')),
        (b"\x00\xff", Binary(b"\x00\xff")),
        (b"", messages.NO_JSON),
    ],
)
def test_a_payload_is_kept_byte_for_byte(data: bytes, payload: Any) -> None:
    """Only JSON on one line counts as JSON, because only that can be part of a line of JSON as it is."""
    (command,) = decoded(frame(bytes_field(7, bytes_field(2, data))))
    assert type(command.publish.data) is type(payload)
    assert bytes(command.publish.data) == bytes(payload)


# ---------------------------------------------------------------------------------------------- unusual bytes


@given(st.binary(max_size=60))
def test_every_frame_decodes_to_commands_or_malformed(data: bytes) -> None:
    """No bytes raise an exception."""
    commands = decoded(data)
    assert commands
    assert all(isinstance(command, Command) for command in commands[:-1])


def official(data: bytes) -> bool:
    """Whether the SDK's own classes can read a command."""
    try:
        sdk.Command.FromString(data)
    except DecodeError:
        return False
    return True


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid command with some bytes removed, added or changed."""
    written = bytearray(written_by_sdk(draw(commands)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(written)))
        written[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(written)


@given(damaged() | st.binary(max_size=40))
def test_what_official_classes_refuse_is_malformed(data: bytes) -> None:
    """What they accept is a command, unless a value is out of range."""
    (read,) = decoded(frame(data))
    if not official(data):
        assert read is MALFORMED
    elif read is MALFORMED:
        assert has_large_offset(sdk.Command.FromString(data))


def has_large_offset(command: Any) -> bool:
    requests = (command.subscribe, command.history.since, *command.connect.subs.values())
    return any(request.offset > 2**63 - 1 for request in requests)


PRESENCE = bytes_field(8, text_field(1, "news"))


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("an unknown number", b"\xa0\x06\x05"),
        ("an unknown text", text_field(100, "x")),
        ("an unknown 64-bit number", b"\xa1\x06" + bytes(8)),
        ("an unknown 32-bit number", b"\xa5\x06" + bytes(4)),
        ("a group with a group inside", b"\xa3\x06\xab\x06\x08\x01\xac\x06\xa4\x06"),
        ("an id with the wire type of a text", text_field(1, "7")),
        ("a request with the wire type of a number", b"\x28\x01"),
        ("numbers of the first version of the protocol", b"\x10\x05" + text_field(3, "x")),
    ],
)
def test_unknown_fields_and_wire_types_are_skipped(what: str, data: bytes) -> None:
    for at_begin in (True, False):
        written = data + PRESENCE if at_begin else PRESENCE + data
        (command,) = decoded(frame(b"\x08\x07" + written))
        assert command == Command(7, presence=messages.PresenceRequest("news")), what


@pytest.mark.parametrize(
    "data",
    [
        b"\x08",  # a number without an end
        b"\x08\xff",
        b"\x08" + b"\xff" * 10 + b"\x01",  # more than 64 bits
        b"\x42\x05ab",  # a length beyond the end
        b"\x42\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x00\x01",  # the field number 0
        b"\xa3\x06",  # a group without an end
        b"\xa4\x06",  # an end without a group
        b"\xa3\x06\xac\x06",  # the end of another group
        b"\x0e",  # wire types that do not exist
        b"\x0f",
        b"\xa1\x06" + bytes(7),
        bytes_field(8, bytes_field(1, b"\xff")),  # a text that is not UTF-8
        bytes_field(8, bytes_field(1, b"\xed\xa0\x80")),
        bytes_field(5, b"\x38" + varint(2**63)),  # an offset beyond what JSON may have
        b"\xa3\x06" * 200 + b"\xa4\x06" * 200,
    ],
)
def test_malformed_commands(data: bytes) -> None:
    """Those before it in the frame are decoded, and none after it."""
    pong = b"\x00"
    assert decoded(frame(b"\x08\x01", data, b"\x08\x02")) == [Command(1), MALFORMED]
    assert decoded(pong + frame(data)) == [PONG, MALFORMED]


def test_deep_messages_are_malformed() -> None:
    """Before they can exhaust the stack."""
    nested = b""
    for _ in range(150):
        nested = bytes_field(6, nested)
    assert decoded(frame(bytes_field(5, bytes_field(13, nested)))) == [MALFORMED]


def test_a_repeated_field_replaces_the_one_before_and_messages_are_merged() -> None:
    """The rules of the language: a writer may write a message in parts."""
    first = bytes_field(5, text_field(1, "old") + b"\x18\x01")
    second = bytes_field(5, text_field(1, "news") + text_field(6, "epoch"))
    (command,) = decoded(frame(b"\x08\x01" + first + second + b"\x08\x02"))
    assert (command.id, command.subscribe.channel) == (2, "news")
    assert (command.subscribe.recover, command.subscribe.epoch) == (True, "epoch")
    entries = [text_field(1, "a") + bytes_field(2, text_field(6, epoch)) for epoch in ("x", "y")]
    (command,) = decoded(frame(bytes_field(4, b"".join(bytes_field(3, entry) for entry in entries))))
    assert {name: one.epoch for name, one in command.connect.subs.items()} == {"a": "y"}


def test_numbers_lose_the_bits_that_their_type_does_not_have() -> None:
    (command,) = decoded(frame(b"\x08" + varint(2**32 + 7) + PRESENCE))
    assert command.id == 7


@pytest.mark.parametrize(
    ("data", "kinds"),
    [
        (b"", [MALFORMED]),
        (b"\x00", [PONG]),
        (b"\x00\x00", [PONG, PONG]),
        (b"\x02\x08\x01\x00", [Command(1), PONG]),
        (b"\x02\x08", [MALFORMED]),
        (b"\x80\x00", [PONG]),
        (b"\xff", [MALFORMED]),
        (b"\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", [PONG, MALFORMED]),
        (b"\xff" * 11, [MALFORMED]),
    ],
)
def test_a_frame_is_divided_by_the_lengths_in_it(data: bytes, kinds: list[object]) -> None:
    assert decoded(data) == kinds


def test_the_messages_of_a_frame_are_decoded_one_at_a_time() -> None:
    """What follows is not even looked at until it is needed."""
    commands = PROTOBUF.decode_commands(frame(b"\x08\x01", b"\x0f"))
    assert next(commands) == Command(1)
    assert list(commands) == [MALFORMED]


# ----------------------------------------------------------------------------------------- replies and pushes

infos = structs_of(messages.ClientInfo, user=texts, client=texts, conn_info=payloads, chan_info=payloads)
publications = structs_of(
    messages.Publication,
    data=payloads,
    offset=offsets,
    info=infos,
    tags=st.dictionaries(texts, texts, max_size=3),
)
changes = structs_of(messages.PresenceChange, info=infos)
results = structs_of(
    messages.SubscribeResult,
    recoverable=st.booleans(),
    positioned=st.booleans(),
    epoch=texts,
    offset=offsets,
    recovered=st.booleans(),
    was_recovering=st.booleans(),
    publications=st.lists(publications, max_size=3),
    expires=st.booleans(),
    ttl=uint32s,
    data=payloads,
)
pushes = st.one_of(
    structs_of(Push, channel=texts, pub=publications),
    structs_of(Push, channel=texts, join=changes),
    structs_of(Push, channel=texts, leave=changes),
    structs_of(
        Push, channel=texts, unsubscribe=structs_of(messages.UnsubscribePush, code=uint32s, reason=texts)
    ),
    structs_of(
        Push,
        channel=texts,
        subscribe=structs_of(
            messages.SubscribePush,
            recoverable=st.booleans(),
            positioned=st.booleans(),
            epoch=texts,
            offset=offsets,
            data=payloads,
        ),
    ),
    structs_of(Push, refresh=structs_of(messages.RefreshPush, expires=st.booleans(), ttl=uint32s)),
)
replies = structs_of(
    Reply,
    id=uint32s,
    error=structs_of(messages.ErrorBody, code=uint32s, message=texts, temporary=st.booleans()),
    connect=structs_of(
        messages.ConnectResult,
        client=texts,
        version=texts,
        expires=st.booleans(),
        ttl=uint32s,
        subs=st.dictionaries(texts, results, max_size=2),
        ping=uint32s,
        pong=st.booleans(),
        node=texts,
    ),
    subscribe=results,
    unsubscribe=st.just(messages.EMPTY),
    publish=st.just(messages.EMPTY),
    presence=structs_of(messages.PresenceResult, presence=st.dictionaries(texts, infos, max_size=3)),
    presence_stats=structs_of(messages.PresenceStatsResult, num_clients=uint32s, num_users=uint32s),
    history=structs_of(
        messages.HistoryResult, publications=st.lists(publications, max_size=3), epoch=texts, offset=offsets
    ),
    rpc=structs_of(messages.RpcResult, data=payloads),
    refresh=structs_of(
        messages.RefreshResult, client=texts, version=texts, expires=st.booleans(), ttl=uint32s
    ),
    sub_refresh=structs_of(messages.SubRefreshResult, expires=st.booleans(), ttl=uint32s),
)


def sdk_value(message: Any) -> Any:
    """What JSON shows of a message of the SDK's class: payloads parsed, zero values left out."""
    shown: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        is_map = descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry
        if is_map:
            shown[descriptor.name] = {
                key: one if isinstance(one, str) else sdk_value(one) for key, one in value.items()
            }
        elif descriptor.type == descriptor.TYPE_BYTES:
            shown[descriptor.name] = json.loads(value)
        elif descriptor.type != descriptor.TYPE_MESSAGE:
            shown[descriptor.name] = value
        elif isinstance(value, type(message)) or hasattr(value, "ListFields"):
            shown[descriptor.name] = sdk_value(value)
        else:
            shown[descriptor.name] = [sdk_value(one) for one in value]
    return shown


def without_zeros(value: Any, kind: Kind) -> Any:
    """What JSON shows of a message, without the zero values that JSON always writes."""
    match kind:
        case Message():
            fields = {name: without_zeros(one, kind.fields[name].kind) for name, one in value.items()}
            return {name: one for name, one in fields.items() if not is_zero(one, kind.fields[name].kind)}
        case MapOf(Message() as message):
            return {name: without_zeros(one, message) for name, one in value.items()}
        case ListOf(Message() as message):
            return [without_zeros(one, message) for one in value]
        case _:
            return value


def is_zero(value: Any, kind: Kind) -> bool:
    """Whether protobuf leaves a value out. A payload is there even if it is the JSON of an empty value."""
    is_payload = not isinstance(kind, Message | MapOf | ListOf | JsonOf) and kind.name == "PAYLOAD"
    return not isinstance(kind, Message) and not is_payload and not value


@given(replies)
def test_a_reply_is_the_same_in_json_and_in_protobuf(reply: Reply) -> None:
    """The SDK's own classes read what JSON shows."""
    read = sdk_value(sdk.Reply.FromString(PROTOBUF.encode(reply)))
    assert read == without_zeros(json.loads(JSON.encode(reply)), REPLY)


@given(pushes)
def test_a_push_is_the_same_in_json_and_in_protobuf(push: Push) -> None:
    """Alone and in its envelope, which is a reply without an id."""
    same = without_zeros(json.loads(JSON.encode_push(push)), PUSH)
    encoded = PROTOBUF.encode_push(push)
    assert sdk_value(sdk.Push.FromString(encoded)) == same
    envelope = PROTOBUF.encode(PushEnvelope(push))
    assert envelope == PROTOBUF.wrap_push(encoded)
    assert sdk_value(sdk.Reply.FromString(envelope)) == {"push": same}


@given(structs_of(Push, channel=texts, pub=publications))
def test_a_publication_is_written_as_the_table_says(push: Push) -> None:
    """It has a shorter way than other pushes, because publications are many."""
    shorter = PUSH_CLASS.FromString(PROTOBUF.encode_push(push))
    assert shorter == PUSH_CLASS(**writer_of(PUSH)(push))


@given(st.lists(replies | pushes.map(PushEnvelope) | st.just(PING), min_size=1, max_size=4))
def test_the_messages_of_a_frame_are_apart(sent: list[Any]) -> None:
    """Each has its length before it. A ping is an empty message."""
    encoded = list(map(PROTOBUF.encode, sent))
    data, found = PROTOBUF.join(encoded), []
    while data:
        size = shift = at = 0
        while True:
            size |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                break
        found.append(data[at : at + size])
        data = data[at + size :]
    assert found == encoded


@pytest.mark.parametrize("code", [-1, 2**32, 2**70])
def test_a_number_outside_of_its_type_becomes_the_nearest(code: int) -> None:
    """An application may choose any."""
    reply = Reply(1, error=messages.ErrorBody(code, ""))
    assert sdk.Reply.FromString(PROTOBUF.encode(reply)).error.code == max(0, min(code, 2**32 - 1))


def test_bytes_reach_a_protobuf_client_as_they_are() -> None:
    push = Push("news", pub=messages.Publication(payload_of(b"\x00\xff\n"), 1))
    assert sdk.Push.FromString(PROTOBUF.encode_push(push)).pub.data == b"\x00\xff\n"


# -------------------------------------------------------------------------------------------------- the table


def _compare(message: Message, official_type: Any, seen: set[str]) -> None:
    if official_type.name in seen:
        return
    seen.add(official_type.name)
    for name, field in message.fields.items():
        official_field = official_type.fields_by_name.get(name)
        if official_field is None:  # newer than the SDK's schema
            assert name in NEWER, name
            continue
        assert field.number == official_field.number, (official_type.name, name)
        mine = COMMAND_OR_REPLY[message.struct.__name__].fields_by_name[name]
        assert (mine.type, mine.is_repeated) == (official_field.type, official_field.is_repeated), name
        inner = field.kind
        inner = inner.item if isinstance(inner, ListOf) else inner
        if isinstance(inner, MapOf) and isinstance(inner.value, Message):
            _compare(inner.value, official_field.message_type.fields_by_name["value"].message_type, seen)
        elif isinstance(inner, Message):
            _compare(inner, official_field.message_type, seen)


COMMAND_OR_REPLY = COMMAND_CLASS.DESCRIPTOR.file.message_types_by_name


@pytest.mark.parametrize(("message", "kind"), [(COMMAND, sdk.Command), (REPLY, sdk.Reply), (PUSH, sdk.Push)])
def test_the_table_has_the_numbers_and_types_of_the_official_schema(message: Message, kind: Any) -> None:
    _compare(message, kind.DESCRIPTOR, set())
