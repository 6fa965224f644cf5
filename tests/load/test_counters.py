"""The counters of a worker process."""

from tocsin_load.counters import MOST_REASONS, WorkerCounters


def test_latencies_are_counted_by_second_and_since_the_last_call() -> None:
    counters = WorkerCounters("run", 1)
    for now in (7.1, 7.9, 8.0):
        counters.count_delivery(0.01, now)
    assert {second: one.total for second, one in counters.seconds.items()} == {7: 2, 8: 1}
    assert counters.take_latency().total == 3
    assert counters.take_latency().total == 0
    assert counters.delivered == 3


def test_all_settled_is_set_with_the_last_connection() -> None:
    counters = WorkerCounters("run", 2)
    counters.count_settled(1.0)
    assert not counters.all_settled.is_set()
    counters.count_settled(2.0)
    assert counters.all_settled.is_set()
    assert counters.last_settled == 2.0


def test_the_number_of_reasons_is_bounded() -> None:
    counters = WorkerCounters("run", 1)
    for number in range(2 * MOST_REASONS):
        counters.count_failure(f"reason {number}")
    counters.count_failure("reason 0")
    assert len(counters.failures) == MOST_REASONS + 1
    assert counters.failures["other reasons"] == MOST_REASONS
    assert counters.failures["reason 0"] == 2
