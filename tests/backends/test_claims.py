"""What a worker takes up: no more than it has room for, and once more what could not be written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from durably.backends.memory import MemoryJournal
from durably.backends.replay.claims import Claims
from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.driver import Driver
from durably.backends.replay.journal_types import Claim, NewRun, RunRow
from durably.backends.replay.records import Log
from durably.core import Event
from durably.core.errors import JournalError

pytestmark = pytest.mark.asyncio


class Refusing(MemoryJournal):
    """Refuses so many claims."""

    refusals = 0

    def claim(self, *args: Any, **options: Any) -> Claim:
        if self.refusals:
            self.refusals -= 1
            raise JournalError("disk I/O error")
        return super().claim(*args, **options)


class Worker:
    """The log and the driver of a worker, as far as its claims go, and one run that is free."""

    crash = None
    worker = "worker"
    unfit = ()
    on_trial = False

    def __init__(self) -> None:
        self.placing = 0
        self.room: int | None = 1
        self.spawned: list[str] = []
        self.clock = VirtualClock()
        self.journal = Refusing()
        self.journal.lease(self.worker, time.time() + 60)
        self.journal.create(
            NewRun(id="free", function="f", event=Event("go").model_dump_json()), worker=None, now=self.clock.now()
        )
        self.claims = Claims(cast("Any", {"f": None}), cast("Log", self), cast("Driver", self), self.clock)

    def write(self, *change: Callable[..., Any]) -> asyncio.Future[Any]:
        return self.journal.write(*change)

    def spawn(self, row: RunRow) -> None:
        self.spawned.append(row.id)


async def test_the_places_of_runs_that_are_being_created_are_not_given_away() -> None:
    worker = Worker()
    worker.placing = 1
    assert not worker.claims.has_room()
    await worker.claims.claim()
    assert worker.spawned == []
    worker.placing = 0
    await worker.claims.claim()
    assert worker.spawned == ["free"]


@pytest.mark.parametrize("refusals", [1, 3])
async def test_a_recovery_that_cannot_be_written_is_tried_again(refusals: int) -> None:
    worker = Worker()
    worker.journal.refusals = refusals
    worker.claims.recover()
    for _ in range(refusals):
        assert worker.spawned == []
        assert worker.clock.advance(), "there is another try to come"
    assert worker.spawned == ["free"]
