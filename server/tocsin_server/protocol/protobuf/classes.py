"""The classes of the `protobuf` library for the messages of the table, made when this module is imported.

They are in a pool of their own, so that a program may also have the classes of an SDK.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tocsin_server.protocol.protobuf.fields import (
    COMMAND,
    FILTER,
    PUSH,
    REPLY,
    Field,
    JsonOf,
    Kind,
    ListOf,
    MapOf,
    Message,
    Scalar,
)

_PACKAGE = "tocsin"

_Proto = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    Scalar.UINT32: _Proto.TYPE_UINT32,
    Scalar.UINT64: _Proto.TYPE_UINT64,
    Scalar.INT32: _Proto.TYPE_INT32,
    Scalar.INT64: _Proto.TYPE_INT64,
    Scalar.BOOL: _Proto.TYPE_BOOL,
    Scalar.STRING: _Proto.TYPE_STRING,
    Scalar.PAYLOAD: _Proto.TYPE_BYTES,
}


class _Schema:
    """A schema in the making. Message types are added with those of their fields, each once."""

    def __init__(self) -> None:
        self.file = descriptor_pb2.FileDescriptorProto(name="tocsin.proto", package=_PACKAGE, syntax="proto3")
        self._added: set[str] = set()

    def add(self, message: Message) -> str:
        """Add a message type, and return its full name."""
        name = message.struct.__name__
        if name not in self._added:
            self._added.add(name)
            described = self.file.message_type.add(name=name)
            for field_name, field in message.fields.items():
                self._add_field(described, field_name, field)
        return f".{_PACKAGE}.{name}"

    def _add_field(self, message: Any, name: str, field: Field) -> None:
        kind, label = field.kind, _Proto.LABEL_OPTIONAL
        if isinstance(kind, ListOf):
            kind, label = kind.item, _Proto.LABEL_REPEATED
        described = message.field.add(name=name, number=field.number, label=label)
        if isinstance(kind, MapOf):
            self._add_entry(message, described, kind.value)
        else:
            self._set_type(described, Scalar.PAYLOAD if isinstance(kind, JsonOf) else kind)

    def _add_entry(self, message: Any, field: Any, value: Kind) -> None:
        """Describe a map: repeated messages with a key and a value."""
        entry_name = "".join(map(str.capitalize, field.name.split("_"))) + "Entry"
        entry = message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        self._add_field(entry, "key", Field(1, Scalar.STRING))
        self._add_field(entry, "value", Field(2, value))
        field.label, field.type = _Proto.LABEL_REPEATED, _Proto.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{message.name}.{entry_name}"

    def _set_type(self, field: Any, kind: Kind) -> None:
        if isinstance(kind, Scalar):
            field.type = _TYPES[kind]
        elif isinstance(kind, Message):
            field.type, field.type_name = _Proto.TYPE_MESSAGE, self.add(kind)


def _classes(*messages: Message) -> list[Any]:
    schema = _Schema()
    names = [schema.add(message) for message in messages]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(schema.file)
    return [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(name.removeprefix("."))) for name in names
    ]


COMMAND_CLASS, REPLY_CLASS, PUSH_CLASS, FILTER_CLASS = _classes(COMMAND, REPLY, PUSH, FILTER)
