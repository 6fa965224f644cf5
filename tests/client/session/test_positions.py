"""Position arithmetic of one channel."""

from hypothesis import given
from hypothesis import strategies as st

from tocsin.models import Position, Subscribed
from tocsin.protocol.messages import SubscribeResult, WirePublication
from tocsin.session.positions import PositionTracker, Verdict

offsets = st.integers(min_value=1, max_value=12)


def result(offset: int, **more: object) -> SubscribeResult:
    given_fields = {"recoverable": True, "positioned": True, "epoch": "E", "offset": offset, **more}
    return SubscribeResult(**given_fields)  # type: ignore[arg-type]


@given(st.integers(min_value=0, max_value=5), st.lists(offsets))
def test_of_live_publications_only_the_next_offset_passes(start: int, arriving: list[int]) -> None:
    tracker = PositionTracker("news")
    tracker.go_live(result(start))
    passed = [start]
    for offset in arriving:
        verdict = tracker.check(WirePublication(offset, offset))
        assert verdict is (
            Verdict.NEXT
            if offset == passed[-1] + 1
            else Verdict.DUPLICATE
            if offset <= passed[-1]
            else Verdict.AHEAD
        )
        if verdict is Verdict.NEXT:
            passed.append(offset)
    assert passed == list(range(start, start + len(passed)))


@given(st.integers(min_value=0, max_value=5), st.lists(offsets), st.booleans())
def test_recovered_publications_rise_without_a_gap_or_the_gap_is_reported(
    since: int, offsets: list[int], recovered: bool
) -> None:
    tracker = PositionTracker("news", Position(since, "E"))
    publications = [WirePublication(offset, offset) for offset in offsets]
    live, *missed = tracker.go_live(result(since, recovered=recovered, publications=publications))
    assert isinstance(live, Subscribed)
    seen = [since, *(one.offset for one in missed if not isinstance(one, Subscribed))]
    assert seen == sorted(set(seen))
    if live.recovered:
        assert seen == list(range(since, since + len(seen)))
    assert tracker.position == Position(seen[-1], "E")


def test_recovered_in_another_epoch_is_not_recovered() -> None:
    """Offsets compare only within one epoch, even if the server reports `recovered`."""
    tracker = PositionTracker("news", Position(5, "old"))
    assert tracker.go_live(result(2, recovered=True)) == [Subscribed("news", False, Position(2, "E"))]


def test_an_empty_epoch_matches_any() -> None:
    tracker = PositionTracker("news", Position(0, ""))
    [live, first] = tracker.go_live(result(0, recovered=True, publications=[WirePublication("x", 1)]))
    assert live == Subscribed("news", True, Position(0, "E"))
    assert getattr(first, "position", None) == Position(1, "E")


def test_a_channel_that_is_not_positioned_counts_from_its_first_offset() -> None:
    tracker = PositionTracker("news")
    tracker.go_live(SubscribeResult())
    assert tracker.check(WirePublication("x", 7)) is Verdict.NEXT
    assert tracker.check(WirePublication("x", 7)) is Verdict.DUPLICATE
    assert tracker.check(WirePublication("x", 9)) is Verdict.AHEAD
    assert tracker.check(WirePublication("x")) is Verdict.NEXT


def test_a_forgotten_position_is_reported_as_not_recovered() -> None:
    tracker = PositionTracker("news")
    tracker.go_live(result(3))
    tracker.forget()
    assert tracker.go_live(result(3)) == [Subscribed("news", False, Position(3, "E"))]
