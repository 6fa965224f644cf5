"""A strike that fails costs its fault, and no other one its turn."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

from tests.faults.__main__ import Results, row, wreak
from tests.faults.fault_environment import Fault, Outcome, Setting, Size, Stage
from tests.faults.record import Tally

FAULTS = ("one", "two", "three")


async def strike(_: Stage[Any]) -> None:
    """Never called: `Stages` say what becomes of it."""


@contextlib.asynccontextmanager
async def nowhere(_: Path) -> AsyncIterator[Any]:
    yield None


SETTING: Setting[Any] = Setting(nowhere, [Fault(name, strike) for name in FAULTS])


class Stages:
    """Stages on which nothing happens: some strikes fail, only `count` can be set, they may end badly."""

    def __init__(self, *failing: str, count: int = 100, end_well: bool = True, lost: int = 0) -> None:
        self._failing = failing
        self._tally = Tally(lost=lost)
        self._count = count
        self._end_well = end_well

    @contextlib.asynccontextmanager
    async def staged(self, _: Setting[Any], directory: Path, size: Size) -> AsyncIterator[Stage[Any]]:
        self._count -= 1
        assert self._count >= 0, "no stage"
        yield cast("Stage[Any]", Scene(self._failing, self._tally))
        assert self._end_well, "a node ended badly"


class Scene:
    """One of them. Nothing can be trusted there once a strike has failed."""

    def __init__(self, failing: Sequence[str], tally: Tally) -> None:
        self._failing = failing
        self._tally = tally
        self._is_broken = False

    async def suffer(self, fault: Fault[Any]) -> Outcome:
        self._is_broken |= fault.name in self._failing
        if self._is_broken:
            raise TimeoutError
        return Outcome(fault.name, self._tally, 0, None, 0, 0, [])


def made(results: Results) -> dict[str, tuple[int, int]]:
    """How many strikes of each fault have an outcome, and how many failed."""
    return {name: (len(strikes.outcomes), strikes.failed) for name, strikes in results.items()}


async def test_nothing_failed_and_all_is_right() -> None:
    results, is_right = await wreak([SETTING], "", 2, Stages(count=1).staged)
    assert is_right
    assert made(results) == dict.fromkeys(FAULTS, (2, 0))


async def test_a_strike_that_fails_costs_its_fault_and_the_others_go_on_elsewhere() -> None:
    results, is_right = await wreak([SETTING], "", 3, Stages("two").staged)
    assert not is_right
    assert made(results) == {"one": (3, 0), "two": (0, 3), "three": (3, 0)}
    assert not results["two"].are_as_promised
    assert row("two", results["two"]) == ["two", "0, 3 failed"]


async def test_where_no_stage_can_be_set_again_what_is_left_has_failed() -> None:
    results, is_right = await wreak([SETTING], "", 3, Stages("one", "two", "three", count=2).staged)
    assert not is_right
    assert made(results) == dict.fromkeys(FAULTS, (0, 3))


async def test_a_stage_that_ends_badly_is_not_right() -> None:
    results, is_right = await wreak([SETTING], "", 1, Stages(end_well=False).staged)
    assert not is_right
    assert made(results) == dict.fromkeys(FAULTS, (1, 0))


async def test_a_loss_is_not_right() -> None:
    _, is_right = await wreak([SETTING], "", 1, Stages(lost=1).staged)
    assert not is_right
