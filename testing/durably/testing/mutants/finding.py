"""Mutants of C32: runs that are taken for others, not found, or say something else than is true."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.backends.replay.journal_types import Changes, Received
from durably.backends.replay.records import Log
from durably.core.history import StepRecord
from durably.core.run_filter import FoundRuns, RunFilter
from durably.core.run_view import RunStatus, RunView
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C32")
class OtherInputTaken(MemoryBackend):
    """A start with a known id attaches, whatever its input."""

    async def start_run(self, function: Any, data: str, run_id: str | None, tags: Sequence[str] = ()) -> RunView:
        known = None if run_id is None else self.journal.get(run_id)
        return await super().start_run(function, data, run_id, tags) if known is None else await self.view(known.id)


@mutant("C32")
class AnyOfSeveral(MemoryBackend):
    """Of several runs whose ids begin so, one is chosen."""

    async def find_runs(self, where: RunFilter, after: str | None, before: str | None, limit: int) -> FoundRuns:
        return await super().find_runs(where, after, before, 1 if where.prefix else limit)


@mutant("C32")
class AnyTagFits(MemoryBackend):
    """A run is found by the first of the tags that are asked for."""

    async def find_runs(self, where: RunFilter, after: str | None, before: str | None, limit: int) -> FoundRuns:
        return await super().find_runs(replace(where, tags=where.tags[:1]), after, before, limit)


@mutant("C32")
class WaitsUnseen(MemoryJournal):
    """What a run waits for is not looked at."""

    def open_records(self, run_id: str) -> list[StepRecord]:
        return [record for record in super().open_records(run_id) if record.status == "retrying"]


@mutant("C32")
class RetriesUnseen(MemoryJournal):
    """A failed attempt does not show where the run stands."""

    def open_records(self, run_id: str) -> list[StepRecord]:
        return [record for record in super().open_records(run_id) if record.status != "retrying"]


@mutant("C32")
class UnservedUnseen(MemoryBackend):
    """A run that no worker has looks as if it went on."""

    async def view(self, run_id: str) -> RunView:
        view = await super().view(run_id)
        if any(each.kind == "worker" for each in view.waiting_for):
            return replace(view, status=RunStatus.RUNNING, waiting_for=())
        return view


@mutant("C32")
class EarlyEventsLost(Log):
    """A function that is registered begins with the next event."""

    def sign_on(self, subscriptions: Any, now: float, memory: float) -> asyncio.Future[Changes]:
        self.journal.register(subscriptions)
        return self.write(Changes)


@mutant("C32")
class EveryFunctionCatchesUp(MemoryJournal):
    """Each new function takes up all events of before."""

    def register(self, subscriptions: Any) -> None:
        new = [each for each in subscriptions if each.function not in self._subscriptions]
        super().register(subscriptions)
        for each in new:
            for received in self._all(each.triggers):
                self.trigger(received.event, None, (), received.at, Changes())

    def _all(self, names: Sequence[str]) -> list[Received]:
        return [each for name in names for each in self.events_since(0, name)]


@mutant("C32")
class OtherFunctionTaken(MemoryBackend):
    """A start with a known id attaches, whatever its function."""

    async def start_run(self, function: Any, data: str, run_id: str | None, tags: Sequence[str] = ()) -> RunView:
        known = None if run_id is None else self.journal.get(run_id)
        if known is not None and known.function != function.id:
            return await self.view(known.id)
        return await super().start_run(function, data, run_id, tags)


@mutant("C32")
class UnservedRunsAreSkipped(MemoryJournal):
    """A run that no worker serves ends at once."""

    def add_run(self, new: Any, worker: str | None, now: float, changes: Changes) -> Any:
        row = super().add_run(new, worker, now, changes)
        if row.function not in self._subscriptions:
            self.set_status(row.id, RunStatus.SKIPPED, now)
        return row
