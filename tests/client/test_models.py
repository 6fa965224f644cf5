"""The values that a caller gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin import Position, Publication


@given(st.integers(0, 2**63 - 1), st.text())
def test_a_position_is_parsed_from_its_text(offset: int, epoch: str) -> None:
    position = Position(offset, epoch)
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize("text", ["", "5", "@E", "-1@E", "x@E", "²@E", "1.5@E"])
def test_a_wrong_position_is_explained_by_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="expected offset@epoch, for example"):
        Position.parse(text)


def test_a_publication_without_history_has_no_position() -> None:
    assert Publication("news", 1, 5, "E").position == Position(5, "E")
    assert Publication("news", 1).position is None
    assert Publication("news", 1, 5).position is None
