"""The ledger: what bodies themselves wrote down when they started, in a file that no engine knows of."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from durably.core import current_step

__all__ = ["Ledger", "Start", "append_line"]


class Start(BaseModel):
    """One start of a body.

    Attributes:
        run: The run.
        step: The step key.
        attempt: Which execution of the step it believes to be.
        key: The idempotency key it was given.
        process: The number of the process, from 1.
        pid: Its id.
        at: Seconds since 1970.
    """

    model_config = ConfigDict(frozen=True)

    run: str
    step: str
    attempt: int
    key: str
    process: int
    pid: int
    at: float


class Ledger:
    """An append-only file of starts, one JSON line each.

    Args:
        path: The file.
        process: The number of this process.
    """

    def __init__(self, path: Path, process: int) -> None:
        self.path = path
        self.process = process
        self._lock = threading.Lock()

    def enter(self) -> None:
        """Note that a body starts; every body of the demo calls this before anything else."""
        step = current_step()
        start = Start(
            run=step.run_id,
            step=step.key,
            attempt=step.attempt,
            key=step.idempotency_key,
            process=self.process,
            pid=os.getpid(),
            at=time.time(),
        )
        with self._lock:
            append_line(self.path, start.model_dump_json())
        step.heartbeat()

    @staticmethod
    def read(path: Path) -> list[Start]:
        """All starts, in order."""
        if not path.exists():
            return []
        return [Start.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


def append_line(path: Path, line: str) -> None:
    """Append one line with one write, so that a kill leaves it there whole or not at all."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)
