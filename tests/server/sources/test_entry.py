"""Entries of sources: which publications they ask for, and what makes one invalid."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, structs

from tocsin_server.protocol.payloads import Binary
from tocsin_server.sources.entry import KEPT_SECONDS, InvalidEntry, SourceEntry, new_publication

ENTRY = SourceEntry("1", "chat:1", "k", data=b"1")


def entry(**members: object) -> SourceEntry:
    return structs.replace(ENTRY, **members)


def test_a_publication_has_what_its_entry_has() -> None:
    """Its key is remembered for days, in case that the entry cannot be removed before."""
    found = new_publication(
        entry(
            data=b'{\n"a": 1}',
            tags=b'{"lang": "en"}',
            options=b'{"skip_history": true, "delta": true, "version": 3, "version_epoch": "e"}',
        )
    )
    assert found.data == Raw(b'{"a": 1}')
    assert found.tags == {"lang": "en"}
    assert (found.skip_history, found.delta, found.version, found.version_epoch) == (True, True, 3, "e")
    assert (found.idempotency_key, found.idempotency_seconds) == ("k", KEPT_SECONDS)


def test_other_bytes_are_kept_and_json_in_them_is_json() -> None:
    """As for `b64data` of the HTTP API."""
    assert new_publication(entry(data=None, binary_data=b"\x00")).data == Binary(b"\x00")
    assert new_publication(entry(data=None, binary_data=b"7")).data == Raw(b"7")


@pytest.mark.parametrize("null", [{"tags": b"null"}, {"options": b"null"}, {"options": b""}])
def test_null_counts_as_absent(null: dict[str, bytes]) -> None:
    """Object-relational mappers write it."""
    assert new_publication(entry(**null)) == new_publication(ENTRY)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"data": None}, "it has neither data nor binary_data, and needs one of them"),
        ({"binary_data": b"1"}, "it has both data and binary_data, and needs one of them"),
        ({"data": None, "binary_data": b""}, "binary_data is empty"),
        ({"data": b"{"}, "data is no JSON: Input data was truncated"),
        ({"data": b'"\xff"'}, "data is no JSON: it is not UTF-8"),
        ({"data": b"["* 10_000}, "data is no JSON: "),
        ({"tags": b"[]"}, "tags is no JSON object of strings: "),
        ({"tags": b'{"a": 1}'}, "tags is no JSON object of strings: "),
        ({"options": b'{"skip": true}'}, "options is not valid: Object contains unknown field `skip`"),
        ({"options": b'{"version": -1}'}, "options is not valid: Expected `int` >= 0"),
        ({"problem": "it is too large"}, "it is too large"),
    ],
)  # fmt: skip
def test_what_is_invalid_has_a_reason(members: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidEntry) as raised:
        new_publication(entry(**members))
    assert str(raised.value).startswith(reason)


MEMBERS = ("data", "binary_data", "tags", "options")


@given(st.fixed_dictionaries({}, optional={name: st.none() | st.binary() for name in MEMBERS}))
def test_any_bytes_are_published_or_invalid(members: dict[str, bytes | None]) -> None:
    """Nothing else is raised."""
    with contextlib.suppress(InvalidEntry):
        assert new_publication(entry(**members)).idempotency_key == "k"
