"""Tags filters: which publications of a channel a subscriber gets, by their tags (docs/protocol.md §11).

A filter is a tree of comparisons. It is compiled once, and shared by all subscribers that request the same,
so that each publication is compared once for all of them.

The mutable state is the filters in use, by their text; only `TagsFilters` changes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from weakref import WeakValueDictionary

import msgspec
from msgspec import Raw, Struct

LIMIT_BYTES = 16_384
"""How long the text of a filter may be."""

NODES_LIMIT = 50
"""How many nodes a filter may have: then comparing a publication takes about 10 µs."""

NO_TAGS: Mapping[str, str] = {}

Matches = Callable[[Mapping[str, str]], bool]


class FilterNode(Struct, omit_defaults=True):
    """A comparison of one tag, or an operation (`op`) on other nodes. `null` is the same as no member."""

    op: str | None = ""
    key: str | None = ""
    cmp: str | None = ""
    val: str | None = ""
    vals: list[str] | None = None
    nodes: list[FilterNode] | None = None


_decode = msgspec.json.Decoder(FilterNode).decode
_encode = msgspec.json.Encoder().encode


class TagsFilter:
    """A filter that is in use. The same filter is always the same object on a node."""

    __slots__ = ("__weakref__", "matches")

    def __init__(self, matches: Matches) -> None:
        self.matches = matches
        """Whether tags match."""


class TagsFilters:
    """All filters of a node that subscriptions hold."""

    def __init__(self) -> None:
        self._in_use: WeakValueDictionary[bytes, TagsFilter] = WeakValueDictionary()

    def __len__(self) -> int:
        """Return how many different filters are in use."""
        return len(self._in_use)

    def parse(self, text: Raw) -> TagsFilter:
        """Return the filter of a subscribe command. Raises ValueError with what is wrong with it."""
        if len(text) > LIMIT_BYTES:
            raise ValueError(f"it is longer than {LIMIT_BYTES} bytes")
        try:
            node = _decode(text)
        except (msgspec.DecodeError, RecursionError):
            raise ValueError("it is no filter node") from None
        canonical = _encode(node)
        found = self._in_use.get(canonical)
        if found is None:
            found = self._in_use[canonical] = TagsFilter(_Compiler().compile(node))
        return found


class _Compiler:
    """Compiles one filter, and counts its nodes."""

    def __init__(self) -> None:
        self._count = 0

    def compile(self, node: FilterNode) -> Matches:
        self._count += 1
        if self._count > NODES_LIMIT:
            raise ValueError(f"it has more than {NODES_LIMIT} nodes")
        if not node.op:
            return _comparison(node)
        if node.op not in ("and", "or", "not"):
            raise ValueError("op must be and, or, not, or empty")
        children = [self.compile(child) for child in node.nodes or ()]
        if not children or (node.op == "not" and len(children) > 1):
            raise ValueError(f"{node.op} needs {'one node' if node.op == 'not' else 'nodes'}")
        return _operation(node.op, children)


def _operation(op: str, children: list[Matches]) -> Matches:
    match op:
        case "and":
            return lambda tags: all(matches(tags) for matches in children)
        case "or":
            return lambda tags: any(matches(tags) for matches in children)
        case _:
            (negated,) = children
            return lambda tags: not negated(tags)


def _comparison(node: FilterNode) -> Matches:
    """Compile a comparison. A tag that is missing counts as "" in a list, and equals no value."""
    key, cmp, val, vals = node.key or "", node.cmp or "", node.val or "", frozenset(node.vals or ())
    if cmp in ("ex", "nex"):
        if val or vals:
            raise ValueError(f"{cmp} takes neither val nor vals")
        return (lambda tags: key in tags) if cmp == "ex" else (lambda tags: key not in tags)
    if not key:
        raise ValueError("a comparison needs a key")
    if cmp in ("in", "nin"):
        if val or not vals:
            raise ValueError(f"{cmp} takes vals, not val")
        if cmp == "in":
            return lambda tags: tags.get(key, "") in vals
        return lambda tags: tags.get(key, "") not in vals
    compare = _COMPARISONS.get(cmp) or _NUMERIC_COMPARISONS.get(cmp)
    if compare is None:
        raise ValueError(f"cmp must be one of {', '.join(_NAMES)}")
    if vals or not val:
        raise ValueError(f"{cmp} takes val, not vals")
    return compare(key, val)


_COMPARISONS: dict[str, Callable[[str, str], Matches]] = {
    "eq": lambda key, val: lambda tags: tags.get(key) == val,
    "neq": lambda key, val: lambda tags: tags.get(key) != val,
    "sw": lambda key, val: lambda tags: tags.get(key, "").startswith(val),
    "ew": lambda key, val: lambda tags: tags.get(key, "").endswith(val),
    "ct": lambda key, val: lambda tags: val in tags.get(key, ""),
}

_Order = Callable[[Decimal, Decimal], bool]


def _numeric(is_met: _Order) -> Callable[[str, str], Matches]:
    """Compare decimal numbers. A tag or value that is none matches nothing."""

    def compare(key: str, val: str) -> Matches:
        bound = _number(val)

        def matches(tags: Mapping[str, str]) -> bool:
            number = _number(tags.get(key, ""))
            return number is not None and bound is not None and is_met(number, bound)

        return matches

    return compare


_NUMERIC_COMPARISONS: dict[str, Callable[[str, str], Matches]] = {
    "gt": _numeric(lambda number, bound: number > bound),
    "gte": _numeric(lambda number, bound: number >= bound),
    "lt": _numeric(lambda number, bound: number < bound),
    "lte": _numeric(lambda number, bound: number <= bound),
}

_NAMES = ("ex", "nex", "in", "nin", *_COMPARISONS, *_NUMERIC_COMPARISONS)

_NUMBER = re.compile(r"[+-]?[0-9]{1,100}(\.[0-9]{1,100})?", re.ASCII)


def _number(text: str) -> Decimal | None:
    return Decimal(text) if _NUMBER.fullmatch(text) else None
