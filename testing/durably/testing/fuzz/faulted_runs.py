"""A program put through faults: crashes, stolen leases, journals that refuse, clocks that are set, late events.

Owns the faults of one trial and the laws it is held to. The program and its oracle are in ``programs.py``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.journal import Changes
from durably.core import Event, JournalError, RunStatus, StepRecord
from durably.core.errors import Signal
from durably.core.steps import Point
from durably.testing.crash.ledger import EffectLedger
from durably.testing.fuzz.programs import RETRIES, Block, Script, expect

__all__ = ["BrokenLawError", "Fault", "FaultKind", "FaultyJournal", "Outside", "Trial", "run_trial"]

FaultKind = Literal["crash", "steal", "refuse", "forward", "back", "again", "stop"]

RUN = "trial"
ROUNDS = 60
"""How often a program may come to rest and be given the events it waits for before it counts as stuck."""


@dataclass(frozen=True)
class Fault:
    """What happens at the n-th point after the fault before it.

    ``crash``: the worker dies. ``steal``: its lease ends while it lives, and another worker takes its runs.
    ``refuse``: the journal refuses so many commits. ``forward``, ``back``: the clock is set by so many seconds.
    ``again``: the run is started again and every event so far is delivered again. ``stop``: the worker stops in good
    order.
    """

    kind: FaultKind
    after: int
    amount: int = 1


@dataclass(frozen=True)
class Outside:
    """An event from outside: at the n-th point of the whole trial. Equal ones are one event, delivered again."""

    after: int
    key: int
    id: int


class BrokenLawError(AssertionError):
    """A law that did not hold."""


class Killed(Signal):
    """The worker dies."""


class FaultyJournal(MemoryJournal):
    """A journal that refuses commits for a while.

    Attributes:
        refuse: How many more it refuses.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refuse = 0

    def commit(self, *args: Any, **fields: Any) -> Changes:
        if self.refuse:
            self.refuse -= 1
            raise JournalError("no space left on device")
        return super().commit(*args, **fields)


async def run_trial(
    block: Block,
    faults: Sequence[Fault] = (),
    events: Sequence[Outside] = (),
    *,
    seed: int = 0,
    evict: Literal["never", "always"] = "never",
    backend: type[MemoryBackend] = MemoryBackend,
    journal: FaultyJournal | None = None,
) -> Trial:
    """Run a program under faults and hold it to the laws.

    Raises:
        BrokenLawError: If one does not hold.
    """
    trial = Trial(block, faults, events, seed=seed, evict=evict, backend=backend, journal=journal)
    await trial.run()
    trial.check()
    return trial


class Trial:
    """One program under one plan of faults.

    Attributes:
        struck: The faults that happened.
        lives: How many workers there were.
    """

    def __init__(
        self,
        block: Block,
        faults: Sequence[Fault] = (),
        events: Sequence[Outside] = (),
        *,
        seed: int = 0,
        evict: Literal["never", "always"] = "never",
        backend: type[MemoryBackend] = MemoryBackend,
        journal: FaultyJournal | None = None,
    ) -> None:
        self.block = block
        self.script = Script(block)
        self.journal = journal or FaultyJournal()
        self.clock = VirtualClock()
        self.ledger = EffectLedger()
        self.struck: Counter[FaultKind] = Counter()
        self.lives = 0
        self._faults = list(faults)
        self._events = sorted(events, key=lambda event: event.after)
        self._options: dict[str, Any] = {"seed": seed, "evict": evict}
        self._backend = backend
        self._passed = self._since = 0
        self._worker: MemoryBackend | None = None
        self._zombies: list[MemoryBackend] = []
        self._sent: list[Event] = []
        self._snapshots: list[dict[str, list[StepRecord]]] = []
        self._turn = asyncio.Event()
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
        raise BrokenLawError(f"L12: the program did not end within {ROUNDS} lives")

    async def _live(self) -> bool:
        """One life of a worker; whether the program has ended."""
        self._snapshots.append({run_id: list(records) for run_id, records in self.journal._records.items()})
        worker = await self._open()
        try:
            await worker.start(self.script.functions[0], run_id=RUN)
            for _ in range(ROUNDS):
                if await self._rest():
                    return True
                if self._stop or worker in self._zombies:
                    break
        except Killed:
            self.ledger.crashed(Point("", "", RUN, ""))
        finally:
            self._stop = False
            if worker not in self._zombies:
                await worker.__aexit__()
        return False

    async def _open(self) -> MemoryBackend:
        self.lives += 1
        worker = self._backend(self.script.functions, journal=self.journal, clock=self.clock, **self._options)
        worker.grace = 1.0
        worker.probe = self._probe
        self._worker = worker
        self._turn.clear()
        return await worker.__aenter__()

    async def _rest(self) -> bool:
        """Let everything happen that can; whether all has ended. Otherwise hand over the events it waits for."""
        worker = self._worker
        assert worker is not None
        drained = asyncio.ensure_future(worker.drain())
        turned = asyncio.ensure_future(self._turn.wait())
        await asyncio.wait({drained, turned}, return_when=asyncio.FIRST_COMPLETED)
        turned.cancel()
        if not drained.done():
            drained.cancel()
            return False
        drained.result()
        if all(row.status.final for row in self.journal._runs.values()):
            return True
        if worker not in self._zombies and not self._stop:
            await self._send(worker, *[Event("program/outside", {"key": key}) for key in sorted(self.script.awaited)])
        return False

    async def _send(self, worker: MemoryBackend, *events: Event) -> None:
        ids = await worker.send(*events)
        self._sent += [event.model_copy(update={"id": id}) for event, id in zip(events, ids, strict=True)]

    # -- faults

    def _probe(self, point: Point) -> Awaitable[None] | None:
        self.ledger(point)
        self._passed += 1
        self._since += 1
        pause: Awaitable[None] | None = None
        if self._events and self._events[0].after <= self._passed:
            pause = self._deliver(self._events.pop(0))
        if self._faults and self._faults[0].after < self._since:
            self._since = 0
            fault = self._faults.pop(0)
            self.struck[fault.kind] += 1
            if fault.kind == "crash":
                if pause is not None:
                    pause.close()  # type: ignore[attr-defined]
                raise Killed
            pause = _both(pause, self._strike(fault))
        return pause

    async def _deliver(self, outside: Outside) -> None:
        worker = self._worker
        if worker is not None and worker.running:
            await self._send(worker, Event("program/outside", {"key": outside.key}, id=f"outside-{outside.id}"))

    async def _strike(self, fault: Fault) -> None:
        match fault.kind:
            case "refuse":
                self.journal.refuse += fault.amount
            case "forward":
                self.clock.shift(fault.amount)
            case "back":
                self.clock.shift(-fault.amount)
            case "again":
                if self._worker is not None and self._worker.running:
                    await self._worker.start(self.script.functions[0], run_id=RUN)
                    await self._worker.send(*self._sent)
            case "stop":
                self._stop = True
                self._turn.set()
            case "steal":
                self._steal()
            case _:
                pass

    def _steal(self) -> None:
        worker = self._worker
        if worker is not None and worker.running and worker not in self._zombies:
            self.journal.bury(worker.worker)
            self._zombies.append(worker)
            self._turn.set()

    # -- laws

    def check(self) -> None:
        """Hold the trial to the laws.

        Raises:
            BrokenLawError: With the law's number and what was found.
        """
        self._check_outcome()
        self._check_journal()
        self._check_events_and_children()
        self._check_bodies()

    def _law(self, holds: object, text: str) -> None:
        if not holds:
            raise BrokenLawError(text)

    def _check_outcome(self) -> None:
        expected = expect(self.block)
        row = self.journal.get(RUN)
        assert row is not None
        last = self.journal.last_record(RUN)
        wanted = RunStatus.FAILED if expected.fails else RunStatus.COMPLETED
        self._law(row.status is wanted, f"L1: the run is {row.status.value}, not {wanted.value}: {last.error}")
        if not expected.fails:
            self._law(last.value == expected.result, f"L1: the result is {last.value}, not {expected.result}")
        self._law(
            set(self.script.effects) == set(expected.effects),
            f"L1: the effects are {dict(self.script.effects)}, not {dict(expected.effects)}",
        )
        if not self.struck.keys() & {"crash", "steal", "refuse"}:
            self._law(
                self.script.effects == expected.effects,
                f"L1: without a crash the effects are {self.script.effects}, not {expected.effects}",
            )

    def _check_journal(self) -> None:
        for run_id, records in self.journal._records.items():
            self._law([record.seq for record in records] == list(range(len(records))), f"L4: numbers of {run_id}")
            ends = [record.seq for record in records if record.kind == "run" and record.final]
            self._law(ends == [len(records) - 1], f"L13: run {run_id} of {len(records)} records ends at {ends}")
            keys = Counter(record.key for record in records if record.final and record.key)
            self._law(not keys or max(keys.values()) == 1, f"L4: a step was settled twice: {keys}")
        for snapshot in self._snapshots:
            for run_id, records in snapshot.items():
                now = self.journal._records[run_id][: len(records)]
                self._law(now == records, f"L4: the records of {run_id} were rewritten")

    def _check_events_and_children(self) -> None:
        expected = expect(self.block)
        events = {id for id, _ in self.script.told}
        self._law(len(events) == expected.told, f"L7: {len(events)} events were told of, not {expected.told}")
        self._law(len(self.script.told) == expected.told, "L7: an event started more than one run")
        self._law(events == self.script.sent, f"L7: {self.script.sent} were sent, {events} were told of")
        children = [row for row in self.journal._runs.values() if row.parent is not None]
        self._law(len(children) == expected.children, f"L8: {len(children)} children, not {expected.children}")
        ids = [received.event.id for received in self.journal._events]
        self._law(len(ids) == len(set(ids)), "L7: an event stands in the log twice")

    def _check_bodies(self) -> None:
        keys = self.script.keys
        starts: Counter[tuple[str, str]] = Counter()
        committed: set[tuple[str, str]] = set()
        for entry in self.ledger:
            step = (entry.run_id, entry.key)
            if entry.kind == "started":
                starts[step] += 1
                self._law(self._zombies or step not in committed, f"L2: the body of {step} ran after its commit")
            elif entry.kind == "committed":
                committed.add(step)
        self._law(all(len(seen) == 1 for seen in keys.values()), "L9: a step saw two idempotency keys")
        self._law(len({min(seen) for seen in keys.values()}) == len(keys), "L9: two steps saw one idempotency key")
        self._check_attempts(starts)

    def _check_attempts(self, starts: Counter[tuple[str, str]]) -> None:
        retries = Counter(
            (record.run_id, record.key)
            for records in self.journal._records.values()
            for record in records
            if record.status == "retrying"
        )
        # A commit that the journal refused for good, or to a stale worker, costs one more execution, as a crash does.
        spare = self.struck["crash"] + self.struck["steal"] + self.struck["refuse"]
        for step, count in starts.items():
            bound = 1 + spare + retries[step]
            self._law(
                count <= bound, f"L3: the body of {step} started {count} times; at most {bound} are accounted for"
            )
        for records in self.journal._records.values():
            for record in records:
                if record.kind == "step" and record.status == "failed" and record.error is not None:
                    attempts = record.error.get("attempts")
                    self._law(attempts == RETRIES + 1, f"L3: {record.key} was given up after {attempts} attempts")


async def _both(first: Awaitable[None] | None, second: Awaitable[None]) -> None:
    if first is not None:
        await first
    await second
