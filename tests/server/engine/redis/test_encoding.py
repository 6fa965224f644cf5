"""The encoding: values survive it unchanged, and payloads are never parsed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tocsin_server.engine.redis import encoding
from tocsin_server.protocol.messages import NO_JSON, ClientInfo, PresenceChange, Publication, Push
from tocsin_server.protocol.payloads import Binary

INFOS = st.builds(
    ClientInfo,
    st.text(),
    st.text(),
    st.one_of(st.just(NO_JSON), st.text(min_size=1).map(lambda text: Raw(text.encode()))),
    st.one_of(st.just(NO_JSON), st.text(min_size=1).map(lambda text: Raw(text.encode()))),
)


@given(
    st.binary(min_size=1),
    st.one_of(st.none(), INFOS),
    st.one_of(st.none(), st.dictionaries(st.text(), st.text(), max_size=3)),
    st.integers(0, 2**63 - 1),
    st.text(alphabet="abcXYZ"),
)
def test_a_publication_survives_encoding(
    data: bytes, info: ClientInfo | None, tags: dict[str, str] | None, offset: int, epoch: str
) -> None:
    """Data that is not JSON on one line stays marked as such."""
    for payload in (Raw(data), Binary(data)):
        body = encoding.encode_body(payload, info, tags)
        message = encoding.PUBLICATION + f"5 {offset} {epoch}\n".encode() + body
        decoded, *rest = encoding.decode_publication(message)
        assert (decoded, rest) == (Publication(payload, offset, info, tags), [epoch, 5])
        assert type(decoded.data) is type(payload)
        unlogged = encoding.publication_without_history(encoding.PUBLICATION, 7, body)
        assert encoding.decode_publication(unlogged) == (Publication(payload, 0, info, tags), "", 7)


@given(INFOS)
def test_joins_leaves_and_presence_entries_survive_encoding(info: ClientInfo) -> None:
    """An absent payload stays absent."""
    for push in (Push("news", join=PresenceChange(info)), Push("news", leave=PresenceChange(info))):
        assert encoding.decode_push("news", encoding.encode_push(push)) == push
    decoded = encoding.decode_presence_entry(encoding.encode_presence_entry("n1.x", True, info))
    assert decoded == info
    assert (decoded.conn_info is NO_JSON) == (info.conn_info is NO_JSON)


def test_other_pushes_cannot_be_encoded() -> None:
    """Such a push is a mistake of the caller."""
    with pytest.raises(ValueError, match="only joins and leaves can be encoded"):
        encoding.encode_push(Push("news"))
