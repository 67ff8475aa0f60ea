"""Random programs on any engine, with workers that crash in process and go on in the next one.

What the engine is, and how it is opened again on what it has left behind, says a subject of the conformance suite.
"""

from __future__ import annotations

from collections.abc import Sequence

from durably.core.deltas import DeltaStore, MemoryDeltas
from durably.core.steps import Point
from durably.testing.conformance.subject import Kill, Subject
from durably.testing.fuzz.durable_program import DurableProgram
from durably.testing.fuzz.looking_after import HOUR, read_runs, until_over
from durably.testing.fuzz.operator import Operator
from durably.testing.fuzz.program_laws import check_program, check_stream
from durably.testing.fuzz.programs import Block
from durably.testing.laws import one_key_per_step, raise_violations

__all__ = ["CrashedRun"]


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
        self._program = DurableProgram(block, pace=pace, token=subject.token, months=not subject.rings)
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
            after = await read_runs(backend)
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
                    await until_over(self._subject, backend, self._program, [self._operator], [run])
            except Kill:
                return False
        return True

    def _probe(self, point: Point) -> None:
        self._passed += 1
        if self._crashes and self._passed > self._crashes[0]:
            self._crashes.pop(0)
            raise Kill
