"""How many connections each worker of a pool has, and so which of them accept the next ones.

A worker that has its share (`share_limit`), or that is not needed because others accept, rests: it leaves new
connections in the queue of the listening socket. A byte in its pipe wakes it.

The mutable state is memory that the processes of a pool share, and the pipes: a number for each worker, which
only that worker changes, or the parent once the worker has exited; and whether the worker rests. A number
that is read a moment too late makes a worker accept a few connections more or fewer, and does no other harm.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from contextlib import suppress

ABSENT = -1
"""In place of a number of connections: the worker does not accept."""

FEW = 8
"""So many connections above the mean never matter."""

TOLERANCE = 1 / 16
"""What a worker may have above the mean, as a part of it.

It is not zero, so that workers that are faster for a moment take more while many clients connect.
"""

_NUMBER_BYTES = 8


def share_limit(counts: Sequence[int]) -> float:
    """The number of connections from which on a worker rests, if the workers have these numbers.

    The worker with the fewest connections is always below it.
    """
    present = [count for count in counts if count != ABSENT]
    return sum(present) / len(present) * (1 + TOLERANCE) + FEW if present else FEW


class ConnectionCounts:
    """The numbers of all workers. The parent makes it before it forks, and each process has its copy."""

    def __init__(self, workers: int) -> None:
        shared = memoryview(mmap.mmap(-1, 2 * workers * _NUMBER_BYTES)).cast("q")
        self._counts, self._rests = shared[:workers], shared[workers:]
        self._pipes = [os.pipe() for _ in range(workers)]
        for number, ends in enumerate(self._pipes):
            self._counts[number] = ABSENT
            for end in ends:
                os.set_blocking(end, False)

    def set(self, worker: int, count: int) -> None:
        """Note how many connections a worker has."""
        self._counts[worker] = count

    def has_share(self, worker: int) -> bool:
        """Whether this worker has so many connections that the others accept the next ones."""
        return self._counts[worker] >= share_limit(self._counts)

    def is_needed(self, worker: int) -> bool:
        """Whether no other worker accepts, except workers with more connections."""
        mine = (self._counts[worker], worker)
        return not any(
            not rests and count != ABSENT and (count, other) < mine
            for other, (count, rests) in enumerate(zip(self._counts, self._rests, strict=True))
        )

    def rest(self, worker: int) -> None:
        """Note that this worker accepts no connections until it is woken."""
        self._rests[worker] = 1

    def begin(self, worker: int) -> None:
        """Note that this worker accepts connections, and take what was written to wake it."""
        self._rests[worker] = 0
        with suppress(BlockingIOError):
            os.read(self._pipes[worker][0], 4096)

    def wake_file(self, worker: int) -> int:
        """The file descriptor that becomes readable to wake this worker."""
        return self._pipes[worker][0]

    def wake_one(self) -> None:
        """Wake the worker with the fewest connections of those that rest and do not have their share."""
        resting = [(self._counts[worker], worker) for worker, rests in enumerate(self._rests) if rests]
        if resting and min(resting)[0] < share_limit(self._counts):
            worker = min(resting)[1]
            self._rests[worker] = 0
            with suppress(BlockingIOError):  # it has not read what woke it before
                os.write(self._pipes[worker][1], b"\0")

    def leave(self, worker: int) -> None:
        """Note that a worker does not accept any longer, or has exited: another one takes its place."""
        self._counts[worker] = ABSENT
        self._rests[worker] = 0
        self.wake_one()
