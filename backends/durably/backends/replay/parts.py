"""What the replay engine is built from, so that the harness can put something broken in the place of a part."""

from __future__ import annotations

from dataclasses import dataclass

from durably.backends.replay.claims import Claims
from durably.backends.replay.driver import Driver
from durably.backends.replay.events import EventWaiters
from durably.backends.replay.flow.cron import CronTicks
from durably.backends.replay.flow.slots import Slots
from durably.backends.replay.host import ReplayHost
from durably.backends.replay.records import Log, RunRecords
from durably.backends.replay.steps import ReplaySteps
from durably.core.step_keys import KeyedSteps

__all__ = ["Parts"]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The classes the engine is built from. The harness puts a broken one in the place of one of them.

    Attributes:
        log: How a worker writes to the journal.
        events: Who waits for which event.
        slots: Which bodies run, where a function limits them.
        crons: When the times of crons come.
        claims: Which runs a worker takes up.
        host: What the runs of a worker share.
        driver: How runs are driven.
        records: How the records of a run are kept.
        steps: What each kind of step does.
        keys: What the code of runs calls: it numbers steps, and refuses what no engine allows.
    """

    log: type[Log] = Log
    events: type[EventWaiters] = EventWaiters
    slots: type[Slots] = Slots
    crons: type[CronTicks] = CronTicks
    claims: type[Claims] = Claims
    host: type[ReplayHost] = ReplayHost
    driver: type[Driver] = Driver
    records: type[RunRecords] = RunRecords
    steps: type[ReplaySteps] = ReplaySteps
    keys: type[KeyedSteps] = KeyedSteps
