"""The parts of a token: each value has one text in base64url (RFC 4648 §5)."""

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_server.core.signed_token import take_apart

HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256"}').decode().rstrip("=")


def payload_of(part: str) -> bytes | None:
    """The payload of a token with this part; None if the part is no base64url."""
    try:
        return take_apart(f"{HEADER}.{part}.").payload
    except ValueError:
        return None


@given(st.binary(max_size=40))
def test_a_part_is_read_with_and_without_its_padding(payload: bytes) -> None:
    """Some load balancers add the padding."""
    padded = base64.urlsafe_b64encode(payload).decode()
    assert payload_of(padded) == payload_of(padded.rstrip("=")) == payload


@given(st.text(string.ascii_letters + string.digits + "-_+/= \n!", max_size=12))
def test_no_other_text_has_the_same_value(part: str) -> None:
    """What is read encodes to the text that it was read from."""
    payload = payload_of(part)
    if payload is not None:
        assert base64.urlsafe_b64encode(payload).decode().rstrip("=") == part.rstrip("=")


@pytest.mark.parametrize("part", ["A", "AB", "ABC", "AA=", "AA===", "A+AA", "A/AA", "AA AA", "AA=A"])
def test_a_text_that_is_no_base64url_is_refused(part: str) -> None:
    """A group of one character, unused bits that are set, wrong padding, another alphabet."""
    assert payload_of(part) is None
