"""What the answer of a webhook's receiver means. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from email.utils import parsedate_to_datetime

from tocsin_server.core.delivery import Outcome, Result

GONE = 410

NOT_NOW = frozenset({408, 429, 502, 503, 504})
"""Statuses of a receiver that is not there, or asks to wait. They say nothing about the events."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})


def outcome_of(status: int, headers: Mapping[str, str], permanent: Collection[int], now: float) -> Outcome:
    """Return the outcome of an attempt that got an answer. `now` is in unix seconds."""
    if 200 <= status < 300:
        return Outcome(Result.DELIVERED, status=status)
    error = f"status {status}"
    if status == GONE:
        return Outcome(Result.GONE, error, status)
    if status in permanent:
        return Outcome(Result.REFUSED, error, status)
    retry_after = seconds_to_wait(headers.get("retry-after", ""), now)
    if status in NOT_NOW:
        return Outcome(Result.UNREACHABLE, error, status, retry_after)
    if status in REDIRECTS:
        error = f"status {status}, and redirects are not followed"
    return Outcome(Result.FAILED, error, status, retry_after)


def seconds_to_wait(value: str, now: float) -> float:
    """Return the seconds in a `Retry-After`, which has seconds or a date (RFC 9110 §10.2.3). Else 0."""
    text = value.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return 0.0
