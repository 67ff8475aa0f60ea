"""Forgetting finished runs in memory and on SQLite: by rule, in part, beside live runs, and through a kill."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.replay import sweeper
from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.sqlite_file import FIRST, RUN_SHIFT
from durably.core import Context, DefinitionError, Function, Pruned, Retention, RunNotFoundError, RunStatus, function
from durably.core.errors import StaleRunError, UnsupportedFeatureError
from durably.core.history import StepRecord
from examples.lmdb_backend import LMDBBackend

aio = pytest.mark.asyncio


async def _echo(value: Any) -> Any:
    return value


@function("quick")
async def quick(ctx: Context[int]) -> int:
    return await ctx.step.run("work", _echo, ctx.input)


@function("brief", retention=Retention(count=2))
async def brief(ctx: Context[int]) -> int:
    return ctx.input


@function("plain")
async def plain(ctx: Context[int]) -> int:
    return ctx.input


@function("nap")
async def nap(ctx: Context[float]) -> None:
    await ctx.step.sleep("nap", ctx.input)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({}, "give age="),
        ({"count": -1}, "count is 0 or more"),
        ({"count": True}, "count is a number of runs"),
        ({"age": "soon"}, "age cannot be read"),
        ({"age": -1}, "age must be 0 seconds or more"),
    ],
)
@aio
async def test_a_retention_that_cannot_be_meant_is_refused(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DefinitionError, match=complaint):
        Retention(**wrong)


@aio
async def test_a_storage_that_cannot_forget_refuses_a_retention(tmp_path: Path) -> None:
    for functions, retention in (([brief], None), ([], Retention(count=1))):
        with pytest.raises(UnsupportedFeatureError, match="lmdb backend does not support retention="):
            LMDBBackend(tmp_path / "runs.lmdb", functions, retention=retention)


@aio
async def test_each_function_is_kept_by_its_own_rule_and_the_others_by_the_backends() -> None:
    async with MemoryBackend([quick, brief], retention=Retention(count=4)) as backend:
        for number in range(6):
            await backend.invoke(quick, number, run_id=f"quick-{number}")
            await backend.invoke(brief, number, run_id=f"brief-{number}")
        gone = await backend.prune()
        assert gone == Pruned(runs=6, records=2 * 3 + 4 * 2)
        left = {run.id for run in await backend.runs()}
        assert left == {f"quick-{n}" for n in range(2, 6)} | {"brief-4", "brief-5"}
        assert await backend.prune() == Pruned()


@aio
async def test_without_a_rule_nothing_goes() -> None:
    async with MemoryBackend([quick, nap]) as backend:
        await backend.invoke(quick, 1)
        await backend.invoke(nap, 3600 * 24 * 365)
        assert await backend.prune() == Pruned()
        assert len(await backend.runs()) == 2


@aio
async def test_a_run_whose_result_is_waited_for_here_stays(tmp_path: Path) -> None:
    async with SQLiteBackend(tmp_path / "runs.db", [quick], clock=VirtualClock()) as backend:
        run = await backend.start(quick, 7)
        waiting = [asyncio.ensure_future(run.result()) for _ in range(3)]
        pruning = asyncio.ensure_future(backend.prune(keep=0))
        assert await asyncio.gather(*waiting) == [7, 7, 7]
        await pruning


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@aio
async def test_a_worker_forgets_by_itself(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "SWEEP_RUNS", 3)
    options: dict[str, Any] = {"retention": Retention(age="1h"), "clock": VirtualClock()}
    backend = (
        MemoryBackend([quick, nap], **options)
        if engine == "memory"
        else SQLiteBackend(tmp_path / "runs.db", [quick, nap], **options)
    )
    async with backend:
        for number in range(10):
            await backend.invoke(quick, number)
        await backend.invoke(nap, 2 * 3600)
        for _ in range(3):
            await backend.invoke(nap, 1)
        for _ in range(200):
            if len(await backend.runs()) < 10:
                break
            await asyncio.sleep(0.01)
        assert {run.view.function for run in await backend.runs()} == {"nap"}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["quick", "plain"]), st.integers(1, 100)), max_size=12),
    st.none() | st.integers(0, 8),
    st.none() | st.integers(0, 400),
)
def test_both_storages_forget_the_same(runs: list[tuple[str, int]], keep: int | None, age: int | None) -> None:
    """What stays is what the rule says, worked out here in another way, and the same in memory and on SQLite."""
    if keep is None and age is None:
        keep = 0

    async def left_by(backend: MemoryBackend | SQLiteBackend) -> list[str]:
        ends: list[tuple[str, str, float]] = []
        async with backend:
            for number, (function, pause) in enumerate(runs):
                await backend.invoke(function, number, run_id=f"r{number}")
                ends.append((f"r{number}", function, backend.clock.now()))
                await backend.invoke(nap, pause, run_id=f"nap{number}")
            await (await backend.start(nap, 10, run_id="last")).result()
            now = backend.clock.now()
            await backend.prune(older_than=age, keep=keep)
            left = [run.id for run in await backend.runs() if run.id.startswith("r")]
        for run_id, function, end in ends:
            newer = sum(1 for other, same, _ in ends if same == function and int(other[1:]) > int(run_id[1:]))
            goes = (keep is not None and newer >= keep) or (age is not None and end <= now - age)
            assert (run_id not in left) is goes, (run_id, newer, now - end)
        return left

    async def both(path: Path) -> None:
        functions: list[Function[Any, Any]] = [quick, plain, nap]
        on_file = SQLiteBackend(path, functions, clock=VirtualClock())
        assert await left_by(MemoryBackend(functions)) == await left_by(on_file)

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(both(Path(directory) / "runs.db"))


# -- SQLite


@aio
async def test_the_number_of_a_forgotten_run_is_not_given_again(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with SQLiteBackend(tmp_path / "runs.db", [quick], clock=clock) as backend:
        await backend.invoke(quick, 1, run_id="old")
        clock.shift(60)
        assert (await backend.prune(keep=0)).runs == 1
        with pytest.raises(StaleRunError):  # a writer that has slept through the end of its run, and its forgetting
            backend.journal.append(StepRecord("old", 2, "late", "step", "completed"), 1)
        await backend.invoke(quick, 2, run_id="new")
        assert backend.journal.file.run("SELECT n FROM runs").fetchall() == [(2,)]
        assert [record.seq for record in await (await backend.run("new")).history()] == [0, 1, 2]
        with pytest.raises(RunNotFoundError):
            await backend.run("old")


@aio
async def test_the_file_shrinks(tmp_path: Path) -> None:
    clock, path = VirtualClock(), tmp_path / "runs.db"
    async with SQLiteBackend(path, [quick, large], clock=clock) as backend:
        for number in range(50):
            await (await backend.start("quick", number)).result()
            await backend.invoke(large, "x" * 10_000)
        clock.shift(60)
        await backend.prune(keep=1)
    before_closing = path.stat().st_size
    assert before_closing < 100_000, "half a megabyte of records went"
    async with SQLiteBackend(path, [quick, large], clock=clock) as backend:
        assert len(await backend.runs()) == 2


@function("large")
async def large(ctx: Context[str]) -> int:
    return len(await ctx.step.run("copy", _echo, ctx.input))


@aio
async def test_a_file_of_before_is_pruned_and_keeps_its_size(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    database = sqlite3.connect(path)
    database.executescript(
        f"{FIRST}; PRAGMA application_id = {0x64757262}; PRAGMA user_version = 1; PRAGMA journal_mode = WAL"
    )
    database.close()
    clock = VirtualClock()
    async with SQLiteBackend(path, [quick], clock=clock) as backend:
        for number in range(20):
            await backend.invoke(quick, number)
        clock.shift(60)
        assert (await backend.prune(keep=1)).runs == 19
        assert await backend.invoke(quick, 1) == 1


CHILD = """
import asyncio, os, signal, sys
from durably.backends import SQLiteBackend
from durably.backends.replay.sqlite_pruning import SQLitePruning
from tests.backends.test_pruning import quick, nap

path, method, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
calls = 0

def dying(method):
    def call(*args):
        global calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(*args)
    return call

setattr(SQLitePruning, method, dying(getattr(SQLitePruning, method)))

async def main():
    async with SQLiteBackend(path, [quick, nap]) as backend:
        await backend.prune(older_than=0)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("method", "number"),
    [("forget_runs", 2), ("forget_records", 1), ("forget_records", 2), ("forget_records", 3), ("shrink", 1)],
)
@aio
async def test_killed_while_it_forgets(tmp_path: Path, method: str, number: int) -> None:
    """Beside a live run: nothing of it is lost, what was half forgotten is forgotten, and no number comes again."""
    path = tmp_path / "runs.db"
    clock = VirtualClock(time.time() - 3600)
    async with SQLiteBackend(path, [quick, nap], clock=clock) as backend:
        await backend.start(nap, 3600 * 24, run_id="live")
        for each in range(100):
            await (await backend.start(quick, each, run_id=f"q{each}")).result()
    command = [sys.executable, "-c", CHILD, str(path), method, str(number)]
    done = await asyncio.to_thread(lambda: subprocess.run(command, check=False))
    assert done.returncode == -signal.SIGKILL
    async with SQLiteBackend(path, [quick, nap], clock=VirtualClock(time.time())) as backend:
        left = await backend.runs(limit=1000)
        assert "live" in {run.id for run in left}
        for run in left:
            assert (await run.history())[0].output, "a run that can be found is whole"
        assert await (await backend.run("live")).result() is None
        await backend.invoke(nap, 3600)
        await backend.prune(keep=0)
        file = backend.journal.file
        (runs,) = file.run("SELECT count(*) FROM runs").fetchone()
        (orphans,) = file.run(
            f"SELECT count(*) FROM records WHERE id >> {RUN_SHIFT} NOT IN (SELECT n FROM runs)"
        ).fetchone()
        assert (runs, orphans) == (1, 0), "all but the run that has just ended"
        await backend.invoke(quick, 1, run_id="q0")
        (highest,) = file.run("SELECT max(n) FROM runs").fetchone()
        assert highest == 103
        assert (await backend.run("q0")).status is RunStatus.COMPLETED
