"""The server's side of a fork server: imports what it is told to, then forks once for each order.

``python -m durably.testing.crash.fork_server_main LEASH``, with a descriptor that is closed when the parent is gone.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from durably.testing.crash.import_path import ImportPath
from durably.testing.crash.order import Order
from durably.testing.crash.worker_main import die_with_parent, keep_output_apart, work

__all__: list[str] = []


def main() -> None:
    """Read what to import, and orders, a line each; tell of each child when it begins and when it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent closes standard input when it is interrupted
    leash, reports = int(sys.argv[1]), keep_output_apart()
    for line in sys.stdin:
        if line.startswith("["):
            for each in json.loads(line):
                ImportPath(*each).load()
            continue
        begin, go = os.pipe()
        sys.stdout.flush()  # or the child would print it once more
        child = os.fork()
        if child == 0:
            os.read(begin, 1)  # what it reports must come after the line that tells of it
            _live(Order.from_json(line), reports, leash)
        _tell(reports, pid=child)
        os.write(go, b"\n")
        _, status = os.waitpid(child, 0)
        os.close(begin)
        os.close(go)
        _tell(reports, exit=os.waitstatus_to_exitcode(status))


def _tell(reports: int, **said: int) -> None:
    os.write(reports, json.dumps(said).encode() + b"\n")


def _live(order: Order, reports: int, leash: int) -> None:
    status = 1
    try:
        die_with_parent(leash)
        status = work(order, reports)
    finally:
        # Not sys.exit: a forked child must not run what the server has registered for its own exit.
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
