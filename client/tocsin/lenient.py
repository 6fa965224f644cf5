"""JSON exactly as RFC 8259 allows it, for the few texts a fast strict codec refuses.

A payload is its publisher's business: a lone surrogate escape, 1e999 or ten thousand brackets are valid
JSON, and must not cost a subscriber its connection. Nothing here recurses, so depth costs memory only. Slow:
called after a refusal.
"""

from __future__ import annotations

import re
from json import dumps
from json.decoder import scanstring  # type: ignore[attr-defined]  # public, but typeshed lacks it
from math import isfinite, isnan
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_LITERALS = {"true": True, "false": False, "null": None}
_INTEGER_DIGITS = 4000  # int() refuses more than 4300, against quadratic time


def decode(text: str) -> Any:
    """Decode one JSON text; numbers too large become infinite. ``ValueError`` when it is not JSON."""
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
    """Read a scalar whole, or the opening bracket of a container."""
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
    """Close what ends here, and stop where the next value begins, its key read."""
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
    """Encode what ``decode`` gives: compact, in ASCII, infinite numbers as 1e999, always valid."""
    parts: list[str] = []
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, _Text):
            parts.append(item)
        elif isinstance(item, dict):
            waiting.extend(reversed(_spread_object(item)))
        elif isinstance(item, list | tuple):
            waiting.extend(reversed(_spread_array(item)))
        else:
            parts.append(_encode_scalar(item))
    return "".join(parts)


class _Text(str):
    """Text that is written as it is."""

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
