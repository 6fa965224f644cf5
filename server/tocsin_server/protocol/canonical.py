"""The canonical form of a JSON object: the one that a strict decoder of its type accepts.

Many JSON libraries write the same value in another form: `null` for a member that is not set (C#, Java, Go,
pydantic), and `55.0` for a whole number (PHP, Lua, and every language whose
numbers are floating point). Centrifugo reads `null`, and so its clients and back ends rely on it.

Decoders are strict and fast. `canonical` is called only for an object that a decoder has refused. Payloads
(`Raw`) are never changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any

import msgspec
from msgspec import Raw, inspect

NULL = b"null"
ABSENT = Raw(b"")
"""A member that is not there. No JSON value is empty."""
_LARGEST_EXPONENT = 20
"""No member holds a whole number with more digits."""

_MOST_MEMBERS = 1000
"""An object of named entries, such as positions by channel, with more of them is not repaired: 4 ms."""

_members = msgspec.json.Decoder(dict[str, Raw]).decode
_items = msgspec.json.Decoder(list[Raw]).decode


def canonical(text: bytes | Raw, kind: type) -> bytes:
    """Return the canonical form of a JSON value for the type `kind`.

    A `null` is left out where the type has no use for it, and a whole number is written without a fraction.
    Unknown members are left out too. Everything else stays, so that decoding the result says what is wrong
    with it.
    """
    return bytes(_value(Raw(bytes(text)), _type_of(kind)))


@cache
def _type_of(kind: type) -> inspect.Type:
    return inspect.type_info(kind)


def _value(value: Raw, kind: inspect.Type) -> Raw:
    match kind:
        case inspect.Metadata():
            return _value(value, kind.type)
        case inspect.UnionType():
            return _alternative(value, kind.types)
        case inspect.StructType():
            return _struct(value, kind)
        case inspect.DictType():
            return _named_entries(value, kind.value_type)
        case inspect.ListType():
            return _list(value, kind)
        case inspect.IntType():
            return _whole_number(value)
        case _:
            return value


def _alternative(value: Raw, kinds: Iterable[inspect.Type]) -> Raw:
    """The canonical form by the first type of a union that changes the value."""
    for kind in kinds:
        changed = _value(value, kind)
        if changed is not value:
            return changed
    return value


def _struct(value: Raw, kind: inspect.StructType) -> Raw:
    types = {field.encode_name: field.type for field in kind.fields}
    try:
        read = _known_members(tuple(types)).decode(value)
    except (msgspec.DecodeError, RecursionError):
        return value
    members = zip(types, msgspec.structs.astuple(read), strict=True)
    kept = {
        name: _value(member, types[name])
        for name, member in members
        if member != ABSENT and (bytes(member) != NULL or _accepts_null(types[name]))
    }
    return Raw(msgspec.json.encode(kept))


@cache
def _known_members(names: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    """Reads the members of these names, undecoded. It skips others without making objects of them."""
    fields = {f"member_{number}": name for number, name in enumerate(names)}
    known = msgspec.defstruct("KnownMembers", [(field, Raw, ABSENT) for field in fields], rename=fields)
    return msgspec.json.Decoder(known)


def _named_entries(value: Raw, kind: inspect.Type) -> Raw:
    try:
        members = _members(value)
    except (msgspec.DecodeError, RecursionError):
        return value
    if len(members) > _MOST_MEMBERS:
        return value
    kept: dict[str, Raw] = {}
    for name, member in members.items():
        if bytes(member) != NULL or _accepts_null(kind):
            kept[name] = _value(member, kind)
        elif isinstance(kind, inspect.StructType):
            kept[name] = Raw(b"{}")  # the name counts by itself, as a channel without options
    return Raw(msgspec.json.encode(kept))


def _list(value: Raw, kind: inspect.ListType) -> Raw:
    """A list that is too long, and one of texts, cannot become valid: both stay, and so cost nothing."""
    item_type = kind.item_type.type if isinstance(kind.item_type, inspect.Metadata) else kind.item_type
    if isinstance(item_type, inspect.StrType):
        return value
    try:
        items = _items(value)
    except (msgspec.DecodeError, RecursionError):
        return value
    if kind.max_length is not None and len(items) > kind.max_length:
        return value
    return Raw(msgspec.json.encode([_value(item, kind.item_type) for item in items]))


def _whole_number(value: Raw) -> Raw:
    text = bytes(value)
    if not (b"." in text or b"e" in text.lower()):
        return value
    try:
        number = Decimal(text.decode())
        is_whole = number.adjusted() < _LARGEST_EXPONENT and number == number.to_integral_value()
    except (InvalidOperation, ValueError):
        return value
    return Raw(str(int(number)).encode()) if is_whole else value


def is_set(payload: Raw) -> bool:
    """Whether an optional payload is there, and is not `null`."""
    return bool(payload) and bytes(payload) != NULL


def _accepts_null(kind: inspect.Type) -> bool:
    match kind:
        case inspect.Metadata():
            return _accepts_null(kind.type)
        case inspect.UnionType():
            return any(map(_accepts_null, kind.types))
        case _:
            return isinstance(kind, inspect.RawType | inspect.NoneType | inspect.AnyType)
