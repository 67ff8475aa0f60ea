"""Workers: limited; on SQLite also told to stop by a signal, killed, and held up by a process that is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.core import Context, Event, function
from durably.core.errors import JournalBusyError

pytestmark = pytest.mark.asyncio

HOLDER = """
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
db.execute("ROLLBACK")
sys.stdin.read()
"""

WORKER = """
import asyncio, sys
from durably.backends import SQLiteBackend
from durably.core import run_worker
from tests.backends.test_workers import slow, waits
asyncio.run(run_worker(SQLiteBackend(sys.argv[1], [slow, waits]), drain_timeout=30))
"""


async def _body(path: str) -> str:
    Path(path).write_text("began")
    while not Path(f"{path}.go").exists():  # noqa: ASYNC110  # another process makes it
        await asyncio.sleep(0.01)
    return "ended"


@function("slow")
async def slow(ctx: Context[str]) -> str:
    return await ctx.step.run("body", _body, ctx.input)


@function("waits")
async def waits(ctx: Context[None]) -> str:
    await ctx.step.sleep("long", 3600)
    return "awake"


def _process(code: str, path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def _until_file(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def test_a_stopped_process_that_holds_the_lock_is_named_and_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "runs.db"
    async with SQLiteBackend(path, [waits], busy_timeout=20) as backend:
        with _process(HOLDER, path) as holder:
            assert holder.stdout is not None
            assert await asyncio.to_thread(holder.stdout.readline) == b"held\n"
            starting = asyncio.ensure_future(backend.start(waits))
            while f"process {holder.pid} (stopped)" not in caplog.text:  # noqa: ASYNC110  # the loop goes on meanwhile
                await asyncio.sleep(0.05)
            assert f"kill -CONT {holder.pid}" in caplog.text
            assert not starting.done()
            os.kill(holder.pid, signal.SIGCONT)
            assert (await starting).id
            holder.communicate()


async def test_a_call_gives_up_when_its_own_time_is_over(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with SQLiteBackend(path, [waits], busy_timeout=0.3) as backend:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalBusyError, match="another connection of this process"):
            await backend.start(waits)
        other.execute("ROLLBACK")
        other.close()
        assert (await backend.start(waits)).id


async def test_a_worker_that_drains_gives_waiting_runs_back_at_once(tmp_path: Path) -> None:
    path, mark = tmp_path / "runs.db", tmp_path / "mark"
    async with SQLiteBackend(path) as client:
        await client.start(waits, run_id="waits")
        await client.start(slow, str(mark), run_id="slow")
        with _process(WORKER, path) as worker:
            await _until_file(mark)
            worker.send_signal(signal.SIGTERM)
            async with SQLiteBackend(path, [waits]) as other:
                while "waits" not in other.live_runs:  # noqa: ASYNC110  # while the body of the other run still runs
                    await asyncio.sleep(0.02)
                assert worker.poll() is None
                assert not (tmp_path / "mark.go").exists()
                (tmp_path / "mark.go").touch()
                assert await asyncio.to_thread(worker.wait) == 0
    async with SQLiteBackend(path, [slow]) as last:
        assert await (await last.run("slow")).result() == "ended"
        (record,) = (await (await last.run("slow")).history()).steps()
        assert record.attempt == 1


async def test_a_worker_that_is_killed_while_it_drains_keeps_nothing(tmp_path: Path) -> None:
    path, mark = tmp_path / "runs.db", tmp_path / "mark"
    async with SQLiteBackend(path) as client:
        await client.start(waits, run_id="waits")
        await client.start(slow, str(mark), run_id="slow")
        with _process(WORKER, path) as worker:
            await _until_file(mark)
            worker.send_signal(signal.SIGTERM)
            async with SQLiteBackend(path, [slow, waits]) as other:
                while other.live_runs != ["waits"]:  # noqa: ASYNC110  # it was given back, and the other was not
                    await asyncio.sleep(0.02)
                worker.kill()
                assert await asyncio.to_thread(worker.wait) == -signal.SIGKILL
                (tmp_path / "mark.go").touch()
                run = await other.run("slow")
                assert await run.result() == "ended"
                (record,) = (await run.history()).steps()
                assert record.attempt == 2, "the body was cut off"
                row = other.journal.get("waits")
                assert row is not None
                assert row.crashes == (), "no crash of the run that was given back before"


async def test_a_second_signal_ends_the_worker_at_once(tmp_path: Path) -> None:
    path, mark = tmp_path / "runs.db", tmp_path / "mark"
    async with SQLiteBackend(path) as client:
        await client.start(slow, str(mark), run_id="slow")
        with _process(WORKER, path) as worker:
            await _until_file(mark)
            worker.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            assert worker.poll() is None
            worker.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(worker.wait) == -signal.SIGTERM


class Busy:
    """How many bodies run now, and how many did at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        self.now = self.most = 0

    def count(self, change: int) -> None:
        with self._lock:
            self.now += change
            self.most = max(self.most, self.now)


async def _busy(busy: Busy) -> None:
    busy.count(1)
    await asyncio.sleep(0.01)
    busy.count(-1)


def _busy_thread(busy: Busy) -> None:
    busy.count(1)
    time.sleep(0.01)
    busy.count(-1)


bodies = Busy()


@function("wide")
async def wide(ctx: Context[bool]) -> None:
    """Three bodies at once, twice; with ``True`` in threads."""
    body = _busy_thread if ctx.input else _busy

    async def branch() -> None:
        await ctx.step.run("body", lambda: body(bodies))

    for _ in range(2):
        await ctx.step.gather(branch, branch, branch)


@function("patient")
async def patient(ctx: Context[None]) -> None:
    await ctx.step.wait_for_event("wait", "workers/go")
    await ctx.step.run("body", lambda: _busy(bodies))


def _limited(engine: str, path: Path, **limits: Any) -> Any:
    functions: list[Any] = [wide, patient]
    return MemoryBackend(functions, **limits) if engine == "memory" else SQLiteBackend(path, functions, **limits)


LIMITED = pytest.mark.parametrize(
    ("engine", "in_threads"), [("memory", False), ("sqlite", False), ("sqlite", True)], ids=str
)


@LIMITED
async def test_no_more_bodies_run_at_once_than_max_steps(engine: str, in_threads: bool, tmp_path: Path) -> None:
    bodies.reset()
    async with _limited(engine, tmp_path / "runs.db", max_steps=2) as backend:
        runs = [await backend.start(wide, in_threads) for _ in range(5)]
        for run in runs:
            await run.result()
    assert (bodies.now, bodies.most) == (0, 2)


@LIMITED
async def test_no_more_runs_are_driven_at_once_than_max_runs(engine: str, in_threads: bool, tmp_path: Path) -> None:
    bodies.reset()
    async with _limited(engine, tmp_path / "runs.db", max_runs=1) as backend:
        runs = [await backend.start(wide, in_threads) for _ in range(4)]
        for run in runs:
            await run.result()
    assert (bodies.now, bodies.most) == (0, 3), "the three bodies of one run"


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
async def test_runs_that_wait_do_not_count_for_max_runs(engine: str, tmp_path: Path) -> None:
    async with _limited(engine, tmp_path / "runs.db", max_runs=1) as backend:
        waiting = [await backend.start(patient) for _ in range(4)]
        await backend.invoke(wide, False)
        while len(backend.live_runs) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await backend.send(Event("workers/go"))
        for run in waiting:
            await run.result()
