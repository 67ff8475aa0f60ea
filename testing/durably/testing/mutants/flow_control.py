"""Mutants of C30, and of the singletons of C22 that queue: rules that do not hold."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.backends.replay.flow.admission import Admission, Verdict
from durably.backends.replay.flow.cron import CronTicks
from durably.backends.replay.flow.rules import Limit, Plan
from durably.backends.replay.flow.slots import Slots, Wanted
from durably.backends.replay.flow.store import Entry, FlowStore, Kind, MemoryFlowStore
from durably.backends.replay.journal import Journal
from durably.backends.replay.journal_types import NO_RULES, Changes, NewRun, RunRow
from durably.backends.replay.scheduler import RunScheduler
from durably.core import Capabilities, Function, Singleton
from durably.core.flow_support import refused
from durably.core.ids import new_id
from durably.core.run_view import RunStatus
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


def without(capabilities: Capabilities, rule: str) -> Capabilities:
    """The capabilities of an engine that has one rule less."""
    return replace(capabilities, flow_control={**capabilities.flow_control, rule: refused("it cannot")})


class _ByOtherPlans(Admission[Changes]):
    def __init__(self, runs: Journal, store: FlowStore | None, change: Callable[[Plan], Plan]) -> None:
        super().__init__(runs, store)
        self._change = change

    def arrive(self, run_id: str, plan: Plan, now: float, changes: Changes) -> Verdict:
        return super().arrive(run_id, self._change(plan), now, changes)


class _OtherPlans(MemoryJournal):
    """Runs are admitted by other rules than those of their functions."""

    @cached_property
    def admission(self) -> Admission[Changes]:
        return _ByOtherPlans(self, self.flow, self.change)

    def change(self, plan: Plan) -> Plan:
        return plan


# -- singletons that queue


@mutant("C22")
class QueueLetsAllBegin(_OtherPlans):
    """A run does not wait for the one before it."""

    def change(self, plan: Plan) -> Plan:
        return replace(plan, line=None) if plan.line is not None and plan.line.mode == "queue" else plan


@mutant("C22")
class QueueStops(MemoryJournal):
    """The end of a run is not noticed by those that wait for it."""

    def leave(self, run_id: str, now: float, changes: Changes) -> None:
        return


class _Stack(MemoryFlowStore):
    def list(self, kind: Kind, gate: str, limit: int | None = None) -> Sequence[Entry]:
        return super().list(kind, gate)[::-1][:limit]


@mutant("C22")
class QueueLastComesFirst(MemoryJournal):
    """The run that came last is the next one."""

    def __init__(self) -> None:
        super().__init__()
        self._flow = self.flow = _Stack()


@mutant("C22")
class QueueKeepsCancelledRuns(MemoryJournal):
    """A run that was cancelled while it waited has its turn all the same."""

    def end_cancelled(self, run_id: str, now: float, changes: Changes) -> None:
        held = self._flow.find("held", run_id)
        super().end_cancelled(run_id, now, changes)
        if held is not None:
            self._flow.put(replace(held, rank=held.rank - 1))  # where it stood, before those that came later


# -- when a run begins


@mutant("C30")
class DebounceKeepsTheFirst(_OtherPlans):
    """The first event counts, and the later ones are dropped."""

    def change(self, plan: Plan) -> Plan:
        quiet = plan.quiet
        return plan if quiet is None else replace(plan, limits=(Limit(quiet.gate, 1, quiet.period),))


@mutant("C30")
class DebounceIgnoresTheKey(_OtherPlans):
    """All events of a function put each other off."""

    def change(self, plan: Plan) -> Plan:
        return plan if plan.quiet is None else replace(plan, quiet=replace(plan.quiet, gate="one"))


@mutant("C30")
class RulesForgetWithTheWorker(MemoryJournal):
    """What the rules remember does not survive the worker."""

    def open(self) -> None:
        self._flow = self.flow = MemoryFlowStore()
        with suppress(AttributeError):  # it is made with the first run
            del self.admission


@mutant("C30")
class ThrottleCountsHalfThePeriod(_OtherPlans):
    """Twice as many runs begin as are allowed."""

    def change(self, plan: Plan) -> Plan:
        return plan if plan.turn is None else replace(plan, turn=replace(plan.turn, interval=plan.turn.interval / 2))


@mutant("C30")
class ThrottleDrops(_OtherPlans):
    """What a throttle should let wait is dropped."""

    def change(self, plan: Plan) -> Plan:
        turn = plan.turn
        return plan if turn is None else replace(plan, limits=(Limit(turn.gate, turn.at_once, turn.interval),))


@mutant("C30")
class RateLimitNeverForgets(_OtherPlans):
    """A limit is for good."""

    def change(self, plan: Plan) -> Plan:
        return replace(plan, limits=tuple(replace(each, period=1e9) for each in plan.limits))


@mutant("C30")
class RateLimitIgnoresTheKey(_OtherPlans):
    """All keys have one limit."""

    def change(self, plan: Plan) -> Plan:
        return replace(plan, limits=tuple(replace(each, gate="one") for each in plan.limits))


@mutant("C30")
class IdempotencyIgnored(_OtherPlans):
    """Each event starts a run, whatever its value."""

    def change(self, plan: Plan) -> Plan:
        return replace(plan, limits=tuple(each for each in plan.limits if "idempotency" not in each.gate))


class _Lossy(MemoryFlowStore):
    def due(self, kind: Kind, now: float) -> Sequence[Entry]:
        return [] if kind == "batch" else super().due(kind, now)

    def next_due(self, kinds: Iterable[Kind]) -> float | None:
        return super().next_due([kind for kind in kinds if kind != "batch"])


@mutant("C30")
class BatchLosesTheRest(MemoryJournal):
    """A batch that does not get full starts no run."""

    def __init__(self) -> None:
        super().__init__()
        self._flow = self.flow = _Lossy()


@mutant("C30")
class PriorityIgnored(_OtherPlans):
    """The queue is first come, first served."""

    def change(self, plan: Plan) -> Plan:
        return replace(plan, rank=0.0)


# -- how many bodies run


@mutant("C30")
class ConcurrencyIgnored(Slots):
    """Every body runs at once."""

    @asynccontextmanager
    async def hold(self, wanted: Wanted, run_id: str, key: str, run: RunScheduler) -> AsyncIterator[None]:
        yield


@mutant("C30")
class ConcurrencyCountsTheDead(MemoryJournal):
    """A slot stays taken although its worker is gone."""

    def is_alive(self, worker: str, now: float) -> bool:
        return True


# -- crons


@mutant("C30")
class CronComesTwice(CronTicks):
    """A time gets its run from each worker that sees it."""

    def _tick(self, entry: Entry, changes: Changes) -> None:
        function, cron = self._crons[entry.id]
        again = self._host.new_run(new_id(), function.id, f'{{"name":"cron","data":{{"cron":"{cron.schedule}"}}}}')
        self._host.log.journal.add_run(again, self._host.log.worker, self._clock.now(), changes)
        super()._tick(entry, changes)


@mutant("C30")
class CronMissesWhatCameMeanwhile(CronTicks):
    """The times that come while no worker is up have no run."""

    async def open(self) -> None:
        for function in self._host.functions:
            self._store.drop("cron", function)
        await super().open()


# -- keys


@mutant("C30")
class AbsentKeysAreOneKey(MemoryJournal):
    """Runs without a value at the key are one group."""

    def add_failed(self, new: NewRun, error: Exception, now: float, changes: Changes) -> RunRow:
        assert new.singleton is not None
        return self.add_run(replace(new, singleton=Singleton("", new.singleton.mode)), None, now, changes)


@mutant("C22")
class QueueStopsAtAFailure(MemoryJournal):
    """When a run has failed, those that wait for it go on waiting."""

    def leave(self, run_id: str, now: float, changes: Changes) -> None:
        row = self.get(run_id)
        if row is None or row.status is not RunStatus.FAILED:
            super().leave(run_id, now, changes)


@mutant("C30")
class StrangersBeginAsTheyLike(MemoryJournal):
    """A run without a value at the key begins under no rule."""

    def add_failed(self, new: NewRun, error: Exception, now: float, changes: Changes) -> RunRow:
        return self.add_run(replace(new, singleton=None, rules=NO_RULES), None, now, changes)


@mutant("C30")
class EachWorkerHasItsOwnSlots(Slots):
    """How many bodies run is counted by each worker for itself."""

    def _living(self, gates: Iterable[str]) -> list[Entry]:
        return [each for each in super()._living(gates) if each.value["worker"] == self._log.worker]

    def _is_free(self, limits: Iterable[tuple[str, int]]) -> bool:
        mine = {gate: self._living([gate]) for gate, _ in limits}
        return all(sum(each.value["taken"] for each in mine[gate]) < limit for gate, limit in limits)


@mutant("C30")
class MissingRulesAreTaken(MemoryBackend):
    """An engine that cannot limit how many runs begin takes functions that ask for it, and says nothing."""

    capabilities = without(MemoryBackend.capabilities, "rate_limit")

    def check_rules(self, function: Function[Any, Any]) -> None:
        return
