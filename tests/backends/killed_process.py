"""One life of a process that kills itself at a point, or goes on to its end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["live"]


def live(child: Path, directory: Path, *args: str) -> tuple[int, Any]:
    """Run a program on the journal and the ledger of a directory.

    Args:
        child: The program.
        directory: Where ``runs.db`` and ``ledger`` are.
        args: What else it is told: where it is to kill itself.

    Returns:
        Its exit code, and what it printed.
    """
    done = subprocess.run(
        [sys.executable, child, directory / "runs.db", directory / "ledger", *args],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else None
