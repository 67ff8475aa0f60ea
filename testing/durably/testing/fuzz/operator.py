"""Who looks after a program that runs: sends what it waits for, retries and forks it. The same for all engines."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from durably.core import Backend, Event, Run, RunStatus
from durably.core.errors import RunNotFoundError
from durably.core.history import History
from durably.core.repair import cut_after
from durably.core.run_view import LIVE
from durably.testing.fuzz.durable_program import DurableProgram
from durably.testing.fuzz.oracle import expect, expect_fork, may_cut
from durably.testing.fuzz.program_laws import Part
from durably.testing.fuzz.programs import Block

__all__ = ["Operator"]


class Operator:
    """Does what is to be done whenever a program has come to rest. It may begin anew in each life of a worker.

    Args:
        block: The program.
        program: The program made durable.
        run_id: Its run.
        fork: Behind which of its steps it is forked once it has ended, counted round and round; ``None``: not at all.

    Attributes:
        expected: What the run must come to.
    """

    def __init__(self, block: Block, program: DurableProgram, run_id: str, fork: int | None = None) -> None:
        self.expected = expect(block)
        self._block = block
        self._program = program
        self.run_id = run_id
        self._fork = fork

    @property
    def fork_id(self) -> str:
        """The id of the fork."""
        return f"{self.run_id}-fork"

    async def act(self, backend: Backend) -> bool:
        """Do what is next; ``False`` once there is nothing more to do."""
        run = await backend.run(self.run_id)
        if run.status.final:
            if await self._retry(run) or await self._fork_once(backend, run):
                return True
            if not await backend.runs(status=LIVE, limit=1):
                return False
        await self.send(backend)
        return True

    async def send(self, backend: Backend) -> None:
        """Send the events that the program waits for, to those who wait by now."""
        await backend.send(*[Event("program/outside", {"key": key}) for key in sorted(self._program.awaited)])

    async def _retry(self, run: Run[object]) -> bool:
        if not self.expected.retried or run.status is not RunStatus.FAILED:
            return False
        if any(record.status == "resumed" for record in await run.history()):
            return False
        self._program.heal()
        await run.retry()
        return True

    async def _fork_once(self, backend: Backend, run: Run[object]) -> bool:
        cut = self._cut(await run.history())
        if cut is None:
            return False
        with suppress(RunNotFoundError):
            return (await backend.run(self.fork_id)).id != self.fork_id
        await run.fork(cut, run_id=self.fork_id)
        return True

    def _cut(self, history: History) -> str | None:
        """The step behind which the run is forked."""
        if self._fork is None:
            return None
        keys = [key for key in dict.fromkeys(record.key for record in history.steps()) if may_cut(_taken(history, key))]
        return keys[self._fork % len(keys)] if keys else None

    def parts(self, history: History) -> Sequence[Part]:
        """What the runs of the program must come to.

        Args:
            history: The records of the run that was not forked.
        """
        cut = self._cut(history)
        parts = [Part([self.run_id], self.expected)]
        if cut is not None:
            parts.append(Part([self.fork_id], expect_fork(self._block, _taken(history, cut))))
        return parts


def _taken(history: History, cut: str) -> dict[str, bool]:
    """The steps that a fork behind one begins with, and whether each has failed."""
    before = history.records[: cut_after(history.records, cut)]
    last = {record.key: record for record in before if record.key}
    return {key: record.status == "failed" for key, record in last.items() if record.final}
