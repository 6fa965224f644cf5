"""The JSON codec for texts that msgspec refuses."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin.protocol import json_fallback

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(values, st.sampled_from([None, 1, "\t"]))
def test_the_output_of_the_standard_library_is_decoded_the_same(value: Any, indent: Any) -> None:
    assert json_fallback.decode(json.dumps(value, indent=indent)) == value


@given(values)
def test_encoded_values_are_decoded_the_same(value: Any) -> None:
    text = json_fallback.encode(value)
    assert json_fallback.decode(text) == value
    assert json.loads(text) == value
    assert text.isascii()


@given(st.text(alphabet='{}[],:"\\ \n0123456789.eE+-truefalsn', max_size=30))
def test_it_accepts_exactly_the_texts_that_the_standard_library_accepts(text: str) -> None:
    """The alphabet cannot spell its extensions, NaN and Infinity."""
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            json_fallback.decode(text)
    else:
        assert json_fallback.decode(text) == expected


def test_numbers_of_any_size_are_decoded() -> None:
    assert json_fallback.decode("1" * 4000) == int("1" * 4000)
    assert json_fallback.decode("-" + "1" * 5000) == -math.inf
    assert json_fallback.decode("[1e999,0.1e1]") == [math.inf, 1.0]
    assert json_fallback.encode([math.inf, -math.inf, 1.0]) == "[1e999,-1e999,1.0]"


def test_depth_costs_memory_only() -> None:
    text = '[{"a":' * 10_000 + "1" + "}]" * 10_000
    assert json_fallback.encode(json_fallback.decode(text)) == text


def test_values_that_json_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        json_fallback.encode([math.nan])
    for text in ("NaN", "Infinity", "'a'", "[1,]", '{"a":1,}', "", "[1 2]", '{"a" 1}', "{1:2}", "]"):
        with pytest.raises(ValueError, match=r"."):
            json_fallback.decode(text)
