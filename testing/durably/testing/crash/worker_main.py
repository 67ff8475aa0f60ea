"""The child's side of a worker process: calls a function, reports each point it passes, kills itself where planned.

``python -m durably.testing.crash.worker_main TARGET NUMBER``; the arguments are for whoever lists processes, the order
is the first line of standard input. It lives as long as that is open, so that it never outlives its parent. Nothing
imports this module but a child process.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import signal
import sys
import threading
import time
import traceback
from typing import Any

from durably.core.steps import Point
from durably.testing.crash.faults import FaultPlan
from durably.testing.crash.order import Order

__all__ = ["PointReporter", "die_with_parent", "keep_output_apart", "work"]


class PointReporter:
    """Tells the parent what happens, one JSON object a line.

    Args:
        descriptor: Where to write.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._began = time.perf_counter()

    def __call__(self, point: Point) -> None:
        """A point was passed."""
        self._tell(point=point, seconds=time.perf_counter() - self._began)

    def crashed(self, point: Point) -> None:
        """The process kills itself now."""
        self._tell(killed=point, seconds=time.perf_counter() - self._began)

    def returned(self, value: Any) -> None:
        """The function returned."""
        self._tell(returned=value)

    def raised(self, error: BaseException) -> None:
        """The function raised."""
        self._tell(raised=str(error), error_type=type(error).__name__)

    def _tell(self, **said: Any) -> None:
        try:
            # One write a line: threads report too, and a pipe keeps short writes apart.
            os.write(self._descriptor, json.dumps(said).encode() + b"\n")
        except OSError:
            os._exit(1)  # without a parent there is nothing left to do


def work(order: Order, descriptor: int) -> int:
    """Call the function of an order and report on a descriptor; the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business; it ends this process too
    reporter = PointReporter(descriptor)
    try:
        value = order.target.load()(FaultPlan(order.crashes, "sigkill", reporter), *order.args)
        reporter.returned(asyncio.run(value) if inspect.iscoroutine(value) else value)
    except BaseException as error:
        traceback.print_exc()
        reporter.raised(error)
        return 1
    return 0


def die_with_parent(descriptor: int) -> None:
    """End this process when the other end of a pipe is closed, as it is when the parent is gone however it ended."""

    def wait() -> None:
        while os.read(descriptor, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def keep_output_apart() -> int:
    """Take the pipe to the parent off standard output, where what anything prints would be taken for a report."""
    reports = os.dup(1)
    os.dup2(2, 1)
    return reports


def main() -> None:
    """Do what the order says."""
    reports = keep_output_apart()
    order = Order.from_json(sys.stdin.readline())
    die_with_parent(0)
    sys.exit(work(order, reports))


if __name__ == "__main__":
    main()
