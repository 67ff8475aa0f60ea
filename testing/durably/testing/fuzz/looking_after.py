"""Runs of a program on an engine that goes on by itself: looked after until all is done, and read when it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from durably.core import Backend, Function, Run
from durably.core.run_view import LIVE
from durably.testing.conformance.subject import Subject
from durably.testing.fuzz.durable_program import DurableProgram
from durably.testing.fuzz.operator import Operator
from durably.testing.laws import Violation, raise_violations
from durably.testing.laws.violation import MUST_END
from durably.testing.snapshot import RunLog, Snapshot

__all__ = ["HOUR", "read_runs", "until_over"]

HOUR = 3660.0
"""The longest sleep in a program, with a minute more: some engines wake a little later than asked."""

MANY = 1000
ROUNDS = 400
"""How often a program may be looked after before it counts as stuck."""

PAUSE = 0.05
"""Real seconds between two looks."""


async def until_over(
    subject: Subject, backend: Backend, program: DurableProgram, operators: Sequence[Operator], runs: Sequence[Run[Any]]
) -> None:
    """Do what each operator has to do until nothing more will happen.

    Args:
        subject: The engine.
        backend: A worker.
        program: The program.
        operators: Who looks after the runs: one each.
        runs: The program's own runs.

    Raises:
        BrokenLawError: If that takes too long.
    """
    for _ in range(ROUNDS):
        await _rest(backend, runs)
        over = all(run.status.final for run in runs)
        if not over:
            for operator in operators:
                await operator.send(backend)
        for clockwork in _crons(program):
            over &= await subject.ring(backend, clockwork, again=not over)
        # The world is mended for all runs at once, so none may be under way any more.
        if over and not any([await operator.act(backend) for operator in operators]):
            return
    raise_violations([Violation("L12", f"the program did not end within {ROUNDS} looks", MUST_END)])


def _crons(program: DurableProgram) -> list[Function[Any, Any]]:
    return [each for each in program.functions if each.cron is not None]


async def _rest(backend: Backend, runs: Sequence[Run[Any]]) -> None:
    """Wait for the end of a run that is live, the program's own first, but not for long."""
    for run in runs:
        await run.refresh()
    live = await backend.runs(status=LIVE, limit=1)
    waited = next((run for run in runs if not run.status.final), next(iter(live), None))
    if waited is not None:
        ended = asyncio.ensure_future(waited.ended())
        await asyncio.wait({ended}, timeout=PAUSE)
        if ended.done():
            ended.result()
        ended.cancel()


async def read_runs(backend: Backend) -> Snapshot:
    """Every run, each at its end."""
    logs: list[RunLog] = []
    for run in await backend.runs(limit=MANY):
        listed = run.view
        await run.ended()  # a server may list a run as ended a little before it can tell how
        logs.append(RunLog(run.id, listed.function, run.status, listed.parent, await run.history()))
    return Snapshot({log.id: log for log in reversed(logs)})
