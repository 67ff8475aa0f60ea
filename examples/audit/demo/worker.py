"""What runs in the demo's worker processes: they bring the run to its end, unless the harness kills them first."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Any

from durably.backends import SQLiteBackend
from durably.core import Agent, RunNotFoundError
from durably.core.steps import Point, Probe
from durably.testing import EffectLedger
from examples.audit.agent import question
from examples.audit.demo.job import RUN_ID, Job
from examples.audit.demo.kill_plan import Kill
from examples.audit.demo.observed_agent import observed

__all__ = ["work", "work_unobserved"]


async def work(probe: Probe, job_data: dict[str, Any], kill_data: dict[str, Any] | None) -> None:
    """Bring the run to its end, under observation.

    Args:
        probe: Reports each point to the parent, and kills this process as planned.
        job_data: A `Job`.
        kill_data: The `Kill` that is planned for this process, or ``None``.
    """
    job = Job.model_validate(job_data)
    ledger = EffectLedger(job.ledger)
    pause = None if kill_data is None else _PauseBeforeKill(Kill.model_validate(kill_data))

    def look_on(point: Point) -> Awaitable[None] | None:
        if point.name == "after_commit":  # what starts, the bodies themselves tell the ledger
            ledger(point)
        if pause is not None:
            pause(point)
        return probe(point)

    await _bring_to_its_end(job, observed(job.agent(), ledger, pace=job.pace), look_on)


async def work_unobserved(_: Probe, job_data: dict[str, Any]) -> None:
    """Bring the run to its end as a user's program would: no probe, no ledger.

    Args:
        job_data: A `Job`.
    """
    job = Job.model_validate(job_data)
    await _bring_to_its_end(job, job.agent(), None)


async def _bring_to_its_end(job: Job, agent: Agent, probe: Probe | None) -> None:
    backend = SQLiteBackend(job.journal, functions=[agent])
    backend.probe = probe
    async with backend:
        try:
            run = await backend.run(RUN_ID)  # the backend has gone on with it by itself
        except RunNotFoundError:
            run = await backend.start(agent, question(job.label), run_id=RUN_ID)
        await run.result()


class _PauseBeforeKill:
    """Waits at the point of a kill until another step is committed.

    Args:
        kill: The kill, and how long it waits at most.
    """

    def __init__(self, kill: Kill) -> None:
        self._kill = kill
        self._passages = 0
        self._commits = 0

    def __call__(self, point: Point) -> None:
        self._commits += point.name == "after_commit"
        if self._kill.crash.hits(point):
            self._passages += 1
            if self._passages == self._kill.crash.occurrence + 1:
                self._wait()

    def _wait(self) -> None:
        # A sync body passes ``in_body`` in a thread of its own: while it waits here, the other branches go on.
        before, until = self._commits, time.monotonic() + self._kill.patience
        while self._commits == before and time.monotonic() < until:
            time.sleep(0.005)
