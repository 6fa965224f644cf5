"""Sets of numbers as ranges."""

from hypothesis import given
from hypothesis import strategies as st

from tocsin.load.ranges import Ranges

numbers = st.lists(st.integers(min_value=1, max_value=30), unique=True)


def ranges(of: list[int]) -> Ranges:
    result = Ranges()
    for number in of:
        result.add(number)
    return result


@given(numbers, numbers)
def test_ranges_are_a_set_whatever_the_order_of_adding(some: list[int], others: list[int]) -> None:
    one, other = ranges(some), ranges(others)
    assert list(one) == sorted(some)
    assert len(one) == len(some)
    assert [number in one for number in range(32)] == [number in some for number in range(32)]
    assert set(one.minus(other)) == set(some) - set(others)
    assert one.top == max(some, default=0)
    for number in range(32):
        assert one.first_above(number) == min((n for n in some if n > number), default=None)


def test_what_came_in_order_is_one_range() -> None:
    assert ranges(list(range(1, 1000))).pairs == [(1, 999)]
