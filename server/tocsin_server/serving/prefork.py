"""Several processes on one port: a parent that listens, and a pool of workers that each run a node.

    parent --fork--> workers       worker exits, or hangs --> the parent forks another after a pause
    signal to the parent --> to each worker

The parent runs no event loop and holds no connection. It ends with its workers only if one of them cannot
start the first time; later, a worker that cannot start is tried again, and the others serve on. Workers are
in process groups of their own, so that a Ctrl-C reaches them once, through the parent. Each worker watches a
pipe that closes when the parent dies, so that no worker outlives it, and reports that its event loop runs.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

import structlog

from tocsin_server.output import drain_standard_streams

RESTART_SECONDS = 1.0
"""The shortest time between two starts of a worker. It doubles with each exit that follows soon."""

LONGEST_PAUSE_SECONDS = 16.0
"""A worker that cannot start, such as while Redis is away, is tried again after this time at the latest."""

STABLE_SECONDS = 60.0
"""A worker that ran for so long begins again with the shortest pause."""

CHECK_SECONDS = 5.0
"""How often the parent looks for workers that hang."""

SILENT_CHECKS = 12
"""After so many checks without a report a worker hangs: its event loop has not run for a minute.

Checks are counted and not seconds, so that a machine that was suspended finds no worker hanging.
"""

CANNOT_START = 3
"""The exit code of a worker that cannot start: the engine cannot be used."""

Work = Callable[[int, int, Callable[[], None]], int]
"""Runs one worker until it is stopped, and returns the exit code.

The arguments are the worker's number, a file descriptor that becomes readable when the parent dies, and a
function to call once the worker is ready and then every `CHECK_SECONDS`.
"""

log = structlog.get_logger()


@dataclass(slots=True)
class Worker:
    """What the parent knows of one worker."""

    pause_seconds: float
    """The shortest time between its last start and its next one."""
    pid: int = 0
    """0: it does not run."""
    started_at: float = 0.0
    may_start_at: float = 0.0
    silent_checks: int = 0
    was_ready: bool = False


class WorkerPool:
    """Keeps `count` workers running until a signal arrives. `on_ready` is called once all are ready.

    `on_exit` is called with the number of each worker that exited, from 0 on, and `on_stop` once no other
    worker will start. `passed_signals` are given to every worker as they are, besides SIGINT and SIGTERM,
    which stop them. The mutable state is the workers, and whether the pool was ready, is stopping or has
    failed. Only `run` and the signal handlers change it.
    """

    def __init__(
        self,
        count: int,
        work: Work,
        on_ready: Callable[[], None],
        passed_signals: Iterable[signal.Signals] = (),
        on_exit: Callable[[int], None] = lambda _number: None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._work = work
        self._on_ready = on_ready
        self._on_exit = on_exit
        self._on_stop = on_stop
        self._passed_signals = tuple(passed_signals)
        self._workers = [Worker(pause_seconds=RESTART_SECONDS) for _ in range(count)]
        self._was_ready = False
        self._is_stopping = False
        self._has_failed = False
        self._alive, self._alive_end = os.pipe()
        self._reports, self._report_end = os.pipe()
        self._wakes, self._wake_end = os.pipe()

    def run(self) -> int:
        """Start all workers, restart those that exit, stop all at a signal. Blocks; returns the exit code."""
        os.set_blocking(self._wake_end, False)
        os.set_blocking(self._report_end, False)
        signal.set_wakeup_fd(self._wake_end, warn_on_full_buffer=False)
        for sig in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sig, self._stop)
        for sig in self._passed_signals:
            signal.signal(sig, self._pass_on)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # the wakeup file descriptor ends the pause
        check_at = time.monotonic() + CHECK_SECONDS
        while not (self._is_stopping and not self._running()):
            self._start_missing()
            readable, _, _ = select.select([self._reports, self._wakes], [], [], self._pause(check_at))
            if self._wakes in readable:
                os.read(self._wakes, 4096)
            if self._reports in readable:
                self._take_reports(os.read(self._reports, 4096))
            self._collect_exited()
            if time.monotonic() >= check_at:
                check_at = time.monotonic() + CHECK_SECONDS
                self._end_hanging()
        return int(self._has_failed)

    def _running(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.pid]

    def _stop(self, sig: int, _frame: FrameType | None) -> None:
        """Pass a signal on to every worker. The first one starts their drain, the second one ends it."""
        if not self._is_stopping:
            self._is_stopping = True
            self._on_stop()
        self._pass_on(signal.SIGTERM if sig == signal.SIGINT else sig, None)

    def _pass_on(self, sig: int, _frame: FrameType | None) -> None:
        for worker in self._running():
            with suppress(ProcessLookupError):  # it has just exited
                os.kill(worker.pid, sig)

    # ----------------------------------------------------------------------------------- the life of a worker

    def _pause(self, check_at: float) -> float:
        """Seconds until the next check, or until a missing worker may start again."""
        times = (
            [] if self._is_stopping else [worker.may_start_at for worker in self._workers if not worker.pid]
        )
        return max(0.0, min([check_at, *times]) - time.monotonic())

    def _start_missing(self) -> None:
        for number, worker in enumerate(self._workers):
            if not worker.pid and not self._is_stopping and time.monotonic() >= worker.may_start_at:
                self._start(number, worker)

    def _start(self, number: int, worker: Worker) -> None:
        worker.started_at = time.monotonic()
        worker.silent_checks = 0
        # Until it has its own handlers, the worker takes no signal with those of the parent.
        handled = (signal.SIGINT, signal.SIGTERM, *self._passed_signals)
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
        worker.pid = os.fork()
        if worker.pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            if self._is_stopping:  # another thread took a signal before `worker.pid` was known
                os.kill(worker.pid, signal.SIGTERM)
            return
        code = 1
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
                signal.signal(sig, signal.SIG_DFL)
            for sig in self._passed_signals:
                signal.signal(sig, signal.SIG_IGN)  # until the worker handles it
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
            os.close(self._alive_end)
            code = self._work(number, self._alive, lambda: self._report(number))
        except Exception:
            log.exception("worker_failed", worker=number + 1)
        finally:
            self._exit(code)

    def _exit(self, code: int) -> None:
        """End a worker's process, without the parent's clean-up."""
        drain_standard_streams()
        os._exit(code)

    def _report(self, number: int) -> None:
        """Tell the parent that the event loop of this worker runs."""
        with suppress(BlockingIOError):  # the parent has many reports to read
            os.write(self._report_end, bytes((number,)))

    def _take_reports(self, numbers: bytes) -> None:
        for number in set(numbers):
            self._workers[number].silent_checks = 0
            self._workers[number].was_ready = True
        if (
            not self._was_ready
            and not self._is_stopping
            and all(worker.was_ready for worker in self._workers)
        ):
            self._was_ready = True
            self._on_ready()

    def _collect_exited(self) -> None:
        """Note which workers exited, and when they may start again."""
        while self._running():
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            number = next(number for number, worker in enumerate(self._workers) if worker.pid == pid)
            self._workers[number].pid = 0
            self._on_exit(number)
            self._has_exited(number, os.waitstatus_to_exitcode(status))

    def _has_exited(self, number: int, code: int) -> None:
        """Choose the pause before the next start. A worker that never started stops the pool."""
        worker, now = self._workers[number], time.monotonic()
        if self._is_stopping:
            return
        if code == CANNOT_START and not worker.was_ready:
            self._has_failed = True
            self._stop(signal.SIGTERM, None)
            return
        if now - worker.started_at >= STABLE_SECONDS:
            worker.pause_seconds = RESTART_SECONDS
        worker.may_start_at = max(now, worker.started_at + worker.pause_seconds)
        pause = round(worker.may_start_at - now, 2)
        log.warning("worker_exited", worker=number + 1, code=code, pause_seconds=pause)
        worker.pause_seconds = min(2 * worker.pause_seconds, LONGEST_PAUSE_SECONDS)

    def _end_hanging(self) -> None:
        """Kill workers whose event loop has not run for long: their clients connect to the others."""
        for number, worker in enumerate(self._workers):
            worker.silent_checks += 1
            if worker.pid and worker.silent_checks > SILENT_CHECKS:
                log.error("worker_hangs", worker=number + 1)
                worker.silent_checks = 0
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
