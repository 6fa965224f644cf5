"""The table of refusals, disconnects and unsubscribes: those of docs/protocol.md §7 to §9 and §14."""

from tocsin_server import errors
from tocsin_server.errors import Disconnect, Refusal, Unsubscribed, unidirectional_disconnect

TABLE = [
    reason for reason in vars(errors).values() if isinstance(reason, Refusal | Disconnect | Unsubscribed)
]

REFUSALS = {
    (100, "internal server error"),
    (101, "unauthorized"),
    (102, "unknown channel"),
    (103, "permission denied"),
    (104, "method not found"),
    (104, "not found"),
    (105, "already subscribed"),
    (106, "limit exceeded"),
    (107, "bad request"),
    (108, "not available"),
    (109, "token expired"),
    (110, "expired"),
    (111, "too many requests"),
    (112, "unrecoverable position"),
    (113, "concurrent pagination"),
    (113, "conflict"),
}
RECONNECTING = {
    (3000, "connection closed"),
    (3001, "shutdown"),
    (3004, "internal server error"),
    (3005, "connection expired"),
    (3006, "subscription expired"),
    (3008, "slow"),
    (3009, "write error"),
    (3010, "insufficient state"),
    (3011, "force reconnect"),
    (3012, "no pong"),
    (3013, "too many requests"),
    (3014, "state invalidated"),
}
FINAL = {
    (3500, "invalid token"),
    (3501, "bad request"),
    (3502, "stale"),
    (3503, "force disconnect"),
    (3504, "connection limit"),
    (3505, "channel limit"),
    (3506, "inappropriate protocol"),
    (3507, "permission denied"),
    (3508, "not available"),
    (3509, "too many errors"),
}
UNSUBSCRIBED = {
    (2000, "server unsubscribe"),
    (2500, "insufficient state"),
    (2501, "subscription expired"),
    (2502, "state invalidated"),
}


def test_every_reason_of_the_protocol_is_in_the_table_and_no_other() -> None:
    refusals = [reason for reason in TABLE if isinstance(reason, Refusal)]
    assert {(reason.code, reason.message) for reason in refusals} == REFUSALS
    disconnects = [reason for reason in TABLE if isinstance(reason, Disconnect)]
    assert {(reason.code, reason.reason) for reason in disconnects if reason.may_reconnect} == RECONNECTING
    assert {(reason.code, reason.reason) for reason in disconnects if not reason.may_reconnect} == FINAL
    unsubscribes = [reason for reason in TABLE if isinstance(reason, Unsubscribed)]
    assert {(reason.code, reason.reason) for reason in unsubscribes} == UNSUBSCRIBED


def test_temporary_refusals_are_marked() -> None:
    """A client retries these by itself."""
    temporary = {reason.message for reason in TABLE if isinstance(reason, Refusal) and reason.temporary}
    assert temporary == {"internal server error", "too many requests", "concurrent pagination"}


def test_a_refused_connect_request_is_a_disconnect_on_unidirectional_transports() -> None:
    """A client that has no replies learns from the code whether it may come back (protocol §16)."""
    found = {
        reason.code: unidirectional_disconnect(reason).code for reason in TABLE if isinstance(reason, Refusal)
    }
    others = {code: found.pop(code) for code in (109, 110, 111)}
    assert others == {109: 3005, 110: 3005, 111: 3013}
    final = {code for code, found_code in found.items() if found_code == 3507}
    assert final == {101, 102, 103, 104, 107, 108}
    assert {found[code] for code in found.keys() - final} == {3004}
    assert unidirectional_disconnect(Refusal(103, "an application's", temporary=True)).code == 3004
    assert unidirectional_disconnect(Refusal(400, "an application's")).code == 3507
    assert unidirectional_disconnect(Refusal(400, "an application's", temporary=True)).code == 3004
