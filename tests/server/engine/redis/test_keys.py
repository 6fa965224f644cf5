"""Keys: all names of a channel are in one slot of a cluster, and no two things have the same name."""

from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from tocsin_server.engine.redis.cluster.slots import hash_tags
from tocsin_server.engine.redis.keys import Keys

KEYS = Keys("tocsin")
NAMES = st.text(alphabet="a}{%:logidem7D25", max_size=12) | st.sampled_from(
    [
        "",
        "a:idem:x",
        "}:idem:",
        "{a}",
        "a}:log",
        "a\0b",
        "a\nb",
        "*",
        "a b",
        "user:{a}",
        "nodes",
        "é",
        "x" * 1000,
    ]
)


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


@given(NAMES, NAMES)
def test_all_names_of_a_channel_are_in_one_slot(channel: str, idempotency_key: str) -> None:
    """Otherwise one script could not use them together."""
    assert len({key_slot(name.encode()) for name in names_of(channel, idempotency_key)}) == 1


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


@given(NAMES, NAMES, NAMES)
def test_names_of_users_and_nodes_are_those_of_no_channel(user: str, channel: str, key: str) -> None:
    """Nor has another user the same."""
    own = {KEYS.nodes, KEYS.secret, KEYS.control, KEYS.epochs(channel), f"{KEYS.epochs(channel)}:1000"}
    own |= {KEYS.lease_channels("n.x"), KEYS.lease_reaper("n.x"), KEYS.responses("n"), KEYS.probe("n")}
    own.add(KEYS.connections(user))
    assert len(own) == 10
    assert not own & set(names_of(channel, key))
    assert (KEYS.connections(user) == KEYS.connections(channel)) == (user == channel)


@given(NAMES, NAMES, NAMES)
def test_the_initial_epoch_is_in_the_slot_of_its_channel(channel: str, other: str, key: str) -> None:
    """On a cluster. No channel has a key of that name, and there are as many of them as slots."""
    keys = Keys("tocsin", slot_tags=hash_tags())
    name = keys.epochs(channel)
    assert key_slot(name.encode()) == key_slot(keys.meta(channel).encode())
    assert key_slot(f"{name}:1000".encode()) == key_slot(name.encode())
    assert name not in names_of(other, key)


def test_each_slot_has_a_hash_tag() -> None:
    """So there are as many names of the initial epoch."""
    assert [key_slot(f"t:{{{tag}}}:epochs".encode()) for tag in hash_tags()] == list(range(16384))
