"""Sets of numbers, stored as ranges."""

from hypothesis import given
from hypothesis import strategies as st

from tocsin_load.range_set import RangeSet

numbers = st.lists(st.integers(min_value=1, max_value=30), unique=True)


def range_set(of: list[int]) -> RangeSet:
    result = RangeSet()
    for number in of:
        result.add(number)
    return result


@given(numbers, numbers)
def test_a_range_set_is_a_set_for_any_order_of_adding(some: list[int], others: list[int]) -> None:
    one, other = range_set(some), range_set(others)
    assert list(one) == sorted(some)
    assert len(one) == len(some)
    assert [number in one for number in range(32)] == [number in some for number in range(32)]
    assert set(one.minus(other)) == set(some) - set(others)
    assert one.top == max(some, default=0)
    for number in range(32):
        assert one.first_above(number) == min((n for n in some if n > number), default=None)


def test_numbers_added_in_order_are_one_range() -> None:
    assert range_set(list(range(1, 1000))).pairs == [(1, 999)]
