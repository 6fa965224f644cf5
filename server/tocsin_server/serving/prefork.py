"""Several processes on one port: a parent that listens, and a pool of workers that each run a node.

    parent --fork--> workers       worker exits --> the parent forks another       signal to the parent --> to
    each worker

The parent runs no event loop and holds no connection. Workers are in process groups of their own, so that a
Ctrl-C reaches them once, through the parent. Each worker watches a pipe that closes when the parent dies, so
that no worker outlives it.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

RESTART_SECONDS = 1.0
"""The minimum time between two starts of a worker, so that a worker that cannot start does not spin."""

CANNOT_START = 3
"""The exit code of a worker that would fail again: the engine cannot be used."""

Work = Callable[[int, int, Callable[[], None]], int]
"""Runs one worker until it is stopped, and returns the exit code.

The arguments are the worker's number, a file descriptor that becomes readable when the parent dies, and a
function to call once the worker is ready.
"""


class WorkerPool:
    """Keeps `count` workers running until a signal arrives. `on_ready` is called once all are ready.

    The mutable state is the numbers of the workers that do not run, the start time of each number, the
    running workers by process id, and whether the pool is stopping or has failed. Only `run` and the signal
    handler change it.
    """

    def __init__(self, count: int, work: Work, on_ready: Callable[[], None]) -> None:
        self._work = work
        self._on_ready = on_ready
        self._missing = set(range(count))
        self._started: dict[int, float] = {}
        self._workers: dict[int, int] = {}
        self._is_stopping = False
        self._has_failed = False
        self._alive, self._alive_end = os.pipe()
        self._reports, self._report_end = os.pipe()
        self._wakes, self._wake_end = os.pipe()

    def run(self) -> int:
        """Start all workers, restart those that exit, stop all at a signal. Blocks; returns the exit code."""
        os.set_blocking(self._wake_end, False)
        signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        for sig in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sig, self._stop)
        signal.signal(signal.SIGCHLD, lambda _sig, _frame: None)
        not_ready = set(self._missing)
        while not (self._is_stopping and not self._workers):
            self._start_missing()
            readable, _, _ = select.select([self._reports, self._wakes], [], [], self._pause())
            if self._wakes in readable:
                os.read(self._wakes, 4096)
            if self._reports in readable and not_ready:
                not_ready -= set(os.read(self._reports, 4096))
                if not not_ready and not self._is_stopping:
                    self._on_ready()
            self._collect_exited()
        return int(self._has_failed)

    def _stop(self, sig: int, _frame: FrameType | None) -> None:
        """Pass a signal on to every worker. The first one starts their drain, the second one ends it."""
        self._is_stopping = True
        for pid in self._workers:
            with suppress(ProcessLookupError):  # it has just exited
                os.kill(pid, signal.SIGTERM if sig == signal.SIGINT else sig)

    def _pause(self) -> float | None:
        """Seconds until a missing worker may start again. None: nothing happens before the next signal."""
        if self._is_stopping or not self._missing:
            return None
        return max(
            0.0, min(self._started[number] for number in self._missing) + RESTART_SECONDS - time.monotonic()
        )

    def _start_missing(self) -> None:
        for number in sorted(self._missing):
            is_early = time.monotonic() < self._started.get(number, -RESTART_SECONDS) + RESTART_SECONDS
            if not self._is_stopping and not is_early:
                self._missing.discard(number)
                self._started[number] = time.monotonic()
                self._start(number)

    def _start(self, number: int) -> None:
        # A signal between fork and the next line would reach every worker except this one.
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        pid = os.fork()
        if pid:
            self._workers[pid] = number
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            return
        code = 1
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
                signal.signal(sig, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            os.close(self._alive_end)
            code = self._work(number, self._alive, lambda: self._report_ready(number))
        finally:
            os._exit(code)

    def _report_ready(self, number: int) -> None:
        os.write(self._report_end, bytes((number,)))

    def _collect_exited(self) -> None:
        """Note which workers exited. A worker that could not even start stops the pool."""
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            number = self._workers.pop(pid)
            if os.waitstatus_to_exitcode(status) == CANNOT_START and not self._is_stopping:
                self._has_failed = True
                self._stop(signal.SIGTERM, None)
            self._missing.add(number)
