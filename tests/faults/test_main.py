"""An injection that fails counts for its fault, and the other faults are still injected."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

from tests.faults.__main__ import Results, row, run_groups
from tests.faults.fault_environment import Fault, FaultEnvironment, FaultGroup, Outcome, Size
from tests.faults.record import Tally

FAULTS = ("one", "two", "three")


async def inject(_: FaultEnvironment[Any]) -> None:
    """Never called: `FakeEnvironment` makes the outcome."""


@contextlib.asynccontextmanager
async def no_cluster(_: Path) -> AsyncIterator[Any]:
    yield None


GROUP: FaultGroup[Any] = FaultGroup(no_cluster, [Fault(name, inject) for name in FAULTS])


class FakeEnvironments:
    """Environments without a cluster.

    The faults named `failing` raise, at most `count` environments start, and they may end badly.
    """

    def __init__(self, *failing: str, count: int = 100, end_well: bool = True, lost: int = 0) -> None:
        self._failing = failing
        self._tally = Tally(lost=lost)
        self._count = count
        self._end_well = end_well

    @contextlib.asynccontextmanager
    async def open(
        self, _: FaultGroup[Any], directory: Path, size: Size
    ) -> AsyncIterator[FaultEnvironment[Any]]:
        self._count -= 1
        assert self._count >= 0, "no environment"
        yield cast("FaultEnvironment[Any]", FakeEnvironment(self._failing, self._tally))
        assert self._end_well, "a node ended badly"


class FakeEnvironment:
    """An environment in which every injection raises after the first one that did."""

    def __init__(self, failing: Sequence[str], tally: Tally) -> None:
        self._failing = failing
        self._tally = tally
        self._is_broken = False

    async def run_fault(self, fault: Fault[Any]) -> Outcome:
        self._is_broken |= fault.name in self._failing
        if self._is_broken:
            raise TimeoutError
        return Outcome(fault.name, self._tally, 0, None, 0, 0, [])


def counts(results: Results) -> dict[str, tuple[int, int]]:
    """The number of outcomes and of failures of each fault."""
    return {name: (len(each.outcomes), each.failed) for name, each in results.items()}


async def test_a_run_without_a_failure_is_right() -> None:
    results, is_right = await run_groups([GROUP], "", 2, FakeEnvironments(count=1).open)
    assert is_right
    assert counts(results) == dict.fromkeys(FAULTS, (2, 0))


async def test_after_a_failed_injection_the_other_faults_get_a_new_environment() -> None:
    results, is_right = await run_groups([GROUP], "", 3, FakeEnvironments("two").open)
    assert not is_right
    assert counts(results) == {"one": (3, 0), "two": (0, 3), "three": (3, 0)}
    assert not results["two"].is_as_promised
    assert row("two", results["two"]) == ["two", "0, 3 failed"]


async def test_faults_without_an_environment_have_failed() -> None:
    environments = FakeEnvironments("one", "two", "three", count=2)
    results, is_right = await run_groups([GROUP], "", 3, environments.open)
    assert not is_right
    assert counts(results) == dict.fromkeys(FAULTS, (0, 3))


async def test_an_environment_that_ends_badly_is_not_right() -> None:
    results, is_right = await run_groups([GROUP], "", 1, FakeEnvironments(end_well=False).open)
    assert not is_right
    assert counts(results) == dict.fromkeys(FAULTS, (1, 0))


async def test_a_loss_is_not_right() -> None:
    _, is_right = await run_groups([GROUP], "", 1, FakeEnvironments(lost=1).open)
    assert not is_right
