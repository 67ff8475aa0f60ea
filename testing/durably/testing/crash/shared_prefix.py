"""Shared beginnings: one run that leaves behind, at each point, what a crash there would leave behind.

A cell that begins with such a fork does not run its first life again. It can be had where nothing but the memory
backend's journal outlives a crash: not for a target with a world of its own, which cannot be copied.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from durably.backends.memory import MemoryJournal
from durably.core import Function
from durably.core.steps import Point
from durably.testing.crash.ambient_inputs import Hidden
from durably.testing.crash.engines import ENGINES, Store
from durably.testing.crash.experiment import Drive, Fork, begin, live
from durably.testing.crash.faults import Crash, FaultPlan
from durably.testing.crash.ledger import EffectLedger
from durably.testing.crash.scenario import Scenario
from durably.testing.crash.selection import find_crashes

__all__ = ["can_fork", "run_forking"]


def can_fork(scenario: Scenario) -> bool:
    """Whether beginnings may be shared."""
    return scenario.engine is ENGINES["memory"] and isinstance(scenario.target, Function) and scenario.state is None


async def run_forking(scenario: Scenario) -> dict[Crash, Fork]:
    """Run once without a crash; what a crash at each point would have left."""
    with Store(seed=scenario.seed) as store:
        plan = _ForkingPlan(ledger=EffectLedger(), store=store)
        drive, cell = begin(scenario, store, plan)
        plan.drive = drive
        with Hidden.of_life(0).applied(scenario.all_functions(drive.subject)):
            await live(drive, cell)
        crashes = find_crashes(cell.traces[0])
        return dict(zip(crashes, plan.forks, strict=True))


@dataclass(slots=True)
class _ForkingPlan(FaultPlan):
    store: Store | None = None
    drive: Drive | None = None
    forks: list[Fork] = field(default_factory=list)

    def __call__(self, point: Point) -> None:
        FaultPlan.__call__(self, point)  # no super(): the class is made anew for its slots
        assert self.store is not None
        assert self.ledger is not None
        journal = self.store.journal
        assert isinstance(journal, MemoryJournal)
        self.forks.append(
            Fork(
                journal=journal.left_behind(),
                now=self.store.now,
                ledger=self.ledger.entries,
                noted=len(self.ledger.entries),
                point=point,
                trace=self.trace,
                passed=len(self.trace),
                sent=0 if self.drive is None else self.drive.sent,
            )
        )
