"""Position arithmetic of one channel."""

from hypothesis import given
from hypothesis import strategies as st

from tocsin.protocol import SubscribeResult, WirePublication
from tocsin.stream import Stream, Verdict
from tocsin.values import Position, Subscribed

offsets = st.integers(min_value=1, max_value=12)


def result(offset: int, **more: object) -> SubscribeResult:
    given_fields = {"recoverable": True, "positioned": True, "epoch": "E", "offset": offset, **more}
    return SubscribeResult(**given_fields)  # type: ignore[arg-type]


@given(st.integers(min_value=0, max_value=5), st.lists(offsets))
def test_whatever_arrives_live_only_the_next_offset_passes(start: int, arriving: list[int]) -> None:
    stream = Stream("news")
    stream.begin(result(start))
    passed = [start]
    for offset in arriving:
        verdict = stream.offer(WirePublication(offset, offset))
        assert verdict is (
            Verdict.NEXT
            if offset == passed[-1] + 1
            else Verdict.DUPLICATE
            if offset <= passed[-1]
            else Verdict.HOLE
        )
        if verdict is Verdict.NEXT:
            passed.append(offset)
    assert passed == list(range(start, start + len(passed)))


@given(st.integers(min_value=0, max_value=5), st.lists(offsets), st.booleans())
def test_whatever_is_recovered_is_rising_and_whole_or_told(
    since: int, offsets: list[int], recovered: bool
) -> None:
    stream = Stream("news", Position(since, "E"))
    publications = [WirePublication(offset, offset) for offset in offsets]
    news, *missed = stream.begin(result(since, recovered=recovered, publications=publications))
    assert isinstance(news, Subscribed)
    seen = [since, *(one.offset for one in missed if not isinstance(one, Subscribed))]
    assert seen == sorted(set(seen))
    if news.recovered:
        assert seen == list(range(since, since + len(seen)))
    assert stream.position == Position(seen[-1], "E")


def test_recovered_in_another_epoch_is_not_recovered() -> None:
    """Offsets compare only within one epoch, whatever a server says."""
    stream = Stream("news", Position(5, "old"))
    assert stream.begin(result(2, recovered=True)) == [Subscribed("news", False, Position(2, "E"))]


def test_an_empty_epoch_matches_any() -> None:
    stream = Stream("news", Position(0, ""))
    [news, first] = stream.begin(result(0, recovered=True, publications=[WirePublication("x", 1)]))
    assert news == Subscribed("news", True, Position(0, "E"))
    assert getattr(first, "position", None) == Position(1, "E")


def test_a_channel_that_is_not_positioned_counts_from_its_first_offset() -> None:
    stream = Stream("news")
    stream.begin(SubscribeResult())
    assert stream.offer(WirePublication("x", 7)) is Verdict.NEXT
    assert stream.offer(WirePublication("x", 7)) is Verdict.DUPLICATE
    assert stream.offer(WirePublication("x", 9)) is Verdict.HOLE
    assert stream.offer(WirePublication("x")) is Verdict.NEXT


def test_a_forgotten_position_is_a_loss_at_the_next_begin() -> None:
    stream = Stream("news")
    stream.begin(result(3))
    stream.forget()
    assert stream.begin(result(3)) == [Subscribed("news", False, Position(3, "E"))]
