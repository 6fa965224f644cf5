"""Keys: all names of a channel are in one slot of a cluster, and no two things have the same name."""

from hypothesis import given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from tocsin_server.engine.redis.keys import Keys

KEYS = Keys("tocsin")
NAMES = st.text(alphabet="a}{%:logidem7D25", max_size=12)


def names_of(channel: str, idempotency_key: str) -> list[str]:
    """All names of a channel."""
    return [
        KEYS.pubsub_name(channel),
        KEYS.history(channel),
        KEYS.meta(channel),
        KEYS.presence(channel),
        KEYS.users(channel),
        KEYS.idempotency(channel, idempotency_key),
    ]


@settings(deadline=None)
@given(NAMES, NAMES)
def test_all_names_of_a_channel_are_in_one_slot(channel: str, idempotency_key: str) -> None:
    """Otherwise one script could not use them together."""
    assert len({key_slot(name.encode()) for name in names_of(channel, idempotency_key)}) == 1


@settings(deadline=None)
@given(NAMES, NAMES, NAMES, NAMES)
def test_different_things_have_different_names(a: str, key_a: str, b: str, key_b: str) -> None:
    """In one channel and in two, for all channels and idempotency keys."""
    ours, theirs = names_of(a, key_a), names_of(b, key_b)
    assert len(set(ours)) == len(ours)
    if a != b:
        assert not set(ours) & set(theirs)
    assert (KEYS.idempotency(a, key_a) == KEYS.idempotency(b, key_b)) == ((a, key_a) == (b, key_b))


def test_the_names_are_as_documented() -> None:
    """Operators may look at them with other tools."""
    assert names_of("chat:1", "k") == [
        "tocsin:{chat:1}",
        "tocsin:{chat:1}:log",
        "tocsin:{chat:1}:meta",
        "tocsin:{chat:1}:presence",
        "tocsin:{chat:1}:users",
        "tocsin:{chat:1}:idem:k",
    ]
    assert [KEYS.nodes, KEYS.control] == ["tocsin:nodes", "tocsin:control"]
    assert KEYS.lease_channels("n1.x") == "tocsin:node:n1.x:channels"
