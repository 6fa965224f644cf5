"""Headers of the request with which a client connected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tocsin_server.node.client_request import Headers

ENCODED: Any = vars(Headers)["_encoded"]


def encoded_until_now(headers: Any) -> Mapping[bytes, bytes] | None:
    """Return what is still encoded, and decode it, as another thread may do at this moment."""
    encoded: Mapping[bytes, bytes] | None = ENCODED.__get__(headers)
    if encoded is not None:
        headers._values = {name.decode(): value.decode() for name, value in encoded.items()}
        ENCODED.__set__(headers, None)
    return encoded


ReadByAnotherThread: type[Headers] = type(
    "ReadByAnotherThread", (Headers,), {"_encoded": property(encoded_until_now, ENCODED.__set__)}
)


@pytest.mark.parametrize(
    ("read", "expected"),
    [(lambda headers: headers["host"], "a.example"), (len, 1), (dict, {"host": "a.example"})],
    ids=["one", "number", "all"],
)
def test_headers_are_read_while_another_thread_decodes_them(
    read: Callable[[Headers], object], expected: object
) -> None:
    """As hooks do that are plain functions, of one connection."""
    assert read(ReadByAnotherThread({b"host": b"a.example"})) == expected
