"""The child process of the demo: it works on the run, tells its parent what it does, and kills itself when told to.

``python -m durably.cli.worker JOB PROCESS KILLS`` with the job's file, the number of this process, and how many
planned kills came about already. It writes one JSON object a line (a `Mark`) and lives as long as its standard input
is open, so that it never outlives its parent.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections import Counter
from typing import Literal, NoReturn

from pydantic import BaseModel, ConfigDict

from durably.backends import SQLiteBackend
from durably.cli.audit import question
from durably.cli.job import RUN_ID, Job
from durably.cli.kills import Kill
from durably.core import DurablyError, RunNotFoundError
from durably.core.steps import Point

__all__ = ["Mark"]

What = Literal["started", "executed", "replayed", "retrying", "given up", "killed", "ended", "failed"]

TOLD: dict[str, What] = {
    "before_body": "started",
    "after_commit": "executed",
    "replay": "replayed",
    "backing_off": "retrying",
}


class Mark(BaseModel):
    """One thing a worker tells its parent.

    Attributes:
        what: What happened.
        step: The step key; empty for the run.
        seconds: How long the step took, its commit included.
        point: Where it killed itself.
        text: Why the run failed.
    """

    model_config = ConfigDict(frozen=True)

    what: What
    step: str = ""
    seconds: float = 0.0
    point: str = ""
    text: str = ""


class Probe:
    """Looks on at every point of the engine, and is the one who kills.

    Args:
        kill: When, or ``None`` to let the run end.
    """

    def __init__(self, kill: Kill | None) -> None:
        self._kill = kill
        self._began: dict[str, float] = {}
        self._returned: set[str] = set()
        self._passages: Counter[str] = Counter()
        self._commits = 0

    def __call__(self, point: Point) -> None:
        """See :data:`~durably.core.steps.Probe`."""
        if point.name == "before_body":
            self._began[point.key] = time.perf_counter()
        elif point.name == "after_effect":
            self._returned.add(point.key)
        what = TOLD.get(point.name)
        if what == "executed" and point.key not in self._returned:
            what = "given up"
        if what is not None:
            began = self._began.get(point.key)
            tell(Mark(what=what, step=point.key, seconds=0.0 if began is None else time.perf_counter() - began))
        self._commits += what == "executed"
        if self._kill is not None and self._kill.at(point):
            self._passages[point.key] += 1
            if self._passages[point.key] == self._kill.passage:
                self._die(self._kill, point)

    def _die(self, kill: Kill, point: Point) -> NoReturn:
        # A sync body passes ``in_body`` in a thread of its own: while it waits here, the other branches go on.
        before, until = self._commits, time.monotonic() + kill.patience
        while self._commits == before and time.monotonic() < until:
            time.sleep(0.005)
        tell(Mark(what="killed", step=point.key, point=point.name))
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("nobody survives SIGKILL")


def tell(mark: Mark) -> None:
    """One line to the parent; without a parent there is nothing left to do."""
    try:
        os.write(sys.stdout.fileno(), mark.model_dump_json(exclude_defaults=True).encode() + b"\n")
    except OSError:
        os._exit(1)


async def work(job: Job, process: int, kills: int) -> int:
    """Bring the run to its end: start it if nobody has, else the backend goes on with it by itself."""
    agent = job.agent(process)
    backend = SQLiteBackend(job.journal, functions=[agent])
    backend.probe = Probe(job.kills[kills] if kills < len(job.kills) else None)
    async with backend:
        try:
            run = await backend.run(RUN_ID)
        except RunNotFoundError:
            run = await backend.start(agent, question(job.label), run_id=RUN_ID)
        try:
            await run.result()
        except DurablyError as error:
            tell(Mark(what="failed", text=str(error)))
            return 1
    tell(Mark(what="ended"))
    return 0


def _leash() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def main() -> None:
    """Work until the run has ended, or until the kill."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business; it ends this process too
    threading.Thread(target=_leash, daemon=True).start()
    path, process, kills = sys.argv[1:]
    sys.exit(asyncio.run(work(Job.load(path), int(process), int(kills))))


if __name__ == "__main__":
    main()
