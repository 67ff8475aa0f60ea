"""A state machine over an engine that goes on by itself, and several workers.

Hypothesis plays the operator. In ``state_machine.py`` workers step from point to point, which can be done where all of
the engine is in this process. A server goes on at its own pace. So here the workers run while a rule is carried out,
and stand still between two rules.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, ClassVar

from durably.core import Backend, Capabilities, Event, Run, RunStatus
from durably.core.deltas import DeltaStore, MemoryDeltas
from durably.core.errors import RunNotFoundError
from durably.core.steps import Point
from durably.testing.conformance.subject import Kill, Subject
from durably.testing.fuzz.durable_program import DurableProgram
from durably.testing.fuzz.looking_after import HOUR, read_runs, until_over
from durably.testing.fuzz.operator import Operator
from durably.testing.fuzz.program_laws import check_end, check_program, check_stream
from durably.testing.fuzz.strategies import Missed, forks, programs
from durably.testing.laws import (
    append_only,
    ends_once,
    every_run_ends,
    one_key_per_step,
    raise_violations,
    settled_once,
)
from durably.testing.snapshot import RunLog, Snapshot

try:
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
except ImportError as error:
    raise ImportError("durably.testing.fuzz needs Hypothesis: pip install 'durably[testing]'") from error

__all__ = ["SubjectStateMachine"]

MOST_WORKERS = 3
MOST_RUNS = 2


class _Worker:
    """A worker that dies at one of its next points, once it is told to.

    Attributes:
        backend: The backend.
        fuse: How many points it still passes; ``None``: it lives on.
        dead: Whether it has died.
        lost: Whether its lease has ended while it goes on.
    """

    def __init__(self, context: AbstractAsyncContextManager[Backend], backend: Backend) -> None:
        self.backend = backend
        self.fuse: int | None = None
        self.dead = False
        self.lost = False
        self._context = context
        backend.probe = self._probe

    def _probe(self, point: Point) -> None:
        if self.fuse is not None:
            self.dead |= self.fuse == 0
            self.fuse = max(0, self.fuse - 1)
        if self.dead:
            raise Kill

    async def close(self) -> None:
        """Stop it, or bury it."""
        with suppress(Kill):
            await self._context.__aexit__(None, None, None)


class SubjectStateMachine(RuleBasedStateMachine):
    """Random programs, started, crashed, stolen, delivered again, cancelled; laws are looked at after every rule.

    Subclass it for an engine.

    Attributes:
        capabilities: What the engine has; ``None``: everything.
        crons: What becomes of the times that crons missed which programs wait for.
        pace: Seconds that one second of a program takes.
        breath: For how many real seconds the workers run, at most, where a rule lets time pass.
        patience: Real seconds in which everything must have come to its end.
    """

    capabilities: ClassVar[Capabilities | None] = None
    crons: ClassVar[Sequence[Missed]] = ("once", "each")
    pace: ClassVar[float] = 1.0
    breath: ClassVar[float] = 0.05
    patience: ClassVar[float] = 60.0

    def make_subject(self) -> Subject:
        """The engine, empty."""
        raise NotImplementedError(f"{type(self).__name__} does not say which engine: write make_subject()")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.subject = self.make_subject()
        self.workers: list[_Worker] = []
        self.runs: list[str] = []
        self.asked_to_cancel: set[str] = set()
        self.sent: list[Event] = []
        self.stolen = False
        self.before = Snapshot({})
        self.deltas: DeltaStore | None = None if self.subject.keeps_deltas else MemoryDeltas()
        self.program: DurableProgram | None = None

    # -- the rules

    @initialize(data=st.data())
    def write(self, data: st.DataObject) -> None:
        """Choose a program."""
        drawn = programs(leaves=5, capabilities=self.capabilities, crons=self.crons)
        self.block = data.draw(drawn, label="program")
        self.fork = data.draw(forks(capabilities=self.capabilities), label="fork")
        token, months = self.subject.token, not self.subject.rings
        self.program = DurableProgram(self.block, pace=self.pace, token=token, months=months)
        self._do(self._open())

    # What may be done next must not depend on how far the workers have come, which is another matter each time.

    @rule()
    def open_worker(self) -> None:
        """One more worker on what is stored, if there are few; it takes the runs whose owner is gone."""
        if len(self.workers) < MOST_WORKERS:
            self._do(self._open())

    @precondition(lambda self: len(self.runs) < MOST_RUNS)
    @rule(number=st.integers(0, 9))
    def start(self, number: int) -> None:
        """Start a run."""
        self.runs.append(self.subject.run_id(len(self.runs)))
        self._do(self._start(self._pick(number), self.runs[-1]))

    @rule(number=st.integers(0, 9), points=st.integers(0, 8))
    def crash(self, number: int, points: int) -> None:
        """A worker is to die, at its next point or a little later."""
        self._pick(number).fuse = points

    @precondition(lambda self: self.runs and not self.stolen)
    @rule(number=st.integers(0, 9))
    def steal_the_lease(self, number: int) -> None:
        """The lease of a worker ends while it goes on, and another one takes its runs."""
        self.stolen = True
        worker = self._pick(number)
        worker.lost = True

        async def steal() -> None:
            await self.subject.expire(worker.backend)
            await self._open()

        self._do(steal())

    @precondition(lambda self: self.runs)
    @rule(number=st.integers(0, 9), which=st.integers(0, 9))
    def deliver_twice(self, number: int, which: int) -> None:
        """The request that started a run is sent again, and so is every event."""
        worker = self._pick(number)

        async def again() -> None:
            await self._start(worker, self.runs[which % len(self.runs)])
            await worker.backend.send(*self.sent)

        self._do(again())

    @rule(number=st.integers(0, 9), key=st.integers(0, 2))
    def send(self, number: int, key: int) -> None:
        """An event from outside."""
        event = Event("program/outside", {"key": key}, id=f"sent-{self.subject.token}-{len(self.sent)}")
        self.sent.append(event)
        self._do(self._pick(number).backend.send(event))

    @rule(breaths=st.integers(1, 6))
    def let_time_pass(self, breaths: int) -> None:
        """The workers go on for a while."""

        async def wait() -> None:
            for _ in range(breaths):
                live = self._serving()
                if not live or not self.runs:
                    await asyncio.sleep(self.breath)
                    continue
                run = await live[0].backend.run(self.runs[-1])
                ended = asyncio.ensure_future(run.ended())
                await asyncio.wait({ended}, timeout=self.breath)
                ended.cancel()

        self._do(wait())

    @precondition(lambda self: self.runs)
    @rule(number=st.integers(0, 9), which=st.integers(0, 9))
    def cancel(self, number: int, which: int) -> None:
        """A run is cancelled."""
        worker, run_id = self._pick(number), self.runs[which % len(self.runs)]
        self.asked_to_cancel.add(run_id)

        async def cancel() -> None:
            await (await worker.backend.run(run_id)).cancel()

        self._do(cancel())

    # -- the laws

    @invariant()
    def the_laws_hold(self) -> None:
        """L4 and L13 of the records, C21 of what was cancelled; of all ends, that they are final."""
        if not self._serving() or not self.runs:
            return
        logs: list[RunLog] = []
        backend = self._pick(0).backend

        async def look() -> None:
            for run_id in self.runs:
                run = await backend.run(run_id)
                if run.status.final:
                    await run.ended()  # a server may say so a little before it can tell how
                logs.append(RunLog(run_id, run.view.function, run.status, run.view.parent, await run.history()))

        self._do(look())
        # What a worker that died meanwhile could not be asked for is as it was.
        self._compare(Snapshot({**self.before.runs, **{log.id: log for log in logs}}))

    def _compare(self, now: Snapshot) -> None:
        raise_violations([*append_only(self.before, now), *settled_once(now), *ends_once(now)])
        for run_id, log in self.before.runs.items():
            if log.status.final:
                assert now.runs[run_id].status is log.status, f"C21, L13: run {run_id} has ended twice"
        self.before = now

    def teardown(self) -> None:
        """With the faults over, everything comes to its end, and to the right one."""
        try:
            if self.program is not None:
                self.runner.run(asyncio.wait_for(self._finish(self.program), self.patience))
        finally:
            self.runner.close()

    async def _finish(self, program: DurableProgram) -> None:
        for worker in self.workers:
            await worker.close()
        async with self.subject.open(program.functions, deltas=self.deltas) as backend:
            with self.subject.still(HOUR):
                runs = [await backend.start(program.functions[0], run_id=run_id) for run_id in self.runs]
                cancelled = [run for run in runs if run.id in self.asked_to_cancel and await _is_cancelled(run)]
                alive = [run for run in runs if run not in cancelled]
                operators = [Operator(self.block, program, run.id, self.fork) for run in alive]
                await until_over(self.subject, backend, program, operators, alive)
            after = await read_runs(backend)
            pieces = {} if backend.deltas is None else {id: await backend.deltas.read(id, 0) for id in after.runs}
        self._compare(after)
        parts = [part for each in operators for part in each.parts(after.runs[each.run_id].history)]
        if cancelled:  # such a run has told of some events and made some calls, nobody knows how many
            raise_violations(every_run_ends(after))
            for part in parts:
                raise_violations([each for id in part.run_ids for each in check_end(after.runs[id], part.expected)])
        else:
            raise_violations(check_program(after, program, parts, repeated=True, owned=not self.stolen))
        streams = [each for log in after.runs.values() for each in check_stream(log, pieces.get(log.id, ()))]
        raise_violations([*streams, *one_key_per_step(program.ledger)])

    # -- driving

    def _serving(self) -> list[_Worker]:
        return [worker for worker in self.workers if not worker.dead and not worker.lost]

    def _pick(self, number: int) -> _Worker:
        """A worker that is up; if there is none, one more."""
        if not self._serving():
            self._do(self._open())
        return self._serving()[number % len(self._serving())]

    async def _open(self) -> None:
        assert self.program is not None
        context = self.subject.open(self.program.functions, deltas=self.deltas)
        self.workers.append(_Worker(context, await context.__aenter__()))

    async def _start(self, worker: _Worker, run_id: str) -> None:
        assert self.program is not None
        await worker.backend.start(self.program.functions[0], run_id=run_id)

    def _do(self, work: Awaitable[Any]) -> None:
        """Do something; a worker may die over it, and is buried."""

        async def do() -> None:
            with suppress(Kill, RunNotFoundError):  # a worker that died over a start may not have got to it
                await work
            while dead := [worker for worker in self.workers if worker.dead]:
                self.workers.remove(dead[0])
                await dead[0].close()

        # Or the time might go on to where a wait for an event from outside is given up.
        with self.subject.still(HOUR):
            self.runner.run(do())


async def _is_cancelled(run: Run[Any]) -> bool:
    """Cancel a run once more, since a worker may have died over it; whether that, or what was before, has ended it."""
    await run.cancel()
    await run.ended()
    return run.status is RunStatus.CANCELLED
