"""What the answer of a receiver means."""

from __future__ import annotations

import pytest

from tocsin_server.core.delivery import Result
from tocsin_server.hooks.webhooks.answers import outcome_of, seconds_to_wait

NOW = 1_700_000_000.0
PERMANENT = (400, 413, 422)


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (200, Result.DELIVERED),
        (204, Result.DELIVERED),
        (299, Result.DELIVERED),
        (301, Result.FAILED),
        (307, Result.FAILED),
        (400, Result.REFUSED),
        (401, Result.FAILED),
        (404, Result.FAILED),
        (408, Result.UNREACHABLE),
        (410, Result.GONE),
        (422, Result.REFUSED),
        (429, Result.UNREACHABLE),
        (500, Result.FAILED),
        (502, Result.UNREACHABLE),
        (503, Result.UNREACHABLE),
        (599, Result.FAILED),
    ],
)
def test_each_status_has_its_result(status: int, result: Result) -> None:
    outcome = outcome_of(status, {}, PERMANENT, NOW)
    assert outcome.result is result
    assert outcome.status == status
    assert (result is Result.DELIVERED) == (outcome.error == "")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("0", 0),
        ("99999999999999", 999_999_999),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0),
        ("-5", 0),
        ("1e9", 0),
        ("soon", 0),
        ("", 0),
        ("Tue, 99 Nov 2023 22:14:20 GMT", 0),
    ],
)
def test_retry_after_has_seconds_or_a_date(value: str, seconds: float) -> None:
    assert seconds_to_wait(value, NOW) == seconds


def test_the_answer_that_asks_to_wait_says_how_long() -> None:
    assert outcome_of(503, {"retry-after": "30"}, PERMANENT, NOW).retry_after == 30
