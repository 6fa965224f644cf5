"""Fossil deltas: a payload as its difference from another one, for clients that have the other.

    size LF  {count@offset, | count:bytes}  checksum;

A delta has the size of the result, then what it is made of in order: copies of the base and new bytes, then a
checksum. Numbers have digits of 64 (https://fossil-scm.org/home/doc/trunk/www/delta_format.wiki). A delta of
UTF-8 is itself UTF-8, so that JSON can carry it: copies begin and end between characters.

What a delta costs is bounded. Where base and result have much in common it is about 10 µs for one KiB. Where
they have little, a limited search is made, and the rest counts as new bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import unpack

LARGEST_BYTES = 262_144
"""A larger payload is always sent whole: its checksum alone would take a millisecond."""

_SMALLEST_BYTES = 24
"""No delta of a smaller payload saves anything: numbers and checksum have about 20 bytes."""

_BLOCKS = 512
"""At so many offsets at most, evenly spread, the base is compared with the result."""

_STEPS = 4096
"""How many offsets of the result are compared with those blocks: 0.1 µs each."""

_STEPS_FOR_COPY = 20
"""What a copy counts for, in these steps."""

_LEAST_COPY = 8
"""A shorter copy takes about as many bytes as it saves."""

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"


def encode_delta(base: bytes, result: bytes) -> bytes | None:
    """Return the delta that makes `result` of `base`, or None if it would not be smaller than `result`."""
    if not _SMALLEST_BYTES <= len(result) <= LARGEST_BYTES or not base or len(base) > LARGEST_BYTES:
        return None
    is_between_characters = _boundaries(result)
    start = _common_prefix(base, result)
    while not is_between_characters(start):
        start -= 1
    end = len(result) - _common_suffix(base[start:], result[start:])
    while not is_between_characters(end):
        end += 1
    parts = [b"%b\n" % _number(len(result))]
    if start:
        parts.append(_copy(0, start))
    if start < end:
        _add_middle(parts, base, result, start, end, is_between_characters)
    if end < len(result):
        parts.append(_copy(end + len(base) - len(result), len(result) - end))
    parts.append(b"%b;" % _number(_checksum(result)))
    delta = b"".join(parts)
    return delta if len(delta) < len(result) else None


def _add_middle(
    parts: list[bytes],
    base: bytes,
    result: bytes,
    start: int,
    end: int,
    is_between_characters: Callable[[int], bool],
) -> None:
    """Add what makes `result[start:end]`: copies of blocks that the base has, and the bytes between them."""
    stride = max(4, len(base) // _BLOCKS)
    size = 2 * _LEAST_COPY if stride > _LEAST_COPY else _LEAST_COPY
    steps = _STEPS
    added = position = start  # everything before `added` is in `parts`
    last = end - size
    if position <= last:
        offsets = {base[at : at + size]: at for at in range(0, len(base) - size + 1, stride)}
        while position <= last and steps > 0:
            steps -= 1
            at = offsets.get(result[position : position + size])
            if at is None:
                position += 1
                continue
            steps -= _STEPS_FOR_COPY
            before = _common_suffix(base[max(0, at - stride) : at], result[added:position])
            first = position - before
            until = position + size + _common_run(base, at + size, result, position + size, end)
            shift = at - position  # from an offset in the result to that in the base
            while not is_between_characters(first):
                first += 1
            while not is_between_characters(until):
                until -= 1
            position = max(until, position + 1)
            if until - first >= _LEAST_COPY:
                if added < first:
                    parts.append(_new(result[added:first]))
                parts.append(_copy(first + shift, until - first))
                added = until
    if added < end:
        parts.append(_new(result[added:end]))


def _boundaries(text: bytes) -> Callable[[int], bool]:
    """Return whether an offset is between characters; always true in ASCII, and in what is not UTF-8."""
    if text.isascii():
        return _always
    try:
        text.decode()
    except UnicodeDecodeError:
        return _always
    size = len(text)
    return lambda offset: offset >= size or text[offset] & 0xC0 != 0x80


def _always(_offset: int) -> bool:
    return True


def _common_prefix(one: bytes, other: bytes) -> int:
    """How many bytes both begin with. The first bit that differs is the highest of both numbers' XOR."""
    size = min(len(one), len(other))
    differing = int.from_bytes(one[:size]) ^ int.from_bytes(other[:size])
    return size - (differing.bit_length() + 7) // 8


def _common_suffix(one: bytes, other: bytes) -> int:
    """How many bytes both end with."""
    size = min(len(one), len(other))
    if not size:
        return 0
    differing = int.from_bytes(one[-size:], "little") ^ int.from_bytes(other[-size:], "little")
    return size - (differing.bit_length() + 7) // 8


def _common_run(base: bytes, at: int, result: bytes, position: int, end: int) -> int:
    """How many bytes from `at` and from `position` are the same, looking ever further while they are."""
    found, ahead = 0, 64
    while True:
        ahead = min(ahead, end - position - found)
        same = _common_prefix(
            base[at + found : at + found + ahead], result[position + found : position + found + ahead]
        )
        found += same
        if same < ahead or not ahead:
            return found
        ahead *= 2


def _copy(offset: int, size: int) -> bytes:
    return b"%b@%b," % (_number(size), _number(offset))


def _new(data: bytes) -> bytes:
    return b"%b:%b" % (_number(len(data)), data)


def _number(number: int) -> bytes:
    digits = _DIGITS[number & 63]
    while number := number >> 6:
        digits = _DIGITS[number & 63] + digits
    return digits.encode()


def _checksum(data: bytes) -> int:
    """The sum of all words of 32 bits, the last one filled up with zeros."""
    count = -(-len(data) // 4)
    words: tuple[int, ...] = unpack(f">{count}I", data.ljust(4 * count, b"\0"))
    return sum(words) & 0xFFFFFFFF
