"""A state machine over one store and several workers: Hypothesis plays the operator, the network and the clock.

Workers stop at every point they pass until a rule lets one go on, so that two of them can be interleaved in any way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from durably.backends.replay.backend import ReplayBackend
from durably.core import Event, RunCancelledError, RunStatus
from durably.core.run_view import LIVE
from durably.core.steps import Point
from durably.core.stream import StreamReader
from durably.testing.fuzz.durable_program import DurableProgram
from durably.testing.fuzz.faults import WorkerKilledSignal
from durably.testing.fuzz.machine_stores import MachineStore, MemoryStore
from durably.testing.fuzz.operator import Operator
from durably.testing.fuzz.program_laws import Part, check_end, check_program, check_snapshot
from durably.testing.fuzz.programs import Block
from durably.testing.fuzz.strategies import forks, programs
from durably.testing.laws import append_only, every_run_ends, raise_violations
from durably.testing.snapshot import Snapshot

try:
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
except ImportError as error:
    raise ImportError("durably.testing.fuzz.state_machine needs Hypothesis: pip install 'durably[testing]'") from error

__all__ = ["DurableStateMachine", "SteppedWorker"]

MOST_WORKERS = 4
TURNS = 24
WRITES = 4
"""So many turns of the loop lie between two looks at what workers are about to write."""

ROUNDS = 60


class SteppedWorker:
    """A backend that waits at each point until it is let go on.

    Attributes:
        backend: The backend.
        gates: The points where it waits, each with what lets it go on.
        free: Whether it no longer waits anywhere.
        closed: Whether it is dead or has stopped.
    """

    def __init__(self, make: Callable[[], ReplayBackend]) -> None:
        self.backend = make()
        self.backend.probe = self._wait_at
        self.backend.drain_timeout = 0.2
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

    Subclass it to try a variant: override :meth:`store`.
    """

    def store(self) -> MachineStore:
        """The store that its workers share, empty."""
        return MemoryStore()

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stored = self.store()
        self.clock = self.stored.clock
        self.program: DurableProgram | None = None
        self.workers: list[SteppedWorker] = []
        self.runs: list[str] = []
        self.cancelled: set[str] = set()
        self.sent: list[Event] = []
        self.stolen = False
        self.fork: int | None = None
        self.before = Snapshot({})
        self.read: dict[str, list[tuple[int, Any]]] = {}

    # -- the rules

    @initialize(block=programs(leaves=6), fork=forks())
    def write(self, block: Block, fork: int | None) -> None:
        """Choose a program."""
        self.block = block
        self.fork = fork
        self.program = DurableProgram(block)
        self.open_worker()

    @precondition(lambda self: len(self.workers) < MOST_WORKERS)
    @rule()
    def open_worker(self) -> None:
        """One more worker on the same store; it takes the runs whose owner is gone."""
        program = self._program()
        worker = SteppedWorker(lambda: self.stored.open(program.functions))
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
        backend = self._pick(number).backend
        backend.journal.bury(backend.worker)
        self.stolen = True

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
        """The store refuses so many commits."""
        self.stored.refuse(times)

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
    def the_laws_hold(self) -> None:
        """L4, L8 and L13 of the records, C29 of the streams, C21 of what was cancelled."""
        now = self.stored.snapshot()
        raise_violations([*append_only(self.before, now), *check_snapshot(now)])
        self.before = now
        for log in now.runs.values():
            items = StreamReader(log.id, log.function).read(log.history.records, self._do(self.stored.pieces(log.id)))
            # Whether a piece was given up is known only later.
            read, before = [(item.offset, item.event) for item in items], self.read.get(log.id, [])
            assert read[: len(before)] == before, f"L5: the stream of run {log.id} has changed"
            self.read[log.id] = read
        for run_id in self.cancelled:
            assert now.runs[run_id].status is RunStatus.CANCELLED, "C21: a cancelled run has gone on"

    def teardown(self) -> None:
        """With the faults over, everything comes to its end, and to the right one."""
        try:
            if self.program is not None:
                self.stored.refuse(None)
                for worker in self.workers:
                    self._close(worker)
                self._do(asyncio.wait_for(self._finish(), 20))
                self.the_laws_hold()
                self._check_ends()
        finally:
            self.loop.close()
            self.stored.close()

    async def _finish(self) -> None:
        operators = [Operator(self.block, self._program(), run_id, self.fork) for run_id in self._uncancelled()]
        async with self.stored.open(self._program().functions) as backend:
            for _ in range(ROUNDS):
                await backend.drain()
                if await backend.runs(status=LIVE, limit=1):
                    await backend.send(*[Event("program/outside", {"key": key}) for key in self._program().awaited])
                # The world is mended for all of them at once, so none may be under way any more.
                elif not any([await operator.act(backend) for operator in operators]):
                    break
            for run_id in self.cancelled:
                try:
                    await (await backend.run(run_id)).result()
                except RunCancelledError:
                    continue
                raise AssertionError("C21: a cancelled run has a result")

    def _check_ends(self) -> None:
        after, parts = self.before, list[Part]()
        for run_id in self._uncancelled():
            operator = Operator(self.block, self._program(), run_id, self.fork)
            parts += operator.parts(after.runs[run_id].history)
        if self.cancelled:  # such a run has told of some events and made some calls, nobody knows how many
            raise_violations(every_run_ends(after))
            for part in parts:
                for run_id in part.run_ids:
                    raise_violations(check_end(after.runs[run_id], part.expected))
        else:
            raise_violations(check_program(after, self._program(), parts, repeated=True, owned=not self.stolen))

    def _uncancelled(self) -> list[str]:
        return [run_id for run_id in self.runs if run_id not in self.cancelled]

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
            for turn in range(TURNS):
                await asyncio.sleep(0)
                if turn % WRITES == WRITES - 1:
                    for worker in self.workers:
                        if not worker.closed:
                            self.stored.settle(worker.backend)
            return value

        return self.loop.run_until_complete(settle())


async def _die(backend: ReplayBackend) -> None:
    backend.crash(WorkerKilledSignal())


async def _nothing() -> None:
    return
