"""A state machine over one journal and several workers: Hypothesis plays the operator, the network and the clock.

Workers stop at every point they pass until a rule lets one go on, so that two of them can be interleaved in any way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from durably.backends.memory import MemoryBackend
from durably.backends.replay.clock import VirtualClock
from durably.core import Event, RunCancelledError, RunStatus
from durably.core.steps import Point
from durably.testing.fuzz.durable_program import DurableProgram
from durably.testing.fuzz.faults import FaultyJournal, WorkerKilledSignal
from durably.testing.fuzz.law_checks import check_ends, check_journal
from durably.testing.fuzz.oracle import expect
from durably.testing.fuzz.programs import Block
from durably.testing.fuzz.strategies import programs
from durably.testing.laws import append_only, raise_violations, same_event_count, same_number_of_children
from durably.testing.snapshot import Snapshot

try:
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
except ImportError as error:
    raise ImportError("durably.testing.fuzz.state_machine needs Hypothesis: pip install 'durably[testing]'") from error

__all__ = ["DurableStateMachine", "SteppedWorker"]

MANY = 1_000_000
MOST_WORKERS = 4
ROUNDS = 60


class SteppedWorker:
    """A backend that waits at each point until it is let go on.

    Attributes:
        backend: The backend.
        gates: The points where it waits, each with what lets it go on.
        free: Whether it no longer waits anywhere.
        closed: Whether it is dead or has stopped.
    """

    def __init__(self, make: Callable[[], MemoryBackend]) -> None:
        self.backend = make()
        self.backend.probe = self._wait_at
        self.backend.grace = 0.2
        self.gates: list[asyncio.Future[None]] = []
        self.free = False
        self.closed = False

    def _wait_at(self, point: Point) -> Awaitable[None] | None:
        if self.free:
            return None
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        return gate

    def release(self, number: int) -> None:
        """Let one of the waiting tasks pass its point."""
        gate = self.gates.pop(number % len(self.gates))
        if not gate.done():  # its task may have been cancelled while it waited
            gate.set_result(None)

    def release_all(self) -> None:
        """Stop nowhere any more."""
        self.free = True
        while self.gates:
            self.release(0)


class DurableStateMachine(RuleBasedStateMachine):
    """Random programs, started, stepped, crashed, stolen, cancelled; every law is looked at after every rule.

    Subclass it to try a variant: override ``backend`` or ``storage``.
    """

    backend: type[MemoryBackend] = MemoryBackend
    storage: type[FaultyJournal] = FaultyJournal

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.journal = self.storage()
        self.clock = VirtualClock()
        self.program: DurableProgram | None = None
        self.workers: list[SteppedWorker] = []
        self.runs: list[str] = []
        self.cancelled: set[str] = set()
        self.sent: list[Event] = []
        self.before = Snapshot({})

    # -- the rules

    @initialize(block=programs(leaves=6))
    def write(self, block: Block) -> None:
        """Choose a program."""
        self.block = block
        self.program = DurableProgram(block)
        self.open_worker()

    @precondition(lambda self: len(self.workers) < MOST_WORKERS)
    @rule()
    def open_worker(self) -> None:
        """One more worker on the same journal; it takes the runs whose owner is gone."""
        program = self._program()
        options: dict[str, Any] = {"journal": self.journal, "clock": self.clock}
        worker = SteppedWorker(lambda: self.backend(program.functions, **options))
        self._do(worker.backend.__aenter__())
        self.workers.append(worker)

    @precondition(lambda self: self._alive() and len(self.runs) < 2)
    @rule(number=st.integers(0, 9))
    def start(self, number: int) -> None:
        """Start a run."""
        run_id = f"run{len(self.runs)}"
        self._do(self._pick(number).backend.start(self._program().functions[0], run_id=run_id))
        self.runs.append(run_id)

    @precondition(lambda self: any(worker.gates for worker in self.workers))
    @rule(number=st.integers(0, 9), which=st.integers(0, 9), times=st.integers(1, 6))
    def step(self, number: int, which: int, times: int) -> None:
        """Let a task of a worker go on to its next point, a few times."""
        for _ in range(times):
            waiting = [worker for worker in self.workers if worker.gates]
            if waiting:
                waiting[number % len(waiting)].release(which)
                self._do(_nothing())

    @precondition(lambda self: self._alive())
    @rule(number=st.integers(0, 9))
    def crash(self, number: int) -> None:
        """A worker dies."""
        worker = self._pick(number)
        self._do(_die(worker.backend))
        self._close(worker)

    @precondition(lambda self: self._alive())
    @rule(number=st.integers(0, 9))
    def steal_the_lease(self, number: int) -> None:
        """The lease of a worker ends, while it goes on; whoever is opened next takes its runs."""
        self.journal.bury(self._pick(number).backend.worker)

    @precondition(lambda self: self._alive() and self.runs)
    @rule(number=st.integers(0, 9), which=st.integers(0, 9))
    def deliver_twice(self, number: int, which: int) -> None:
        """The request that started a run is sent again, and so is every event."""
        backend = self._pick(number).backend
        self._do(backend.start(self._program().functions[0], run_id=self.runs[which % len(self.runs)]))
        self._do(backend.send(*self.sent))

    @precondition(lambda self: self._alive())
    @rule(number=st.integers(0, 9), key=st.integers(0, 2))
    def send(self, number: int, key: int) -> None:
        """An event from outside."""
        event = Event("program/outside", {"key": key}, id=f"sent-{len(self.sent)}")
        self.sent.append(event)
        self._do(self._pick(number).backend.send(event))

    @rule(seconds=st.sampled_from([-3600.0, 0.5, 7.0, 100_000.0]))
    def set_the_clock(self, seconds: float) -> None:
        """The clock is set."""
        self.clock.shift(seconds)

    @rule()
    def let_time_pass(self) -> None:
        """The next timer rings."""

        async def ring() -> None:  # in the loop: what is taken up then begins a task
            self.clock.advance()

        self._do(ring())

    @rule(times=st.sampled_from([1, 3, 9]))
    def refuse(self, times: int) -> None:
        """The journal refuses so many commits."""
        self.journal.refuse += times

    @precondition(lambda self: self._alive() and self.runs)
    @rule(number=st.integers(0, 9), which=st.integers(0, 9))
    def cancel(self, number: int, which: int) -> None:
        """A run is cancelled."""
        backend = self._pick(number).backend
        run = self._do(backend.run(self.runs[which % len(self.runs)]))
        self._do(run.cancel())
        if run.status is RunStatus.CANCELLED:
            self.cancelled.add(run.id)

    # -- the laws

    @invariant()
    def what_is_recorded_stays(self) -> None:
        """L4, L8 and L13."""
        now = Snapshot.of_journal(self.journal)
        raise_violations([*append_only(self.before, now), *check_journal(now)])
        self.before = now

    @invariant()
    def cancelled_stays_cancelled(self) -> None:
        """C21."""
        for run_id in self.cancelled:
            row = self.journal.get(run_id)
            assert row is not None
            assert row.status is RunStatus.CANCELLED

    def teardown(self) -> None:
        """With the faults over, everything comes to its end, and to the right one."""
        try:
            if self.program is not None:
                self.journal.refuse = 0
                for worker in self.workers:
                    self._close(worker)
                self._do(asyncio.wait_for(self._finish(), 20))
                self.what_is_recorded_stays()
                self._check_ends()
        finally:
            self.loop.close()

    async def _finish(self) -> None:
        program = self._program()
        async with self.backend(program.functions, journal=self.journal, clock=self.clock) as backend:
            for _ in range(ROUNDS):
                await backend.drain()
                if all(row.status.final for row in self.journal.rows(None, None, MANY)):
                    break
                await backend.send(*[Event("program/outside", {"key": key}) for key in program.awaited])
            for run_id in self.runs:
                run = await backend.run(run_id)
                assert run.status.final, f"L12: {run} has not ended"
                if run.status is RunStatus.CANCELLED:
                    try:
                        await run.result()
                    except RunCancelledError:
                        continue
                    raise AssertionError("C21: a cancelled run has a result")

    def _check_ends(self) -> None:
        expected = expect(self.block)
        raise_violations(check_ends(self.journal, set(self.runs) - self.cancelled, expected))
        if not self.cancelled:  # a cancelled run has told of some events and made some calls, nobody knows how many
            runs, after = len(self.runs), Snapshot.of_journal(self.journal)
            raise_violations(same_event_count(expected.told * runs, len(self._program().told)))
            raise_violations(same_number_of_children(expected.children * runs, after))

    # -- driving

    def _program(self) -> DurableProgram:
        assert self.program is not None
        return self.program

    def _alive(self) -> bool:
        return any(not worker.closed for worker in self.workers)

    def _pick(self, number: int) -> SteppedWorker:
        alive = [worker for worker in self.workers if not worker.closed]
        return alive[number % len(alive)]

    def _close(self, worker: SteppedWorker) -> None:
        if not worker.closed:
            worker.closed = True
            worker.release_all()
            self._do(worker.backend.__aexit__())
        if worker in self.workers:
            worker.gates.clear()

    def _do(self, work: Awaitable[Any]) -> Any:
        """Do something, then let every task run until it waits at a point."""

        async def settle() -> Any:
            value = await work
            # A turn of the loop takes each ready task one await further; so many turns take all of them to a point.
            for _ in range(20):
                await asyncio.sleep(0)
            return value

        return self.loop.run_until_complete(settle())


async def _die(backend: MemoryBackend) -> None:
    backend.crash(WorkerKilledSignal())


async def _nothing() -> None:
    return
