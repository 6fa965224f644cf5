"""What a fault may do besides losing something, and what it may not."""

from dataclasses import replace
from typing import Any

import pytest

from tests.faults.fault_environment import CHANNELS, Fault, Logs, Seen, Stage


async def strike(_: Stage[Any]) -> None: ...


SEEN = Seen(detected_seconds=2.9, lasted_seconds=4, published=40, rate=200)
"""As it should be for a node that was deaf."""
ALL = len(CHANNELS)


@pytest.fixture
def fault() -> Fault[Any]:
    return Fault("something", strike, "a sign", sign_seconds=3, lets_publish=True)


def test_what_was_noticed_in_time_while_publishers_went_on_is_as_promised(fault: Fault[Any]) -> None:
    assert not fault.complain(SEEN)


@pytest.mark.parametrize(
    ("seen", "complaint"),
    [
        (replace(SEEN, detected_seconds=25.0), "noticed after 25.0 s"),
        (replace(SEEN, detected_seconds=None), "nobody noticed it"),
        (replace(SEEN, published=39), "only 39 publications in 4.0 s"),
        (replace(SEEN, is_published_after=False), "nobody published any more"),
        (replace(SEEN, ended=2), "2 connections ended"),
        (replace(SEEN, dead=1), f"1 of {ALL} logs died"),
        (replace(SEEN, untold=1), "1 should have been told and were not, 0 the other way round"),
        (replace(SEEN, overtold=1), "0 should have been told and were not, 1 the other way round"),
    ],
)
def test_what_is_not_as_promised_is_complained_of(fault: Fault[Any], seen: Seen, complaint: str) -> None:
    assert fault.complain(seen) == [complaint]


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"sign_seconds": float("inf")}, replace(SEEN, detected_seconds=25.0)),
        ({"lets_publish": False}, replace(SEEN, published=0)),
        ({"ends_connections": True}, replace(SEEN, ended=2)),
        ({"logs": Logs.MAY_DIE}, replace(SEEN, dead=1)),
        ({"logs": Logs.DIE}, replace(SEEN, dead=ALL)),
    ],
)
def test_some_faults_may_do_what_others_may_not(
    fault: Fault[Any], change: dict[str, Any], seen: Seen
) -> None:
    assert not replace(fault, **change).complain(seen)


def test_where_nobody_should_notice_a_sign_is_a_complaint(fault: Fault[Any]) -> None:
    unseen = replace(fault, sign="")
    assert not unseen.complain(replace(SEEN, detected_seconds=None))
    assert unseen.complain(SEEN) == ["somebody noticed something"]


def test_where_all_logs_die_none_may_live(fault: Fault[Any]) -> None:
    assert replace(fault, logs=Logs.DIE).complain(replace(SEEN, dead=ALL - 1))
