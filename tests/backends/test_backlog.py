"""What a worker, or a client, does among very many runs and events costs what it is about, and not how many there are.

On a file the steps of SQLite's machine are counted, in memory the calls of functions: neither depends on the machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.memory import MemoryJournal
from durably.backends.replay.claims import PORTION
from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.flow.cron import AT_ONCE
from durably.backends.replay.journal import Journal
from durably.backends.replay.journal_types import NewRun
from durably.backends.replay.sqlite_journal import SQLiteJournal
from durably.core import Context, Event, RunStatus, function
from durably.core.flow import Cron
from durably.core.run_filter import RunFilter
from tests.benchmarks.entries import calls_in

FEW, MANY = 300, 3_000
GROWTH = 1.1
"""How many times the cost among few it may be among many: a search in a tree that is higher takes a step more."""


class Costs:
    """Counts what acts on one journal cost."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def of(self, act: Callable[[], Any]) -> int:
        """The cost of an act, at its second time: the first may have something to load."""
        act()
        return self._steps(act) if isinstance(self._journal, SQLiteJournal) else calls_in(act)

    def _steps(self, act: Callable[[], Any]) -> int:
        assert isinstance(self._journal, SQLiteJournal)
        count, db = 0, self._journal.file._db
        assert db is not None

        def note() -> None:
            nonlocal count
            count += 1

        db.set_progress_handler(note, 1)
        try:
            act()
        finally:
            db.set_progress_handler(None, 1)
        return count


@pytest.fixture(params=["memory", "sqlite"])
def journals(request: pytest.FixtureRequest, tmp_path: Path) -> list[Journal]:
    """Two journals, for few runs and for many."""
    if request.param == "memory":
        return [MemoryJournal(), MemoryJournal()]
    return [SQLiteJournal(tmp_path / name) for name in ("few.db", "many.db")]


def _fill(journal: Journal, count: int, worker: str | None) -> None:
    journal.open()
    now = time.time()
    journal.lease("me", now + 1000)
    journal.lease("other", now + 1000)
    with journal.transaction():
        for number in range(count):
            journal.create(NewRun(id=f"{worker}-{number}", function="f", event='{"name": "f"}'), worker=worker, now=now)


def _compared(journals: list[Journal], act: Callable[[Journal], Any], worker: str | None = None) -> tuple[int, int]:
    costs = []
    for journal, count in zip(journals, (FEW, MANY), strict=True):
        _fill(journal, count, worker)
        costs.append(Costs(journal).of(lambda journal=journal: act(journal)))  # type: ignore[misc]
        journal.close()
    return costs[0], costs[1]


def test_to_take_one_of_a_backlog_costs_one(journals: list[Journal]) -> None:
    few, many = _compared(journals, lambda journal: journal.claim("me", ["f"], time.time(), limit=1))
    assert 0 < many <= GROWTH * few


@pytest.mark.parametrize("owner", ["me", "other"])
def test_runs_that_live_workers_have_cost_nothing_when_it_is_looked_for_free_ones(
    journals: list[Journal], owner: str
) -> None:
    def look(journal: Journal) -> None:
        now = time.time()
        assert journal.leaves("me", ["f"], now, (), moment=now, suspects=1) is not None

    few, many = _compared(journals, look, owner)
    assert 0 < many <= GROWTH * few


def test_the_backlog_is_taken_oldest_first_whoever_had_it(journals: list[Journal]) -> None:
    journal = journals[0]
    _fill(journal, 4, "dead")
    _fill(journal, 4, None)
    _fill(journal, 4, "other")
    journal.give_back("other", ["other-2"])
    now, taken = time.time(), []
    while claim := journal.claim("me", ["f"], now, limit=2).runs:
        taken += [row.id for row in claim]
    assert taken == [*(f"dead-{number}" for number in range(4)), *(f"None-{number}" for number in range(4)), "other-2"]
    assert journal.claim("me", ["g"], now).runs == []
    journal.close()


def test_to_look_whether_some_runs_ended_costs_so_many(journals: list[Journal]) -> None:
    some = [f"me-{number}" for number in range(20)]
    few, many = _compared(journals, lambda journal: (journal.ended(some), journal.lost("me", some)), "me")
    assert 0 < many <= GROWTH * few


def test_a_page_of_live_runs_costs_a_page(tmp_path: Path) -> None:
    def page(journal: Journal) -> None:
        where = RunFilter(statuses=frozenset({RunStatus.WAITING, RunStatus.RUNNING}))
        found = [row.id for _, row in islice(journal.scan(where, None, back=False), 10)]
        newest = int(found[0].removeprefix("me-"))
        assert newest in (FEW - 1, MANY - 1)
        assert found == [f"me-{number}" for number in range(newest, newest - 10, -1)]

    few, many = _compared([SQLiteJournal(tmp_path / name) for name in ("few.db", "many.db")], page, "me")
    assert 0 < many <= GROWTH * few


def test_a_portion_is_counted_at_a_time(tmp_path: Path) -> None:
    journal = SQLiteJournal(tmp_path / "runs.db")
    _fill(journal, 4_500, "me")
    pages, place = [], 0
    for _ in range(3):
        counts, end = journal.count_page(RunFilter(), place, ["me"])
        pages.append(counts[RunStatus.RUNNING])
        place = end or 0
    assert pages == [2_000, 2_000, 500]
    assert place == 0
    journal.close()


def test_an_event_of_a_later_time_costs_the_same_among_many(journals: list[Journal]) -> None:
    costs = []
    for journal, count in zip(journals, (FEW, MANY), strict=True):
        journal.open()
        with journal.transaction():
            for number in range(count):
                assert journal.schedule(Event("later", id=f"event-{number}", ts=1e9 + number))
                assert not journal.schedule(Event("again", id=f"event-{number}", ts=1.0))

        def act(journal: Journal = journal) -> None:
            with journal.transaction():
                journal.schedule(Event("later", id=str(time.perf_counter_ns()), ts=5e9))
                assert journal.next_due() is not None
                assert len(journal.take_due(0.0)) == 0

        costs.append(Costs(journal).of(act))
        with journal.transaction():
            first = journal.take_due(2e9)
        assert [event.id for event in first] == [f"event-{number}" for number in range(len(first))]
        assert 0 < len(first) < count
        journal.close()
    assert costs[1] <= GROWTH * costs[0]


@function("tick", cron=Cron("* * * * *", missed="each"))
async def tick(ctx: Context[None]) -> None:
    await ctx.step.sleep("at work", 0.001)


@pytest.mark.asyncio
async def test_missed_times_have_their_runs_in_portions_and_within_the_limit_of_a_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = MemoryBackend([tick])
    async with first:
        pass
    clock = VirtualClock(first.clock.now() + 60 * 200)
    backend = MemoryBackend([tick], journal=first.journal, clock=clock, max_runs=3)
    created, claimed = [], []
    add, claim = backend.journal.add_run, backend.journal.claim

    def added(new: Any, worker: str | None, now: float, changes: Any) -> Any:
        created.append((new.id, worker, asyncio.get_running_loop().time(), id(changes)))
        return add(new, worker, now, changes)

    def took(*args: Any, **options: Any) -> Any:
        claimed.append(claim(*args, **options))
        return claimed[-1]

    monkeypatch.setattr(backend.journal, "add_run", added)
    monkeypatch.setattr(backend.journal, "claim", took)
    async with backend:
        while len(await _ended(backend)) < 200:
            await asyncio.sleep(0)
            await backend.drain()
    sizes = [sum(each[3] == changes for each in created) for changes in {each[3] for each in created}]
    assert max(sizes) <= AT_ONCE + 1
    assert {worker for _, worker, *_ in created[:200]} == {None}
    assert max(len(each.runs) for each in claimed) <= min(3, PORTION)


@pytest.mark.asyncio
async def test_who_starts_runs_one_after_the_other_lets_others_have_a_turn(tmp_path: Path) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with SQLiteBackend(tmp_path / "runs.db", [tick]):
        pass
    async with SQLiteBackend(tmp_path / "runs.db") as client:
        other = asyncio.create_task(turn())
        for number in range(20):
            before = turns
            await client.start("tick", run_id=f"run-{number}")
            assert turns > before
        other.cancel()


async def _ended(backend: MemoryBackend) -> list[str]:
    return [run.id for run in await backend.runs(function=tick, status=RunStatus.COMPLETED, limit=1000)]
