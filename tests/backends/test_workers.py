"""Workers on SQLite: told to stop by a signal, limited, listed, and held up by a process that is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from durably.backends import SQLiteBackend
from durably.core import Context, function
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
