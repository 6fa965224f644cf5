"""The meaning of error codes and close codes (protocol §7 to §9)."""

import pytest

from tocsin import BadProtocol, CallError, Disconnected, PermissionDenied, SubscriptionEnded, Unauthorized
from tocsin.errors import call_error, disconnect_error, is_temporary, may_reconnect, subscription_error


@pytest.mark.parametrize(
    ("first", "last", "may"),
    [
        (0, 1008, True),
        (1009, 1009, False),
        (1010, 3499, True),
        (3500, 3999, False),
        (4000, 4499, True),
        (4500, 4999, False),
        (5000, 5001, True),
    ],
)
def test_the_range_of_a_close_code_decides_about_reconnecting(first: int, last: int, may: bool) -> None:
    assert {may_reconnect(code) for code in (first, last)} == {may}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (1, Unauthorized),
        (2, BadProtocol),
        (101, Unauthorized),
        (109, Unauthorized),
        (3500, Unauthorized),
        (3503, Disconnected),
        (3507, PermissionDenied),
    ],
)
def test_a_final_disconnect_has_its_exception(code: int, error: type[Exception]) -> None:
    assert type(disconnect_error(code, "reason")) is error


def test_permission_denied_is_a_call_error_of_its_own() -> None:
    assert type(call_error(103, "permission denied")) is PermissionDenied
    assert type(call_error(102, "unknown channel")) is CallError
    assert str(call_error(102, "unknown channel")) == "unknown channel (error 102)"


def test_the_end_of_a_subscription_has_its_exception() -> None:
    assert type(subscription_error("news", 103, "no")) is PermissionDenied
    assert type(subscription_error("news", 1, "no")) is Unauthorized
    ended = subscription_error("news", 2000, "server unsubscribe")
    assert isinstance(ended, SubscriptionEnded)
    assert (ended.channel, ended.code, ended.reason) == ("news", 2000, "server unsubscribe")


def test_temporary_errors_and_an_expired_token_permit_another_attempt() -> None:
    assert is_temporary(100, True)
    assert is_temporary(109, False)
    assert is_temporary(99, False)
    assert not is_temporary(103, False)
