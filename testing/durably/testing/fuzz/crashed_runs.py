"""Random programs on any engine, with workers that crash in process and go on in the next one.

What the engine is, and how it is opened again on what it has left behind, says a subject of the conformance suite.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from durably.core import Backend, Run
from durably.core.deltas import DeltaStore, MemoryDeltas
from durably.core.run_view import LIVE
from durably.core.steps import Point
from durably.testing.conformance.subject import Kill, Subject
from durably.testing.fuzz.durable_program import DurableProgram
from durably.testing.fuzz.operator import Operator
from durably.testing.fuzz.program_laws import check_program, check_stream
from durably.testing.fuzz.programs import Block
from durably.testing.laws import Violation, one_key_per_step, raise_violations
from durably.testing.laws.violation import MUST_END
from durably.testing.snapshot import RunLog, Snapshot

__all__ = ["CrashedRun"]

MANY = 1000
ROUNDS = 400
"""How often a program may be looked after before it counts as stuck."""

HOUR = 3600.0
"""The longest sleep in a program."""

PAUSE = 0.05
"""Real seconds between two looks."""


class CrashedRun:
    """One program on one engine, under crashes.

    Args:
        subject: The engine, empty.
        block: The program.
        crashes: The crashes: each after so many points in a life.
        fork: Behind which of its steps the run is forked once it has ended; ``None``: not at all.
        pace: Seconds that one second of the program takes.

    Attributes:
        crashed: How many workers crashed.
    """

    def __init__(
        self, subject: Subject, block: Block, crashes: Sequence[int], *, fork: int | None = None, pace: float = 1.0
    ) -> None:
        self.crashed = 0
        self._subject = subject
        self._run_id = subject.run_id()
        self._program = DurableProgram(block, pace=pace)
        self._operator = Operator(block, self._program, self._run_id, fork)
        self._crashes = list(crashes)
        self._deltas: DeltaStore | None = None if subject.keeps_deltas else MemoryDeltas()
        self._passed = 0

    async def run(self) -> None:
        """Run the program to its end and hold it to the laws.

        Raises:
            BrokenLawError: If a law does not hold.
        """
        while not await self._live():
            self.crashed += 1
        async with self._subject.open(self._program.functions, deltas=self._deltas) as backend:
            after = await self._snapshot(backend)
            pieces = {} if backend.deltas is None else {id: await backend.deltas.read(id, 0) for id in after.runs}
        parts = self._operator.parts(after.runs[self._run_id].history)
        raise_violations(
            [
                *check_program(after, self._program, parts, repeated=bool(self.crashed)),
                *(each for log in after.runs.values() for each in check_stream(log, pieces.get(log.id, ()))),
                *one_key_per_step(self._program.ledger),
            ]
        )

    async def _live(self) -> bool:
        """One life of a worker; whether everything has come to its end in it."""
        self._passed = 0
        async with self._subject.open(self._program.functions, deltas=self._deltas) as backend:
            backend.probe = self._probe
            try:
                run = await backend.start(self._program.functions[0], run_id=self._run_id)
                with self._subject.still(HOUR):
                    await self._look_after(backend, run)
            except Kill:
                return False
        return True

    def _probe(self, point: Point) -> None:
        self._passed += 1
        if self._crashes and self._passed > self._crashes[0]:
            self._crashes.pop(0)
            raise Kill

    async def _look_after(self, backend: Backend, run: Run[Any]) -> None:
        for _ in range(ROUNDS):
            await self._rest(backend, run)
            if not await self._operator.act(backend):
                return
        raise_violations([Violation("L12", f"the program did not end within {ROUNDS} looks", MUST_END)])

    async def _rest(self, backend: Backend, run: Run[Any]) -> None:
        """Wait for the end of a run that is live, the program's own first, but not for long."""
        live = await backend.runs(status=LIVE, limit=1)
        await run.refresh()
        waited = run if not run.status.final else next(iter(live), None)
        if waited is not None:
            ended = asyncio.ensure_future(waited.ended())
            await asyncio.wait({ended}, timeout=PAUSE)
            if ended.done():
                ended.result()
            ended.cancel()

    async def _snapshot(self, backend: Backend) -> Snapshot:
        logs: list[RunLog] = []
        for run in await backend.runs(limit=MANY):
            listed = run.view
            await run.ended()  # a server may list a run as ended a little before it can tell how
            logs.append(RunLog(run.id, listed.function, run.status, listed.parent, await run.history()))
        return Snapshot({log.id: log for log in reversed(logs)})
