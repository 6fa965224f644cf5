"""Deltas that the server makes, applied by other implementations: centrifuge-python's and centrifuge-js's."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.fossil import apply_delta
from tocsin_server.core.fossil import LARGEST_BYTES, encode_delta

words = st.lists(st.text('ab é€😀"{}:,1', min_size=1, max_size=30), min_size=1, max_size=8)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Two payloads that are made of the same words, in another order."""
    vocabulary = st.sampled_from(draw(words))
    one, other = (draw(st.lists(vocabulary, max_size=20)) for _ in range(2))
    return "".join(one).encode(), "".join(other).encode()


@given(pairs())
@example((b"x" * 100, b"x" * 100))
@example(("é".encode() * 50, b"\xa9" + "é".encode() * 50))
def test_a_delta_makes_exactly_the_payload(pair: tuple[bytes, bytes]) -> None:
    """It is smaller. If the payload is UTF-8, so is the delta."""
    base, result = pair
    delta = encode_delta(base, result)
    if delta is not None:
        assert apply_delta(base, delta) == result
        assert len(delta) < len(result)
        if _is_utf8(result):
            delta.decode()


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=200))
def test_a_delta_of_binary_payloads_makes_exactly_the_payload(one: bytes, two: bytes, other: bytes) -> None:
    base, result = one + two, one + other + two
    delta = encode_delta(base, result)
    assert delta is None or apply_delta(base, delta) == result


def test_a_small_change_makes_a_small_delta() -> None:
    """Also two of them in one payload, and a part that has moved."""
    fields = {f"name{number}": f"value {number} of something" for number in range(20)}
    base = json.dumps(fields).encode()
    changed = json.dumps({**fields, "name3": "other", "name15": "another"}).encode()
    moved = json.dumps({"name19": fields.pop("name19"), **fields}).encode()
    for result in (changed, moved):
        delta = encode_delta(base, result)
        assert delta is not None
        assert len(delta) < 100 < len(result)
        assert apply_delta(base, delta) == result


def test_the_search_is_bounded() -> None:
    """A payload whose parts have all moved gets some copies; what is far behind something new, none."""
    parts = [f"{number:05d}" * 12 for number in range(2000)]
    base, moved = "".join(parts).encode(), "".join(reversed(parts)).encode()
    delta = encode_delta(base, moved)
    assert delta is not None
    assert 1 < delta.count(b"@") < 210  # 4096 steps, 20 for each copy
    assert apply_delta(base, delta) == moved
    new = "".join(chr(33 + number * number % 59) for number in range(20_000)).encode()
    assert encode_delta(base[:120], new + base[:120] + b"end") is None
    assert encode_delta(base[:120], new[:40] + base[:120] + b"end") is not None


@pytest.mark.parametrize(
    ("base", "result"),
    [
        (b"", b"x" * 100),
        (b"x" * 100, b"short"),
        (b"x" * (LARGEST_BYTES + 1), b"x" * 100),
        (b"x" * 100, b"x" * (LARGEST_BYTES + 1)),
        (b"one thing that was published before", b"0123456789 another with no relation to it"),
    ],
)
def test_there_is_no_delta_where_it_would_not_be_smaller_or_cost_too_much(base: bytes, result: bytes) -> None:
    assert encode_delta(base, result) is None
