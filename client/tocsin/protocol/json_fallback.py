"""A JSON codec for texts that msgspec refuses: it accepts every text that RFC 8259 allows (pure).

Lone surrogate escapes, 1e999 and ten thousand brackets are valid JSON. A payload that contains them must not
close the connections of its subscribers. The standard library's codec is no replacement: it recurses, so the
nesting that it accepts depends on the Python version and on the caller's stack. This one does not recurse;
deep nesting costs only memory. It is slow, and therefore used only after msgspec has refused a text.
"""

from __future__ import annotations

import re
from json import dumps
from json.decoder import scanstring  # type: ignore[attr-defined]  # public, but missing in typeshed
from math import isfinite, isnan
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_LITERALS = {"true": True, "false": False, "null": None}
_INTEGER_DIGITS = 4000  # int() refuses more than 4300, against quadratic time


def decode(text: str) -> Any:
    """Decode one JSON text. Numbers that are too large become infinite. Raises ``ValueError``."""
    root: list[Any] = []
    open_containers: list[list[Any] | dict[str, Any]] = []
    keys: list[str] = []
    at = _skip(text, 0)
    while True:
        value, at, is_container = _scan_value(text, at)
        parent: list[Any] | dict[str, Any] = open_containers[-1] if open_containers else root
        if isinstance(parent, dict):
            parent[keys.pop()] = value
        else:
            parent.append(value)
        if is_container:
            open_containers.append(value)
        at = _advance(text, at, open_containers, keys, just_opened=is_container)
        if not open_containers:
            break
    if at != len(text):
        raise ValueError(f"extra text at character {at}")
    return root[0]


def _scan_value(text: str, at: int) -> tuple[Any, int, bool]:
    """Read a scalar, or the opening bracket of a container."""
    head = text[at : at + 1]
    if head == "[":
        return [], at + 1, True
    if head == "{":
        return {}, at + 1, True
    if head == '"':
        return *scanstring(text, at + 1, True), False
    for word, value in _LITERALS.items():
        if text.startswith(word, at):
            return value, at + len(word), False
    number = _NUMBER.match(text, at)
    if number is None:
        raise ValueError(f"no JSON value at character {at}")
    digits = number.group()
    is_integer = number.group(1) is None and number.group(2) is None and len(digits) <= _INTEGER_DIGITS
    return (int(digits) if is_integer else float(digits)), number.end(), False


def _advance(
    text: str, at: int, containers: list[list[Any] | dict[str, Any]], keys: list[str], *, just_opened: bool
) -> int:
    """Close the containers that end here, and return the start of the next value, after its key."""
    may_close, needs_comma = True, not just_opened
    while containers:
        at = _skip(text, at)
        inside = containers[-1]
        if may_close and text[at : at + 1] == ("}" if isinstance(inside, dict) else "]"):
            containers.pop()
            at += 1
            needs_comma = True
            continue
        if needs_comma:
            if text[at : at + 1] != ",":
                raise ValueError(f"expected a comma at character {at}")
            at, needs_comma, may_close = at + 1, False, False
            continue
        return _scan_key(text, at, keys) if isinstance(inside, dict) else at
    return _skip(text, at)


def _scan_key(text: str, at: int, keys: list[str]) -> int:
    if text[at : at + 1] != '"':
        raise ValueError(f"expected a key at character {at}")
    key, at = scanstring(text, at + 1, True)
    keys.append(key)
    at = _skip(text, at)
    if text[at : at + 1] != ":":
        raise ValueError(f"expected a colon at character {at}")
    return _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def encode(value: Any) -> str:
    """Encode the values that ``decode`` returns: compact, in ASCII, infinite numbers as 1e999.

    Raises ``ValueError`` for NaN, and ``TypeError`` for other types.
    """
    parts: list[str] = []
    to_encode: list[Any] = [value]
    while to_encode:
        item = to_encode.pop()
        if isinstance(item, _Text):
            parts.append(item)
        elif isinstance(item, dict):
            to_encode.extend(reversed(_spread_object(item)))
        elif isinstance(item, list | tuple):
            to_encode.extend(reversed(_spread_array(item)))
        else:
            parts.append(_encode_scalar(item))
    return "".join(parts)


class _Text(str):
    """Text that is already encoded."""

    __slots__ = ()


def _spread_object(item: dict[str, Any]) -> list[Any]:
    spread: list[Any] = [_Text("{")]
    for number, (key, value) in enumerate(item.items()):
        spread += [_Text(("," if number else "") + dumps(key) + ":"), value]
    return [*spread, _Text("}")]


def _spread_array(items: list[Any] | tuple[Any, ...]) -> list[Any]:
    spread: list[Any] = [_Text("[")]
    for number, value in enumerate(items):
        spread += [_Text(","), value] if number else [value]
    return [*spread, _Text("]")]


def _encode_scalar(value: Any) -> str:
    if isinstance(value, float) and not isfinite(value):
        if isnan(value):
            raise ValueError("JSON has no NaN")
        return "1e999" if value > 0 else "-1e999"
    return dumps(value)
