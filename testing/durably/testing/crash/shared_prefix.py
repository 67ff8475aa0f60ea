"""Shared prefixes: one run that shows, for each point, what a crash there would leave behind.

An experiment that begins with such a prefix does not run its first life again. It can be had where nothing but the
memory backend's journal outlives a crash: not for a target with a world of its own, which cannot be copied.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from durably.backends.memory import MemoryJournal
from durably.core import Function
from durably.core.steps import Point
from durably.testing.crash.ambient_inputs import AmbientInputs
from durably.testing.crash.engines import ENGINES, Store
from durably.testing.crash.experiment import ExperimentState, Prefix, begin, run_life
from durably.testing.crash.faults import Crash
from durably.testing.crash.scenario import Scenario
from durably.testing.crash.selection import find_crashes
from durably.testing.ledger import EffectLedger

__all__ = ["can_share_prefixes", "record_prefixes"]


def can_share_prefixes(scenario: Scenario) -> bool:
    """Whether experiments may share their beginnings."""
    return scenario.engine is ENGINES["memory"] and isinstance(scenario.target, Function) and scenario.state is None


async def record_prefixes(scenario: Scenario) -> dict[Crash, Prefix]:
    """Run once without a crash; what a crash at each point would have left."""
    with Store(seed=scenario.seed) as store:
        state, experiment = begin(scenario, store)
        recorder = _PrefixRecorder(state, experiment.ledger)
        state.also = recorder
        with AmbientInputs.of_life(0).applied(scenario.all_functions(state.subject)):
            await run_life(state, experiment)
        return dict(zip(find_crashes(experiment.traces[0]), recorder.prefixes, strict=True))


@dataclass(slots=True)
class _PrefixRecorder:
    """A probe that copies the journal at each point."""

    state: ExperimentState
    ledger: EffectLedger
    prefixes: list[Prefix] = field(default_factory=list)

    def __call__(self, point: Point) -> None:
        journal = self.state.store.journal
        assert isinstance(journal, MemoryJournal)
        self.prefixes.append(
            Prefix(
                journal=journal.left_behind(),
                now=self.state.store.now,
                ledger=self.ledger.entries,
                noted=len(self.ledger.entries),
                point=point,
                trace=self.state.plan.trace,
                passed=len(self.state.plan.trace),
                sent=self.state.sent,
            )
        )
