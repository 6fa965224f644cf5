"""JSON values as text: in valid UTF-8, and on one line."""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw

_check = msgspec.json.Decoder(Raw).decode

_MOST_ESCAPES = 20_000
"""A text with more backslashes is not repaired: replacing takes 5 ms then."""

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def replace_lone_surrogates(text: bytes) -> bytes:
    """Replace escaped halves of surrogate pairs by U+FFFD, as every UTF-8 encoder does.

    RFC 8259 §8.2 allows them and JavaScript writes them for a string that was cut in two, but decoders of
    UTF-8 reject them (docs/decisions/0004). A text with more than _MOST_ESCAPES backslashes stays as it is.
    """
    if text.count(b"\\") > _MOST_ESCAPES:
        return text
    return _ESCAPE.sub(lambda found: b"\\ufffd" if found[1] else found[0], text)


def compact(payload: bytes | Raw) -> Raw:
    """Remove line breaks from a JSON value, since they separate messages on every transport.

    JSON allows line breaks only between tokens, so the value stays the same.

    Raises ValueError if `payload` is not one JSON value in UTF-8.
    """
    text = bytes(payload)
    text.decode()
    try:
        _check(text)
    except msgspec.DecodeError as error:
        replaced = replace_lone_surrogates(text)
        if replaced != text:
            return compact(replaced)
        raise ValueError(str(error)) from None
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if b"\n" in text or b"\r" in text:
        text = text.replace(b"\n", b"").replace(b"\r", b"")
    return Raw(text.strip(b" \t"))
