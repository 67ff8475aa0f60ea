"""The run of the last demo, kept so that it can be looked at, and the command that opens it."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from examples.audit.demo.job import RUN_ID

__all__ = ["command_for", "keep_run"]


def keep_run(journal: Path) -> Path:
    """Copy a journal to this user's own cache, in the place of the one of the demo before; where it is now.

    Args:
        journal: The SQLite file of a run that has ended.

    Raises:
        OSError: If there is no room, or no such place.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "durably"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = folder / "demo.db"
    fresh = folder / f"demo-{os.getpid()}.db"
    # Not a copy of the file alone: what was committed last stands beside it, in the log of SQLite.
    with closing(sqlite3.connect(journal)) as source, closing(sqlite3.connect(fresh)) as copy:
        source.backup(copy)
    fresh.chmod(0o600)
    return fresh.replace(kept)


def command_for(journal: Path) -> str:
    """The command that opens the page at the run of a demo, as this installation is called."""
    own = Path(sys.executable).parent / "durably"
    program = "durably" if shutil.which("durably") or not own.exists() else os.path.relpath(own)
    return shlex.join([program, "ui", RUN_ID, "--backend", f"sqlite:///{journal}"])
