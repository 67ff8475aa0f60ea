"""A program put through faults: crashes, stolen leases, journals that refuse, clocks that are set, late events.

Owns how the faults strike. What must hold of the run afterwards stands in ``law_checks.py``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, TypeGuard

from durably.backends.replay.backend import ReplayBackend
from durably.core import Event
from durably.core.steps import Point
from durably.testing.fuzz.durable_program import DurableProgram
from durably.testing.fuzz.faults import Fault, FaultKind, OutsideEvent, WorkerKilledSignal
from durably.testing.fuzz.machine_stores import Evict, MachineStore, MemoryStore
from durably.testing.fuzz.operator import Operator
from durably.testing.fuzz.programs import Block
from durably.testing.laws import Violation, raise_violations
from durably.testing.laws.violation import MUST_END
from durably.testing.ledger import EffectLedger
from durably.testing.snapshot import Snapshot

__all__ = ["FaultedRun"]

ROUNDS = 60
"""How often a program may come to rest and be given the events it waits for before it counts as stuck."""


class FaultedRun:
    """One program under one plan of faults.

    Args:
        block: The program.
        faults: What happens to it, in order.
        events: What arrives from outside.
        fork: Behind which of its steps the run is forked once it has ended; ``None``: not at all.
        seed: Fixes the order of concurrent branches.
        evict: ``"always"`` replays the run from the start after each step.
        store: The store to try, which must be empty; left out, one in memory.

    Attributes:
        id: The id of the program's run.
        program: The program made durable, with what its bodies did.
        operator: Who looks after it.
        ledger: What the engine reported.
        snapshots: What the journal held when each worker began.
        struck: The faults that happened.
        lives: How many workers there were.
        passed: How many points they passed.
    """

    def __init__(
        self,
        block: Block,
        faults: Sequence[Fault] = (),
        events: Sequence[OutsideEvent] = (),
        *,
        fork: int | None = None,
        seed: int = 0,
        evict: Evict = "never",
        store: MachineStore | None = None,
    ) -> None:
        self.id = "run"
        self.program = DurableProgram(block)
        self.operator = Operator(block, self.program, self.id, fork)
        self.store = MemoryStore() if store is None else store
        self.ledger = EffectLedger()
        self.struck: Counter[FaultKind] = Counter()
        self.lives = 0
        self._faults = list(faults)
        self._events = sorted(events, key=lambda event: event.after)
        self._seed = seed
        self._evict: Evict = evict
        self.passed = self._since = 0
        self._worker: ReplayBackend | None = None
        self._zombies: list[ReplayBackend] = []
        self._sent: list[Event] = []
        self.snapshots: list[Snapshot] = []
        self._life_over = asyncio.Event()
        self._stop = False

    # -- running

    async def run(self) -> None:
        """Run the program to its end, through as many lives as the faults make."""
        try:
            for _ in range(ROUNDS):
                if await self._live():
                    return
        finally:
            for zombie in self._zombies:
                await zombie.__aexit__()
        raise_violations([Violation("L12", f"the program did not end within {ROUNDS} lives", MUST_END)])

    async def _live(self) -> bool:
        """One life of a worker; whether the program has ended."""
        self.snapshots.append(self.store.snapshot())
        worker = await self._open()
        try:
            await worker.start(self.program.functions[0], run_id=self.id)
            for _ in range(ROUNDS):
                if await self._until_idle():
                    return True
                if self._stop or worker in self._zombies:
                    break
        except WorkerKilledSignal:
            # Noted here, not where it struck: other branches of the dying worker may pass a point until it is dead.
            self.ledger.crashed(Point("", "", self.id, ""))
        finally:
            self._stop = False
            if worker not in self._zombies:
                await worker.__aexit__()
        return False

    async def _open(self) -> ReplayBackend:
        self.lives += 1
        worker = self.store.open(self.program.functions, seed=self._seed, evict=self._evict)
        worker.drain_timeout = 1.0  # seconds; a body of these programs takes none
        worker.probe = self._probe
        self._worker = worker
        self._life_over.clear()
        return await worker.__aenter__()

    async def _until_idle(self) -> bool:
        """Let everything happen that can; whether all runs have ended. Otherwise send the events they wait for."""
        worker = self._worker
        assert worker is not None
        drained = asyncio.ensure_future(worker.drain())
        over = asyncio.ensure_future(self._life_over.wait())
        await asyncio.wait({drained, over}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if not drained.done():
            drained.cancel()
            return False
        drained.result()
        if worker not in self._zombies and not self._stop:
            return not await self.operator.act(worker)
        return False

    async def _send(self, worker: ReplayBackend, *events: Event) -> None:
        ids = await worker.send(*events)
        self._sent += [event.model_copy(update={"id": id}) for event, id in zip(events, ids, strict=True)]

    # -- faults

    def _probe(self, point: Point) -> Awaitable[None] | None:
        self.ledger(point)
        self.passed += 1
        self._since += 1
        pause: Coroutine[Any, Any, None] | None = None
        if self._events and self._events[0].after <= self.passed:
            pause = self._deliver(self._events.pop(0))
        # Points are counted over all workers, stale ones too, so that a fault can strike a worker that lost its lease.
        if self._faults and self._faults[0].after < self._since:
            self._since = 0
            fault = self._faults.pop(0)
            self.struck[fault.kind] += 1
            if fault.kind == "crash":
                if pause is not None:
                    pause.close()  # a coroutine that nobody will await
                raise WorkerKilledSignal
            pause = _both(pause, self._strike(fault))
        return pause

    async def _deliver(self, outside: OutsideEvent) -> None:
        worker = self._worker
        if _is_up(worker):
            await self._send(worker, Event("program/outside", {"key": outside.key}, id=f"outside-{outside.id}"))

    async def _strike(self, fault: Fault) -> None:
        match fault.kind:
            case "refuse":
                self.store.refuse(fault.amount)
            case "forward":
                self.store.clock.shift(fault.amount)
            case "back":
                self.store.clock.shift(-fault.amount)
            case "again":
                if _is_up(self._worker):
                    await self._worker.start(self.program.functions[0], run_id=self.id)
                    await self._worker.send(*self._sent)
            case "stop":
                self._stop = True
                self._life_over.set()
            case "steal":
                self._steal()
            case _:
                pass

    def _steal(self) -> None:
        worker = self._worker
        if _is_up(worker) and worker not in self._zombies:
            for each in (worker, *self._zombies):
                self.store.settle(each)  # a commit that waits for this loop would hold the lock meanwhile
            worker.journal.bury(worker.worker)
            self._zombies.append(worker)
            self._life_over.set()


def _is_up(worker: ReplayBackend | None) -> TypeGuard[ReplayBackend]:
    return worker is not None and worker.running


async def _both(first: Awaitable[None] | None, second: Awaitable[None]) -> None:
    if first is not None:
        await first
    await second
