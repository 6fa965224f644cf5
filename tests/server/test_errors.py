"""The table of reasons: all that the protocol names (§7 to §9, §14), in its words."""

from tocsin_server import errors
from tocsin_server.errors import Disconnect, Refusal, Unsubscribed

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
COME_BACK = {
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
STAY_AWAY = {
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
    closes = [reason for reason in TABLE if isinstance(reason, Disconnect)]
    assert {(reason.code, reason.reason) for reason in closes if reason.may_reconnect} == COME_BACK
    assert {(reason.code, reason.reason) for reason in closes if not reason.may_reconnect} == STAY_AWAY
    ends = [reason for reason in TABLE if isinstance(reason, Unsubscribed)]
    assert {(reason.code, reason.reason) for reason in ends} == UNSUBSCRIBED


def test_the_refusals_that_time_mends_say_so() -> None:
    """A client tries again by itself."""
    temporary = {reason.message for reason in TABLE if isinstance(reason, Refusal) and reason.temporary}
    assert temporary == {"internal server error", "too many requests", "concurrent pagination"}
