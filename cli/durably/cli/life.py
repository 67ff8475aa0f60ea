"""The life of one child process, as its parent sees it: what it told, and how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from durably.cli.job import Job
from durably.cli.worker import Mark

__all__ = ["Life"]


class Life:
    """One child process.

    Args:
        job: Its work.
        number: Which process of the run it is, from 1.
        kills: How many planned kills came about before.

    Attributes:
        marks: What it told so far.
        began: When it was started, by the monotonic clock.
        ended: When it was gone, or ``None``.
        first_work: After how many seconds it ran its first body.
        committed: The steps the journal held when it was gone, those it had no time to tell of included, and how
            many seconds each took.
        code: Its return code, or ``None`` while it lives.
    """

    def __init__(self, job: Job, number: int, kills: int) -> None:
        self.number = number
        self.marks: list[Mark] = []
        self.began = time.monotonic()
        self.ended: float | None = None
        self.first_work: float | None = None
        self.committed: dict[str, float] = {}
        with job.log.open("ab") as log:
            self._child = subprocess.Popen(
                # -P: a module that lies in the current folder is not to be taken for one of the standard library.
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "durably.cli.worker",
                    str(job.path),
                    str(number),
                    str(kills),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(each).resolve()) for each in sys.path)},
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._child.pid

    @property
    def code(self) -> int | None:
        """The return code, negative for a signal."""
        return self._child.returncode

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL was its end."""
        return self.code == -signal.SIGKILL

    @property
    def kill(self) -> Mark | None:
        """The planned kill that ended it."""
        # Not always its last word: another branch may tell of a commit before the signal takes hold.
        killed = [mark for mark in self.marks if mark.what == "killed"]
        return killed[-1] if killed and self.was_killed else None

    @property
    def seconds(self) -> float:
        """How long it lived so far."""
        return (self.ended or time.monotonic()) - self.began

    @property
    def in_flight(self) -> set[str]:
        """The steps it had begun and not committed at its end."""
        return {mark.step for mark in self.marks if mark.what == "started"} - self.committed.keys()

    def follow(self) -> Iterator[Mark]:
        """What it tells, while it lives. Afterwards it is gone, whatever happens here."""
        try:
            assert self._child.stdout is not None
            for line in self._child.stdout:
                mark = Mark.model_validate_json(line)
                if mark.what == "started" and self.first_work is None:
                    self.first_work = self.seconds
                self.marks.append(mark)
                yield mark
            self._child.wait()
        finally:
            self.end()

    def end(self) -> None:
        """Kill it if it lives, and take it off the process table."""
        self._child.kill()
        self._child.wait()
        self.ended = self.ended or time.monotonic()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
