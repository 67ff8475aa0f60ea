"""Commits that share a transaction: each as if it were alone, on the disk when it returns, and the loop goes on."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably.backends import MemoryJournal, SQLiteBackend, SQLiteJournal
from durably.backends.replay import sqlite_file
from durably.backends.replay.journal import Journal
from durably.backends.replay.journal_types import NewRun
from durably.core import Context, Event, function
from durably.core.errors import JournalBusyError, JournalError, StaleRunError
from durably.core.history import StepRecord

aio = pytest.mark.asyncio

RUNS = ("r0", "r1", "r2")

Kind = Literal["append", "stale", "torn", "send", "create", "cancel"]
KINDS: tuple[Kind, ...] = ("append", "append", "append", "stale", "torn", "send", "create", "cancel")


class TornError(Exception):
    """Raised by a change that has written something already."""


def _event(text: str) -> str:
    return Event("go", text, id=f"go-{text}").model_dump_json()


def _record(run_id: str, seq: int, number: int) -> StepRecord:
    return StepRecord(run_id, seq, f"s{number}", "step", "completed", output=str(number), at=1.0)


def change(journal: Journal, kind: Kind, run_id: str, number: int) -> Callable[[], object]:
    """A change to a journal that has the three runs."""

    def append(fence: int = 1) -> None:
        journal.append(_record(run_id, journal.count(run_id), number), fence)

    def torn() -> None:
        journal.publish([Event("go", number, id=f"torn-{number}")], worker=None, served=(), now=1.0)
        raise TornError

    def torn_at_once() -> None:
        raise TornError

    # A storage in memory undoes nothing: there the change that is undone is left out.
    undone = torn_at_once if isinstance(journal, MemoryJournal) else torn
    event = Event("go", number, id=f"e{number % 3}")
    new = NewRun(id=f"n{number % 3}", function="f", event=_event("new"))
    changes: dict[Kind, Callable[[], object]] = {
        "append": append,
        "stale": partial(append, 7),
        "torn": undone,
        "send": partial(journal.publish, [event], worker=None, served=(), now=1.0),
        "create": partial(journal.create, new, worker=None, now=1.0),
        "cancel": partial(journal.cancel, run_id, 1.0),
    }
    return changes[kind]


def state(journal: Journal) -> object:
    """All that a journal says."""
    rows = journal.rows(None, None, 100)
    return [(row, journal.records(row.id)) for row in rows], journal.events_since(0, "go")


def outcome(change: Callable[[], object]) -> str:
    """What a change came to."""
    try:
        change()
    except (TornError, StaleRunError) as error:
        return type(error).__name__
    return "made"


async def written(journal: Journal, plan: list[tuple[Kind, int, int]]) -> tuple[list[str], list[str]]:
    """Make changes through ``write``; what each came to, and in which order that was told.

    Args:
        journal: Where.
        plan: For each change its kind, its run, and for how many turns of the loop the next one waits.
    """
    told: list[str] = []
    futures: list[asyncio.Future[Any]] = []
    for number, (kind, run, turns) in enumerate(plan):
        futures.append(
            journal.write(
                change(journal, kind, RUNS[run], number),
                lambda _, number=number: told.append(f"{number} made"),  # type: ignore[misc]
                lambda error, number=number: told.append(f"{number} {type(error).__name__}"),  # type: ignore[misc]
                alone=turns > 2,
            )
        )
        for _ in range(turns):
            await asyncio.sleep(0)
    found = await asyncio.gather(*futures, return_exceptions=True)
    return ["made" if not isinstance(each, BaseException) else type(each).__name__ for each in found], told


def _with_runs(journal: Journal) -> Journal:
    for run_id in RUNS:
        journal.create(NewRun(id=run_id, function="f", event=_event(run_id)), worker="w", now=1.0)
    return journal


plans = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2), st.integers(0, 3)), max_size=25)


@settings(max_examples=60, deadline=None)
@given(plan=plans, largest=st.sampled_from([1, 2, 250]))
def test_any_interleaving_of_grouped_changes_is_the_serial_one(plan: list[tuple[Kind, int, int]], largest: int) -> None:
    serial = _with_runs(MemoryJournal())
    expected = [outcome(change(serial, kind, RUNS[run], number)) for number, (kind, run, _) in enumerate(plan)]
    with TemporaryDirectory() as directory:
        journal = SQLiteJournal(Path(directory) / "runs.db")
        journal.open()
        journal.groups.largest = largest
        try:
            _with_runs(journal)
            found, told = asyncio.run(written(journal, plan))
            assert found == expected
            by_number = {int(each.split()[0]): each.split()[1] for each in told}
            assert [by_number[number] for number in range(len(plan))] == expected, "each is told once"
            assert len(told) == len(plan)
            made = [int(each.split()[0]) for each in told if each.endswith(" made")]
            assert made == sorted(made), "in the order in which they were made"
            assert state(journal) == state(serial)
        finally:
            journal.close()


@pytest.fixture
def journal(tmp_path: Path) -> Any:
    journal = SQLiteJournal(tmp_path / "runs.db")
    journal.open()
    _with_runs(journal)
    yield journal
    journal.close()


@aio
async def test_a_commit_that_fails_is_made_again_change_by_change(
    journal: SQLiteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, fails = journal.file.commit, 1

    def fail() -> None:
        nonlocal fails
        if fails:
            fails -= 1
            raise JournalError("disk I/O error")
        commit()

    monkeypatch.setattr(journal.file, "commit", fail)
    found, _ = await written(journal, [("append", run, 0) for run in (0, 1, 2, 0)])
    assert found == ["made"] * 4
    assert [journal.count(run_id) for run_id in RUNS] == [3, 2, 2]
    fails = 1
    with pytest.raises(JournalError):
        await journal.write(change(journal, "append", "r0", 9))
    assert journal.count("r0") == 3


@aio
async def test_what_is_read_after_a_refused_change_is_not_read_aside(journal: SQLiteJournal) -> None:
    """Else a worker would not notice what other processes write."""
    seen = journal.file.version()
    hidden = journal.path.rename(journal.path.with_name("hidden.db"))
    with pytest.raises(JournalError, match="was removed"):
        await journal.write(change(journal, "append", "r0", 0))
    hidden.rename(journal.path)
    with sqlite3.connect(journal.path) as other:
        other.execute("UPDATE runs SET tags = '[]'")
    assert journal.file.version() != seen


@aio
async def test_a_group_whose_commit_fails_is_parted(journal: SQLiteJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk has room for each change, and never for two at once."""
    make, commit, made = journal.file.make, journal.file.commit, 0

    def count(change: Callable[[], Any], *, joins: bool) -> Any:
        nonlocal made
        made = made + 1 if joins else 1
        return make(change, joins=joins)

    def refuse() -> None:
        if made > 1:
            raise JournalError("database or disk is full")
        commit()

    monkeypatch.setattr(journal.file, "make", count)
    monkeypatch.setattr(journal.file, "commit", refuse)
    changes = [journal.write(change(journal, "append", f"r{number}", 0)) for number in (0, 1, 2)]
    await asyncio.wait_for(asyncio.gather(*changes), 20)
    assert [journal.count(run_id) for run_id in RUNS] == [2, 2, 2]


@aio
async def test_a_change_that_the_disk_has_no_room_for_fails_alone(journal: SQLiteJournal) -> None:
    """SQLite itself then undoes the whole transaction, with what others did in it."""
    journal.file.run("PRAGMA wal_checkpoint(TRUNCATE)")
    (pages,) = journal.file.run("PRAGMA page_count").fetchone()
    journal.file.run(f"PRAGMA max_page_count = {pages + 8}")
    large = StepRecord(
        "r1", 1, "large", "step", "completed", output=json.dumps(Random(7).randbytes(300_000).hex()), at=1.0
    )
    futures: list[asyncio.Future[Any]] = [
        journal.write(change(journal, "append", "r0", 0)),
        journal.write(partial(journal.append, large, 1)),
        journal.write(change(journal, "append", "r2", 2)),
    ]
    found = await asyncio.gather(*futures, return_exceptions=True)
    assert [isinstance(each, JournalError) for each in found] == [False, True, False]
    assert [journal.count(run_id) for run_id in RUNS] == [2, 1, 2]


@aio
async def test_a_number_that_was_given_in_vain_is_not_remembered(journal: SQLiteJournal) -> None:
    def in_vain() -> None:
        journal.create(NewRun(id="vain", function="f", event=_event("vain")), worker=None, now=1.0)
        raise TornError

    with pytest.raises(TornError):
        await journal.write(in_vain)
    await journal.write(change(journal, "create", "", 0))
    assert journal.get("vain") is None
    assert [record.seq for record in journal.records("n0")] == [0]
    await journal.write(
        lambda: journal.create(NewRun(id="vain", function="f", event=_event("vain")), worker=None, now=1.0)
    )
    assert journal.records("vain")[0].output == _event("vain")


@aio
async def test_what_returned_is_on_the_disk_whatever_the_others_of_its_group_do(
    journal: SQLiteJournal, tmp_path: Path
) -> None:
    """Each time one is told of, the power goes: the files as they are then have all that were told of."""
    told: set[int] = set()
    copies: list[tuple[Path, set[int]]] = []

    def tell(number: int, _: object) -> None:
        told.add(number)
        copy = tmp_path / f"copy-{number}"
        copy.mkdir()
        for name in ("runs.db", "runs.db-wal"):
            shutil.copy(tmp_path / name, copy)
        copies.append((copy, set(told)))

    futures: list[asyncio.Future[Any]] = []
    for number in range(24):
        kind: Kind = "torn" if number % 5 == 4 else "append"
        futures.append(journal.write(change(journal, kind, RUNS[number % 3], number), partial(tell, number)))
        if number % 7 == 6:
            await asyncio.sleep(0.001)
    await asyncio.gather(*futures, return_exceptions=True)
    assert len(copies) == 20
    for copy, numbers in copies:
        again = SQLiteJournal(copy / "runs.db")
        again.open()
        kept = {int(record.output or 0) for run_id in RUNS for record in again.records(run_id)[1:]}
        again.close()
        assert numbers <= kept
        assert not any(number % 5 == 4 for number in kept)


@aio
async def test_the_loop_goes_on_while_another_process_has_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the loop to wait for the lock, nobody could give it back."""
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 30)
    loops, sleep = threading.get_ident(), time.sleep

    def away_from_the_loop(seconds: float) -> None:
        assert threading.get_ident() != loops, "the event loop waits"
        sleep(seconds)

    @function("twice")
    async def twice(ctx: Context[int]) -> int:
        return await ctx.step.run("double", (2).__mul__, ctx.input, output_type=int)

    async with SQLiteBackend(tmp_path / "runs.db", [twice]) as backend:
        await backend.invoke(twice, 1, run_id="before")
        monkeypatch.setattr(time, "sleep", away_from_the_loop)
        other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        started = [asyncio.ensure_future(backend.start(twice, number, run_id=f"run-{number}")) for number in (2, 3)]
        for _ in range(200):
            await asyncio.sleep(0)
            assert [each.id for each in await backend.runs()] == ["before"]
            assert await (await backend.run("before")).result() == 2
        assert not any(each.done() for each in started)
        other.execute("ROLLBACK")
        other.close()
        assert [await (await each).result() for each in started] == [4, 6]
        monkeypatch.setattr(time, "sleep", sleep)


@aio
async def test_start_waits_for_the_lock_as_long_as_it_says(tmp_path: Path) -> None:
    @function("f")
    async def quick(ctx: Context[None]) -> str:
        return "done"

    async with SQLiteBackend(tmp_path / "runs.db", [quick], busy_timeout=3600) as backend:
        other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalBusyError, match="is locked by"):
            await backend.start(quick, run_id="late", timeout=0)
        waits = asyncio.ensure_future(backend.start(quick, run_id="patient", timeout="1 h"))
        await asyncio.sleep(0.05)
        assert not waits.done()
        other.execute("ROLLBACK")
        other.close()
        assert await (await waits).result() == "done"
        assert [each.id for each in await backend.runs()] == ["patient"], "nothing was written by the other"


@aio
async def test_a_worker_that_stops_while_a_wait_is_being_recorded_gives_the_run_back(tmp_path: Path) -> None:
    @function("naps")
    async def naps(ctx: Context[None]) -> None:
        await ctx.step.sleep("nap", 3600)

    backend = SQLiteBackend(tmp_path / "runs.db", [naps])
    commit, may_commit = backend.journal.file.commit, threading.Event()

    def late() -> None:
        may_commit.wait()
        commit()

    async with backend:
        run = await backend.start(naps)
        backend.journal.file.commit = late  # type: ignore[method-assign]
        while not backend.journal.file.apart:  # noqa: ASYNC110  # until the record of the nap is on its way
            await asyncio.sleep(0)
        stopping = asyncio.ensure_future(backend._worker.driver.stop(3600))
        await asyncio.sleep(0)
        may_commit.set()
        assert await stopping == set()
        assert [record.kind for record in backend.journal.records(run.id)] == ["run", "sleep"]
