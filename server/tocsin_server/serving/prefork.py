"""Several processes on one port: a parent that listens, and workers that each run a node.

    parent --fork--> workers      worker dies --> another takes its place      signal to the parent --> to
    each worker

The parent runs no loop and holds no connection. Workers are in a process group of their own, so that Ctrl-C
reaches them once, through the parent; they watch a pipe that ends with the parent, so that none outlives it.
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
"""At least this long between two starts of the same worker, so that one that cannot start does not spin."""

Work = Callable[[int, int, Callable[[], None]], int]
"""Runs one worker until it is told to stop, and returns the exit code.

Given its number, a descriptor that is readable once the parent is gone, and what to call when it is ready.
"""


class Crew:
    """Keeps `count` workers at work until a signal comes. `on_ready` is called once all of them are ready."""

    def __init__(self, count: int, work: Work, on_ready: Callable[[], None]) -> None:
        self._work = work
        self._on_ready = on_ready
        self._missing = set(range(count))
        self._started: dict[int, float] = {}
        self._workers: dict[int, int] = {}
        self._is_stopping = False
        self._failed = False
        self._alive, self._alive_end = os.pipe()
        self._reports, self._report_end = os.pipe()
        self._wakes, self._wake_end = os.pipe()

    def run(self) -> int:
        """Start everybody, keep them at work, stop everybody. Blocks; returns the exit code."""
        os.set_blocking(self._wake_end, False)
        signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        for sig in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sig, self._stop)
        signal.signal(signal.SIGCHLD, lambda _sig, _frame: None)
        waiting = set(self._missing)
        while not (self._is_stopping and not self._workers):
            self._fill()
            readable, _, _ = select.select([self._reports, self._wakes], [], [], self._pause())
            if self._wakes in readable:
                os.read(self._wakes, 4096)
            if self._reports in readable and waiting:
                waiting -= set(os.read(self._reports, 4096))
                if not waiting and not self._is_stopping:
                    self._on_ready()
            self._bury()
        return int(self._failed)

    def _stop(self, sig: int, _frame: FrameType | None) -> None:
        """Pass a signal on. The first one lets workers drain, the second one hurries them."""
        self._is_stopping = True
        for pid in self._workers:
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(pid, signal.SIGTERM if sig == signal.SIGINT else sig)

    def _pause(self) -> float | None:
        if self._is_stopping or not self._missing:
            return None
        return max(
            0.0, min(self._started[number] for number in self._missing) + RESTART_SECONDS - time.monotonic()
        )

    def _fill(self) -> None:
        for number in sorted(self._missing):
            is_early = time.monotonic() < self._started.get(number, -RESTART_SECONDS) + RESTART_SECONDS
            if not self._is_stopping and not is_early:
                self._missing.discard(number)
                self._started[number] = time.monotonic()
                self._start(number)

    def _start(self, number: int) -> None:
        # A signal between the two lines would be passed on to all but this one.
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
            code = self._work(number, self._alive, lambda: self._report(number))
        finally:
            os._exit(code)

    def _report(self, number: int) -> None:
        os.write(self._report_end, bytes((number,)))

    def _bury(self) -> None:
        """Take note of workers that ended. One that could not even start ends everybody."""
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            number = self._workers.pop(pid)
            if os.waitstatus_to_exitcode(status) == CANNOT_START and not self._is_stopping:
                self._failed = True
                self._stop(signal.SIGTERM, None)
            self._missing.add(number)


CANNOT_START = 3
"""A worker's exit code if starting it again would not help: the engine cannot be used."""
