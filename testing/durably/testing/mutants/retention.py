"""Mutants of what stays when finished runs are forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from durably.backends.replay.journal_types import RunRow
from durably.backends.replay.memory_pruning import MemoryPruning
from durably.backends.replay.pruning import EndedRun, OpenWait
from durably.core import Event
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C06")
class LiveRunsAreForgotten(MemoryPruning):
    """A run may go whether it has ended or not."""

    def ended_runs(self, function: str) -> Iterator[EndedRun]:
        for row in list(self._runs.values()):
            yield EndedRun(row.id, row.created_at, self._records[row.id][-1].at)

    def functions(self) -> Sequence[str]:
        return sorted({row.function for row in self._runs.values()})

    def is_needed(self, row: RunRow) -> bool:
        return False


@mutant("C06")
class TheOldestStay(MemoryPruning):
    """Of the finished runs of a function, those go that began last."""

    def ended_runs(self, function: str) -> Iterator[EndedRun]:
        return reversed(list(super().ended_runs(function)))


@mutant("C16")
class WaitedForRunsAreForgotten(MemoryPruning):
    """A finished run goes although the run that called it has not read its result."""

    def is_needed(self, row: RunRow) -> bool:
        return not row.status.final


@mutant("C17")
class EventsAreForgottenWithTheirRuns(MemoryPruning):
    """With a run goes the memory of the event that started it."""

    def forget_runs(self, run_ids: Sequence[str]) -> int:
        started = [Event.model_validate_json(self._records[each][0].output or "") for each in run_ids]
        for event in started:
            self._event_ids.pop(event.id or "", None)
        return super().forget_runs(run_ids)


@mutant("C17")
class EventsAreRememberedForEver(MemoryPruning):
    """The log of events only grows."""

    def forget_events(self, seqs: Sequence[int]) -> int:
        return 0


@mutant("C20")
class AwaitedEventsAreForgotten(MemoryPruning):
    """An event goes although a run waits for it that nobody drives just now."""

    def open_waits(self) -> Iterator[Sequence[OpenWait]]:
        return iter(())
