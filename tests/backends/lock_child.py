"""A process that takes the lock of a SQLite file for writing, and gives it back, when it is told to by a line.

Called as: python -m tests.backends.lock_child PATH. It says "held" once it has the lock.
"""

from __future__ import annotations

import sqlite3
import sys

if __name__ == "__main__":
    file = sqlite3.connect(sys.argv[1], isolation_level=None)
    for line in sys.stdin:
        file.execute("BEGIN IMMEDIATE" if line == "hold\n" else "ROLLBACK")
        print("held" if line == "hold\n" else "free", flush=True)
