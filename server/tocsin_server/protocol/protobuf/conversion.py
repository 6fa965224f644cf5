"""Conversion between our structs and the messages of the `protobuf` library, by the table of fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import Raw, Struct

from tocsin_server.protocol.messages import NO_JSON
from tocsin_server.protocol.payloads import Payload, payload_of
from tocsin_server.protocol.protobuf.classes import FILTER_CLASS
from tocsin_server.protocol.protobuf.fields import FilterNode, JsonOf, Kind, ListOf, MapOf, Message, Scalar

FILTER_BYTES = 16_384
NODES_LIMIT = 1000
"""Size and parts of a tags filter. Converting the largest takes two milliseconds."""

ENTRIES_LIMIT = 5000
"""Entries of a map, such as positions by channel. Converting so many takes some eight milliseconds."""

LARGEST_UINT32 = 2**32 - 1
LARGEST_OFFSET = 2**63 - 1

Convert = Callable[[Any], Any]


class OutOfRange(ValueError):
    """A well-formed message has a value that is out of range."""


# ------------------------------------------------------------------------------- structs of received messages


def reader_of(message: Message) -> Convert:
    """The function that makes a struct of a received message. It raises OutOfRange."""
    struct, values_of = message.struct, _values_of(tuple(message.fields))
    plain: list[tuple[int, Convert]] = []
    optional: list[tuple[int, str, Convert]] = []
    for index, (name, field) in enumerate(message.fields.items()):
        convert = _reader(field.kind)
        if convert is not None and isinstance(field.kind, Message):
            optional.append((index, name, convert))
        elif convert is not None:
            plain.append((index, convert))

    def read(received: Any) -> Struct:
        values = [*values_of(received)]
        for index, convert in plain:
            values[index] = convert(values[index])
        for index, name, convert in optional:
            values[index] = convert(values[index]) if received.HasField(name) else None
        return struct(*values)

    return read


def choice_reader_of(message: Message) -> Convert:
    """The same for a message of which few fields are set at a time."""
    readers = {field.number: (name, _reader(field.kind)) for name, field in message.fields.items()}

    def read(received: Any) -> Struct:
        values = {}
        for descriptor, value in received.ListFields():
            name, convert = readers[descriptor.number]
            values[name] = value if convert is None else convert(value)
        return message.struct(**values)

    return read


def _values_of(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda owner: tuple(getattr(owner, name) for name in names)


def _reader(kind: Kind) -> Convert | None:
    """What makes a value of a received one; None: it stays as it is."""
    match kind:
        case Scalar.PAYLOAD:
            return _read_payload
        case Scalar.UINT64:
            return _read_offset
        case Scalar():
            return None
        case Message():
            return reader_of(kind)
        case MapOf(Message() as message):
            return _map_reader(reader_of(message))
        case JsonOf():
            return _read_filter
        case _:
            raise TypeError(f"no command has a {kind}")


def _read_payload(received: bytes) -> Payload:
    return payload_of(received) if received else NO_JSON


def _read_offset(received: int) -> int:
    if received > LARGEST_OFFSET:
        raise OutOfRange("an offset is too large")
    return received


def _map_reader(read: Convert) -> Convert:
    def read_entries(received: Any) -> dict[str, Any]:
        if len(received) > ENTRIES_LIMIT:
            raise OutOfRange("a map has too many entries")
        return {key: read(value) for key, value in received.items()}

    return read_entries


def _read_filter(received: bytes) -> Raw:
    """A tags filter as JSON; NO_JSON for one without fields, as if there were none."""
    if not received:
        return NO_JSON
    if len(received) > FILTER_BYTES:
        raise OutOfRange("a tags filter is too large")
    nodes_left = NODES_LIMIT

    def read(node: Any) -> FilterNode:
        nonlocal nodes_left
        nodes_left -= 1
        if nodes_left < 0:
            raise OutOfRange("a tags filter has too many parts")
        return FilterNode(node.op, node.key, node.cmp, node.val, [*node.vals], [*map(read, node.nodes)])

    return Raw(msgspec.json.encode(read(FILTER_CLASS.FromString(received))))


# ---------------------------------------------------------------------------------------- messages of structs


def writer_of(message: Message) -> Callable[[Struct], Mapping[str, Any]]:
    """The function that returns the fields of a struct that are not zero, as the library takes them."""
    names = tuple(message.fields)
    values_of = _values_of(names)
    converts = tuple(_writer(field.kind) for field in message.fields.values())

    def write(struct: Struct) -> Mapping[str, Any]:
        return {
            name: value if convert is None else convert(value)
            for name, convert, value in zip(names, converts, values_of(struct), strict=True)
            if value
        }

    return write


def _writer(kind: Kind) -> Convert | None:
    match kind:
        case Scalar.PAYLOAD:
            return bytes
        case Scalar.UINT32:
            return _write_uint32
        case Scalar() | MapOf(Scalar()):
            return None
        case Message():
            return writer_of(kind)
        case ListOf(Message() as item):
            write_item = writer_of(item)
            return lambda items: [write_item(one) for one in items]
        case MapOf(Message() as value):
            write_value = writer_of(value)
            return lambda entries: {key: write_value(one) for key, one in entries.items()}
        case _:
            raise TypeError(f"no message of a server has a {kind}")


def _write_uint32(number: int) -> int:
    """The nearest number that its type has: an application may choose codes outside of it."""
    return min(max(number, 0), LARGEST_UINT32)
