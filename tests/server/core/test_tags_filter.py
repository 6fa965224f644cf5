"""Tags filters: every comparison and operation, what is not valid, and that the same filter is one object."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
from msgspec import Raw

from tocsin_server.core.tags_filter import LIMIT_BYTES, NODES_LIMIT, TagsFilter, TagsFilters


def parse(node: Any, filters: TagsFilters | None = None) -> TagsFilter:
    filters = TagsFilters() if filters is None else filters
    return filters.parse(Raw(json.dumps(node).encode()))


def leaf(cmp: str, val: str = "", key: str = "a") -> dict[str, Any]:
    return {"key": key, "cmp": cmp, "val": val}


TAGS = {"a": "apple", "n": "42", "e": ""}


@pytest.mark.parametrize(
    ("node", "matches"),
    [
        (leaf("eq", "apple"), True),
        (leaf("eq", "pear"), False),
        (leaf("eq", "apple", "z"), False),
        (leaf("neq", "pear"), True),
        (leaf("neq", "apple"), False),
        (leaf("neq", "apple", "z"), True),
        ({"key": "a", "cmp": "in", "vals": ["pear", "apple"]}, True),
        ({"key": "a", "cmp": "in", "vals": ["pear"]}, False),
        ({"key": "z", "cmp": "in", "vals": ["pear"]}, False),
        ({"key": "a", "cmp": "nin", "vals": ["pear"]}, True),
        ({"key": "a", "cmp": "nin", "vals": ["apple"]}, False),
        ({"key": "z", "cmp": "nin", "vals": ["apple"]}, True),
        (leaf("ex"), True),
        (leaf("ex", key="e"), True),
        (leaf("ex", key="z"), False),
        (leaf("nex"), False),
        (leaf("nex", key="z"), True),
        (leaf("sw", "app"), True),
        (leaf("sw", "le"), False),
        (leaf("ew", "le"), True),
        (leaf("ew", "app"), False),
        (leaf("ct", "ppl"), True),
        (leaf("ct", "x"), False),
        (leaf("ct", "x", "z"), False),
        (leaf("gt", "41.999999999999999999", "n"), True),
        (leaf("gt", "42", "n"), False),
        (leaf("gte", "42.0", "n"), True),
        (leaf("gte", "42.1", "n"), False),
        (leaf("lt", "100", "n"), True),
        (leaf("lt", "42", "n"), False),
        (leaf("lte", "42", "n"), True),
        (leaf("lte", "-1", "n"), False),
        (leaf("gt", "1"), False),
        (leaf("lt", "1e5", "n"), False),
        (leaf("lt", "1_000", "n"), False),
        (leaf("lte", "NaN", "n"), False),
        (leaf("lt", "1", "z"), False),
        ({"op": "and", "nodes": [leaf("ex"), leaf("eq", "42", "n")]}, True),
        ({"op": "and", "nodes": [leaf("ex"), leaf("eq", "43", "n")]}, False),
        ({"op": "or", "nodes": [leaf("nex"), leaf("eq", "42", "n")]}, True),
        ({"op": "or", "nodes": [leaf("nex"), leaf("eq", "43", "n")]}, False),
        ({"op": "not", "nodes": [leaf("eq", "pear")]}, True),
        ({"op": "not", "nodes": [{"op": "not", "nodes": [leaf("eq", "pear")]}]}, False),
        ({"op": None, "key": "a", "cmp": "ex", "val": None, "vals": None, "nodes": None}, True),
    ],
)
def test_a_filter_matches(node: Any, matches: bool) -> None:
    """Numbers are compared as decimals. What is no number matches no order."""
    assert parse(node).matches(TAGS) is matches


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        ("apple", "it is no filter node"),
        ([], "it is no filter node"),
        ({"cmp": 1}, "it is no filter node"),
        ({}, "a comparison needs a key"),
        ({"key": "a"}, "cmp must be one of ex, nex, in, nin, eq, neq, sw, ew, ct, gt, gte, lt, lte"),
        (leaf("like", "x"), "cmp must be one of ex, nex, in, nin, eq, neq, sw, ew, ct, gt, gte, lt, lte"),
        (leaf("eq"), "eq takes val, not vals"),
        ({**leaf("eq", "x"), "vals": ["x"]}, "eq takes val, not vals"),
        (leaf("in", "x"), "in takes vals, not val"),
        ({"key": "a", "cmp": "nin"}, "nin takes vals, not val"),
        (leaf("ex", "x"), "ex takes neither val nor vals"),
        (leaf("eq", "x", key=""), "a comparison needs a key"),
        ({"op": "xor", "nodes": [leaf("ex")]}, "op must be and, or, not, or empty"),
        ({"op": "and"}, "and needs nodes"),
        ({"op": "not", "nodes": [leaf("ex"), leaf("ex")]}, "not needs one node"),
        ({"op": "and", "nodes": [leaf("ex"), leaf("eq")]}, "eq takes val, not vals"),
        ({"op": "or", "nodes": [leaf("ex")] * NODES_LIMIT}, f"it has more than {NODES_LIMIT} nodes"),
        ({"key": "x" * LIMIT_BYTES, "cmp": "ex"}, f"it is longer than {LIMIT_BYTES} bytes"),
    ],
)
def test_what_is_not_valid_is_refused(node: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$"):
        parse(node)


def test_a_filter_that_is_nested_deeply_is_refused() -> None:
    """However deep it is, within its limit of bytes."""
    for depth in (NODES_LIMIT, 300, 900):
        text = b'{"op":"not","nodes":[' * depth + b'{"cmp":1}' + b"]}" * depth
        with pytest.raises(ValueError, match=r"^it "):
            TagsFilters().parse(Raw(text))


def test_the_same_filter_is_one_object_as_long_as_it_is_in_use() -> None:
    """So a channel compares each publication once. Filters of clients that are gone take no memory."""
    filters = TagsFilters()
    one = parse({"key": "a", "cmp": "eq", "val": "x"}, filters)
    assert parse({"val": "x", "op": "", "cmp": "eq", "key": "a"}, filters) is one
    assert parse({"key": "a", "cmp": "eq", "val": "y"}, filters) is not one
    gc.collect()
    assert len(filters) == 1
