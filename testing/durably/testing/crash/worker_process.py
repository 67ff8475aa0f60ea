"""A worker process as its parent sees it: what it reports, how it ended, and another one each time it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from durably.core.steps import Point
from durably.testing.crash.faults import Crash
from durably.testing.crash.import_path import ImportPath
from durably.testing.crash.order import Order

__all__ = ["Child", "PointReport", "WorkerProcess", "child_environment", "restart_until_end"]


@dataclass(frozen=True, slots=True)
class PointReport:
    """One point that a worker process passed.

    Attributes:
        point: The point.
        seconds: How long after its beginning the process passed it, by its own clock.
        killed: Whether the process killed itself here. The passage itself was reported before.
    """

    point: Point
    seconds: float
    killed: bool = False


class Child(ABC):
    """A running child process and the pipe it reports on; how it was started is a subclass's business."""

    pid: int
    """The process id."""

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """What it writes, line by line, until it is gone."""

    @property
    @abstractmethod
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; ``None`` while it runs."""

    @abstractmethod
    def end(self) -> None:
        """Kill it if it runs, and take it off the process table."""


class WorkerProcess:
    """One worker process. Leave it with ``with``, and it is gone.

    Args:
        child: The running process.
        number: Which process of the run it is, from 1.

    Attributes:
        reports: What it reported so far.
        crash: The planned crash that ended it, once it has reported one.
        result: What its function returned, as JSON data.
        error: What its function raised, as text; empty if it raised nothing.
        error_type: The name of that error's class.
    """

    def __init__(self, child: Child, number: int = 1) -> None:
        self.number = number
        self.reports: list[PointReport] = []
        self.crash: Point | None = None
        self.result: Any = None
        self.error = ""
        self.error_type = ""
        self._child = child
        self._began = time.monotonic()
        self._ended: float | None = None

    @classmethod
    def start(
        cls,
        target: Callable[..., Any],
        *args: Any,
        crashes: Sequence[Crash] = (),
        number: int = 1,
        log: str | Path | None = None,
    ) -> WorkerProcess:
        """Start a fresh Python process that calls a function.

        Args:
            target: A function at the top of a module, sync or async: ``(probe, *args) -> JSON data``. It runs
                the backend, with the probe as ``backend.probe``.
            args: Further arguments, JSON data.
            crashes: Where the process kills itself with SIGKILL; only the first can come about.
            number: Which process of the run it is, from 1.
            log: A file to append to what it prints; left out, it prints to this process's standard error.

        Raises:
            DefinitionError: If the function is not at the top of a module.
        """
        order = Order(number=number, target=ImportPath.of(target), args=args, crashes=tuple(crashes))
        return cls(_Spawned(order, log), number)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; ``None`` while it runs."""
        return self._child.returncode

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL ended it, planned or not."""
        return self.returncode == -signal.SIGKILL

    @property
    def seconds(self) -> float:
        """How long it has lived."""
        return (self._ended or time.monotonic()) - self._began

    def follow(self) -> Iterator[PointReport]:
        """Each report as it comes, until the process is gone. It is gone afterwards, whatever happens meanwhile."""
        try:
            for line in self._child.lines():
                report = self._read(json.loads(line))
                if report is not None:
                    self.reports.append(report)
                    yield report
        finally:
            self.end()

    def wait(self) -> None:
        """Let it run to its end."""
        for _ in self.follow():
            pass

    def end(self) -> None:
        """Kill it if it still runs."""
        self._child.end()
        self._ended = self._ended or time.monotonic()

    def _read(self, said: dict[str, Any]) -> PointReport | None:
        if "point" in said:
            return PointReport(Point(*said["point"]), said["seconds"])
        if "killed" in said:
            # Not always the last line: a thread may report before the signal takes hold.
            self.crash = Point(*said["killed"])
            return PointReport(self.crash, said["seconds"], killed=True)
        if "returned" in said:
            self.result = said["returned"]
        else:
            self.error, self.error_type = said["raised"], said["error_type"]
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


StartWorker = Callable[[int, Sequence[Crash]], WorkerProcess]
"""Starts the process of a number, from 1, with the crashes that have not come about."""


def restart_until_end(
    start: StartWorker, crashes: Sequence[Crash] = (), *, most_unplanned: int = 20
) -> Iterator[WorkerProcess]:
    """Start a worker process, and another one each time it was killed, until one ends by itself.

    Args:
        start: Starts one: ``lambda number, crashes: WorkerProcess.start(work, path, number=number, crashes=crashes)``.
        crashes: Where processes kill themselves, in order.
        most_unplanned: How many kills that nobody planned are put up with.

    Yields:
        Each process as soon as it runs: follow it. What is left of it runs to its end before the next one starts.

    Raises:
        RuntimeError: If something else keeps killing the processes.
    """
    planned = unplanned = 0
    while True:
        with start(planned + unplanned + 1, crashes[planned:]) as process:
            yield process
            if process.returncode is None:
                process.wait()
        if not process.was_killed:
            return
        planned += process.crash is not None
        unplanned += process.crash is None
        if unplanned > most_unplanned:
            raise RuntimeError(f"the workers were killed {planned + unplanned} times; something else kills them")


class _Spawned(Child):
    """A fresh interpreter."""

    def __init__(self, order: Order, log: str | Path | None) -> None:
        with open(log, "ab") if log is not None else open(os.dup(2), "wb") as errors:
            self._process = subprocess.Popen(
                # -P: a module that lies in the current folder is not to be taken for one of the standard library.
                [sys.executable, "-P", "-m", "durably.testing.crash.worker_main", str(order.target), str(order.number)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=child_environment(),
                text=True,
            )
        self.pid = self._process.pid
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has died already, as its end will tell
            self._process.stdin.write(order.to_json() + "\n")
            self._process.stdin.flush()

    def lines(self) -> Iterator[str]:
        assert self._process.stdout is not None
        yield from self._process.stdout
        self._process.wait()

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def child_environment(**more: str) -> dict[str, str]:
    """The environment of this process, for a child that is to find the same modules."""
    path = os.pathsep.join(str(Path(each).resolve()) for each in sys.path)
    return {**os.environ, "PYTHONPATH": path, **more}
