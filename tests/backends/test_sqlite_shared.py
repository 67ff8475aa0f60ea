"""Several workers on one file: one owner a run, and the stale one is refused."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from durably.backends import SQLiteBackend
from durably.backends.replay.sqlite_journal import SQLiteJournal
from durably.core import Context, Event, Run, RunStatus, Singleton, current_step, function
from durably.core.errors import JournalError, StaleRunError
from durably.core.history import StepRecord

pytestmark = pytest.mark.asyncio


async def registered(run: Run[Any]) -> bool:
    """Whether a run waits for its event: the worker finds it by looking, and then records that it waits."""
    return any(record.kind == "wait_for_event" for record in await run.history())


async def test_the_file_is_the_owners_alone_and_survives_power_loss(tmp_path: Path) -> None:
    async with SQLiteBackend(tmp_path / "runs.db") as backend:
        for path in (tmp_path / "runs.db", tmp_path / "runs.db-wal", tmp_path / "runs.db-shm"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert backend.journal.file.run("PRAGMA journal_mode").fetchone() == ("wal",)
        assert backend.journal.file.run("PRAGMA synchronous").fetchone() == (2,)  # FULL


@pytest.mark.parametrize(
    ("prepare", "complaint"),
    [
        (lambda path: path.write_bytes(b"not a database, surely" * 100), "file is not a database"),
        (lambda path: sqlite3.connect(path).execute("CREATE TABLE t (x)").connection.close(), "of another program"),
        (lambda path: path.mkdir(), "Is a directory"),
    ],
)
async def test_a_wrong_file_is_refused_and_left_alone(tmp_path: Path, prepare: object, complaint: str) -> None:
    path = tmp_path / "other"
    prepare(path)  # type: ignore[operator]
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises((JournalError, OSError), match=complaint):
        await SQLiteBackend(path).__aenter__()
    assert (path.read_bytes() if path.is_file() else b"") == before


async def test_a_newer_file_and_a_missing_directory_are_refused(tmp_path: Path) -> None:
    async with SQLiteBackend(tmp_path / "runs.db"):
        pass
    database = sqlite3.connect(tmp_path / "runs.db")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(JournalError, match="written by a newer durably"):
        await SQLiteBackend(tmp_path / "runs.db").__aenter__()
    with pytest.raises(JournalError, match="there is no directory"):
        await SQLiteBackend(tmp_path / "no" / "runs.db").__aenter__()


async def test_a_second_worker_takes_over_and_the_first_is_fenced_off(tmp_path: Path) -> None:
    held, go = asyncio.Event(), asyncio.Event()
    starts: list[tuple[str, int]] = []

    async def slow() -> str:
        starts.append((current_step().idempotency_key, current_step().attempt))
        if len(starts) == 1:
            held.set()
            await go.wait()
            return "first worker"
        return "second worker"

    @function("slow")
    async def run_slow(ctx: Context[None]) -> str:
        return await ctx.step.run("slow", slow)

    first = SQLiteBackend(tmp_path / "runs.db", [run_slow])
    async with first:
        await first.start(run_slow, run_id="r")
        await held.wait()
        first.journal.bury(first.worker)  # as if its lease had run out under it
        async with SQLiteBackend(tmp_path / "runs.db", [run_slow]) as second:
            assert await (await second.run("r")).result() == "second worker"
            go.set()
            assert await (await first.run("r")).result() == "second worker"
            history = await (await second.run("r")).history()
    assert [record.status for record in history] == ["started", "completed", "completed"]
    assert len({key for key, _ in starts}) == 1
    assert [attempt for _, attempt in starts] == [1, 2]


async def test_a_write_with_an_old_fence_is_refused(tmp_path: Path) -> None:
    @function("f")
    async def forever(ctx: Context[None]) -> None:
        await ctx.step.wait_for_event("w", "never")

    async with SQLiteBackend(tmp_path / "runs.db", [forever]) as backend:
        await backend.start(forever, run_id="r")
        await asyncio.sleep(0.05)
        journal = backend.journal
        for fence, seq in [(0, journal.count("r")), (2, journal.count("r")), (1, 0)]:
            with pytest.raises(StaleRunError):
                journal.commit(StepRecord("r", seq, "x", "step", "completed"), fence)
        await (await backend.run("r")).cancel()
        with pytest.raises(StaleRunError):
            journal.commit(StepRecord("r", journal.count("r"), "x", "step", "completed"), 1)


async def test_events_results_and_cancels_cross_from_worker_to_worker(tmp_path: Path) -> None:
    @function("waiter")
    async def waiter(ctx: Context[None]) -> str:
        event = await ctx.step.wait_for_event("w", "go", timeout=30)
        return event.data["who"] if event else "nobody"

    @function("sleeper")
    async def sleeper(ctx: Context[None]) -> None:
        await ctx.step.sleep("s", 3600)

    path = tmp_path / "runs.db"
    async with SQLiteBackend(path, [waiter, sleeper]) as worker, SQLiteBackend(path) as client:
        waiting = await client.start("waiter", run_id="w")
        sleeping = await client.start("sleeper", run_id="s")
        while not await registered(waiting):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        await client.send(Event("go", {"who": "client"}))
        assert await waiting.result() == "client"
        await sleeping.cancel()
        while "s" in worker.live_runs:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        assert (await (await worker.run("s")).refresh()).status == "cancelled"


@pytest.mark.parametrize("functions", [[], [str.upper]], ids=["client", "worker"])
async def test_nothing_of_a_backend_runs_on_when_it_is_closed(functions: list[Any], tmp_path: Path) -> None:
    served = [function(each.__name__)(_nothing) for each in functions]
    async with SQLiteBackend(tmp_path / "runs.db", served):
        assert len(asyncio.all_tasks()) > 1, "it looks at what other processes do"
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def _nothing(ctx: Context[None]) -> None: ...


async def test_a_stopped_worker_gives_its_runs_back_at_once(tmp_path: Path) -> None:
    @function("sleeper")
    async def sleeper(ctx: Context[None]) -> str:
        await ctx.step.sleep("s", 0.3)
        return "awake"

    async with SQLiteBackend(tmp_path / "runs.db", [sleeper]) as first:
        await first.start(sleeper, run_id="s")
        await asyncio.sleep(0)
    assert not SQLiteJournal(tmp_path / "runs.db").file.is_open
    async with SQLiteBackend(tmp_path / "runs.db", [sleeper]) as second:
        row = second.journal.get("s")
        assert row is not None
        assert row.crashes == ()
        assert await (await second.run("s")).result() == "awake"


async def test_a_dead_process_is_noticed_without_waiting_for_its_lease(tmp_path: Path) -> None:
    @function("f")
    async def quick(ctx: Context[None]) -> str:
        return "done"

    journal = SQLiteJournal(tmp_path / "runs.db")
    async with SQLiteBackend(tmp_path / "runs.db") as client:
        await client.start(quick, run_id="r")
    child = os.fork()
    if not child:  # pragma: no cover  # a process that claims the run and is gone
        journal.open()
        journal.lease("gone", 2**40)
        journal.claim("gone", ["f"], 0)
        os._exit(0)
    await asyncio.to_thread(os.waitpid, child, 0)
    async with SQLiteBackend(tmp_path / "runs.db", [quick]) as backend:
        assert await (await backend.run("r")).result() == "done"
        row = backend.journal.get("r")
        assert row is not None
        assert (row.fence, row.crashes) == (3, (1,))


async def test_a_run_that_another_worker_cancelled_is_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    going, free = asyncio.Event(), asyncio.Event()

    async def long() -> None:
        going.set()
        await free.wait()

    @function("alone", singleton=Singleton(mode="cancel"), retries=0)
    async def alone(ctx: Context[str]) -> None:
        await ctx.step.run("long" if ctx.input == "older" else "short", long if ctx.input == "older" else free.wait)

    path = tmp_path / "runs.db"
    async with SQLiteBackend(path, [alone]) as one, SQLiteBackend(path, [alone]) as other:
        older = await one.start(alone, "older")
        await asyncio.wait_for(going.wait(), 20)
        newer = await other.start(alone, "newer")
        free.set()  # at once: the older run's worker learns of its end by the write that is refused
        assert (await older.ended()).status is RunStatus.CANCELLED
        await newer.ended()
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []
