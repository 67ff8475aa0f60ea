"""What a worker takes up: no more than it has room for, and once more what could not be written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from durably.backends import SQLiteBackend
from durably.backends.memory import MemoryJournal
from durably.backends.replay.claims import Claims
from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.driver import Driver
from durably.backends.replay.journal import nothing
from durably.backends.replay.journal_types import Claim, NewRun, RunRow
from durably.backends.replay.records import Log
from durably.core import Context, Event, function
from durably.core.errors import JournalError

T = TypeVar("T")

pytestmark = pytest.mark.asyncio


class Refusing(MemoryJournal):
    """Refuses so many claims."""

    refusals = 0

    def claim(self, *args: Any, **options: Any) -> Claim:
        if self.refusals:
            self.refusals -= 1
            raise JournalError("disk I/O error")
        return super().claim(*args, **options)


class Slow(Refusing):
    """Makes changes at once, and says so when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Callable[[], None]] = []

    def write(
        self,
        change: Callable[[], T],
        then: Callable[[T], None] = nothing,
        otherwise: Callable[[BaseException], None] | None = None,
        *,
        alone: bool = False,
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        result = change()

        def tell() -> None:
            then(result)
            future.set_result(result)

        self.made.append(tell)
        return future


class Worker:
    """The log and the driver of a worker, as far as its claims go, and one run that is free."""

    crash = None
    worker = "worker"
    unfit = ()
    on_trial = False

    def __init__(self, journal: Refusing | None = None) -> None:
        self.placing = 0
        self.room: int | None = 1
        self.spawned: list[str] = []
        self.clock = VirtualClock()
        self.journal = journal or Refusing()
        self.journal.lease(self.worker, time.time() + 60)
        self.add("free")
        self.claims = Claims(cast("Any", {"f": None}), cast("Log", self), cast("Driver", self), self.clock)

    def add(self, run_id: str) -> None:
        """One more run that is free."""
        event = Event("go").model_dump_json()
        self.journal.create(NewRun(id=run_id, function="f", event=event), worker=None, now=self.clock.now())

    def write(self, *change: Callable[..., Any]) -> asyncio.Future[Any]:
        return self.journal.write(*change)

    def call_soon(self, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(callback)

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


async def test_what_becomes_free_while_a_claim_is_being_written_is_taken_next() -> None:
    journal = Slow()
    worker = Worker(journal)
    worker.room = None
    worker.claims.claim_runs()
    worker.add("later")
    worker.claims.claim_runs()
    assert len(journal.made) == 1, "one claim at a time"
    journal.made.pop()()
    assert worker.spawned == ["free"]
    await asyncio.sleep(0)  # it looks again in the next turn of the loop
    journal.made.pop()()
    assert worker.spawned == ["free", "later"]
    await asyncio.sleep(0)
    assert journal.made == []


async def test_a_worker_that_took_all_it_had_room_for_looks_again() -> None:
    worker = Worker()
    worker.add("second")
    await worker.claims.claim()
    assert worker.spawned == ["free"]
    worker.claims.fill_up()
    assert worker.spawned == ["free", "second"]
    worker.add("third")
    worker.room = 2
    worker.claims.fill_up()
    assert worker.spawned[2:] == ["third"]
    worker.add("fourth")
    worker.claims.fill_up()
    assert worker.spawned[3:] == [], "there was room left: nobody was turned away"


async def test_who_was_turned_away_is_taken_when_there_is_room() -> None:
    worker = Worker()
    worker.room = 0
    assert not worker.claims.has_room()
    worker.room = 1
    assert worker.claims.has_room()
    worker.claims.fill_up()
    assert worker.spawned == ["free"]


async def test_room_that_could_not_be_filled_is_filled_later() -> None:
    worker = Worker()
    worker.room = 0
    worker.claims.has_room()
    worker.room, worker.journal.refusals = 1, 1
    worker.claims.fill_up()
    assert worker.spawned == []
    assert worker.clock.advance(), "there is another try to come"
    assert worker.spawned == ["free"]


async def test_a_worker_that_stops_takes_up_nothing_any_more() -> None:
    worker = Worker()
    worker.journal.refusals = 1
    worker.claims.recover()
    worker.claims.close()
    assert not worker.clock.advance()
    assert worker.spawned == []


async def _nothing(ctx: Context[None]) -> None: ...


async def test_the_place_of_a_run_is_held_while_it_is_written_and_no_longer(tmp_path: Path) -> None:
    code = function("nothing")(_nothing)
    async with SQLiteBackend(tmp_path / "runs.db", [code], max_runs=5) as backend:
        log = backend._worker.log
        starts = [asyncio.ensure_future(backend.start(code)) for _ in range(3)]
        while not log.placing:  # noqa: ASYNC110
            await asyncio.sleep(0)
        held = log.placing
        for run in await asyncio.gather(*starts):
            await run.result()
        assert 1 <= held <= 3
        while log.placing > 0:  # noqa: ASYNC110  # the end of a run is written too, and may let another begin
            await asyncio.sleep(0.001)
        assert log.placing == 0
