"""Which workers accept the next connections, from the numbers of all workers."""

from __future__ import annotations

import os
import random
import select

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_server.serving.connection_counts import ABSENT, FEW, TOLERANCE, ConnectionCounts, share_limit


def is_woken(counts: ConnectionCounts, worker: int) -> bool:
    poll = select.poll()
    poll.register(counts.wake_file(worker), select.POLLIN)
    return bool(poll.poll(0))


@given(st.lists(st.integers(0, 10**6), min_size=1))
def test_the_worker_with_the_fewest_connections_may_always_accept(numbers: list[int]) -> None:
    assert min(numbers) < share_limit(numbers)


def test_workers_that_do_not_accept_have_no_share() -> None:
    assert share_limit([100, 100, ABSENT]) == share_limit([100, 100])


@pytest.mark.parametrize("seed", range(5))
def test_the_largest_worker_has_little_more_than_the_mean_if_one_worker_is_faster(seed: int) -> None:
    """Each connection is accepted by any worker that does not have its share, most often by the first."""
    chosen, numbers = random.Random(seed), [0] * 4
    counts = ConnectionCounts(4)
    for worker in range(4):
        counts.set(worker, 0)
    for _ in range(4000):
        worker = next(
            number
            for number in sorted(range(4), key=lambda number: number * chosen.random())
            if not counts.has_share(number)
        )
        numbers[worker] += 1
        counts.set(worker, numbers[worker])
        assert max(numbers) <= sum(numbers) / 4 * (1 + TOLERANCE) + FEW + 1
    assert max(numbers) <= 1.15 * 1000


def test_of_the_workers_that_rest_the_one_with_the_fewest_connections_is_woken() -> None:
    counts = ConnectionCounts(3)
    for worker, count in enumerate((30, 10, 20)):
        counts.set(worker, count)
        counts.rest(worker)
    counts.wake_one()
    assert [is_woken(counts, worker) for worker in range(3)] == [False, True, False]
    counts.begin(1)
    assert not is_woken(counts, 1)
    counts.wake_one()
    assert [is_woken(counts, worker) for worker in range(3)] == [False, False, True]


def test_a_worker_that_has_its_share_is_not_woken() -> None:
    counts = ConnectionCounts(2)
    for worker, count in enumerate((100, 10)):
        counts.set(worker, count)
    counts.rest(0)
    counts.wake_one()
    assert not is_woken(counts, 0)


def test_another_worker_is_woken_when_the_only_one_that_accepts_leaves() -> None:
    counts = ConnectionCounts(2)
    for worker in range(2):
        counts.set(worker, 10)
    counts.rest(0)
    counts.leave(1)
    assert is_woken(counts, 0)


def test_a_worker_is_needed_unless_one_with_fewer_connections_accepts() -> None:
    counts = ConnectionCounts(2)
    counts.set(0, 10)
    counts.set(1, 10)
    assert [counts.is_needed(worker) for worker in range(2)] == [True, False]
    counts.rest(0)
    assert counts.is_needed(1)


def test_workers_share_the_numbers_with_the_process_that_made_them() -> None:
    counts = ConnectionCounts(2)
    counts.set(0, 0)
    if not (pid := os.fork()):
        counts.set(1, 1000)
        os._exit(0)
    os.waitpid(pid, 0)
    assert counts.has_share(1)
