"""The event loop goes on, whatever is done with a SQLite file, while another process has its lock and while it syncs.

Nothing here looks at a clock. The lock is given back by the loop, after so many of its turns: were the loop to wait for
it, both would wait for each other until the test is given up.
"""

from __future__ import annotations

import asyncio
import inspect
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from durably.backends import SQLiteBackend, SQLiteDeltas
from durably.backends.replay import sqlite_file
from durably.backends.replay.sqlite_file import SQLiteFile
from durably.core import Agent, AgentInput, Backend, Context, Event, Function, Retention, Run, function, tool, user
from durably.core.deltas import StoredDelta
from durably.core.engine import Engine
from durably.core.errors import InvokeError, JournalError
from durably.core.model import Delta, StreamedDelta
from durably.core.run_view import RunStatus
from durably.testing import ScriptedModel, call
from tests.backends import lock_child

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]

TURNS = 300
"""How often the loop turns while the lock is held."""


@tool(requires_approval=True)
async def pay(order: int) -> str:
    """Pay for an order."""
    return f"paid {order}"


def _agent(name: str, *answers: Any, **options: Any) -> Agent[Any, Any]:
    return Agent(name, model=ScriptedModel(*answers), instructions="", **options)


asker = _agent("asker", call("pay", order=7), "done", tools=[pay])
talker = _agent("talker", "well", sessions="backend")


@function("double", retries=0)
async def double(ctx: Context[int]) -> int:
    return await ctx.step.run("double", _double, ctx.input)


async def _double(number: int) -> int:
    if number < 0:
        raise ValueError("less than nothing")
    return 2 * number


@function("listener", triggers=["begin"])
async def listener(ctx: Context[Any]) -> Any:
    heard = await ctx.step.wait_for_event("ear", "told")
    return heard and heard.data


FUNCTIONS: list[Function[Any, Any]] = [asker, talker, double, listener]


def _open(path: Path, **options: Any) -> SQLiteBackend:
    return SQLiteBackend(path, FUNCTIONS, busy_timeout=3600, **options)


def _piece(text: str) -> StoredDelta:
    delta = StreamedDelta(
        run_id="whole", step="think", attempt=1, offset=0, delta=Delta(kind="text", text=text), at=1.5
    )
    return StoredDelta(delta, 3)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a run of each kind."""
    path = tmp_path_factory.mktemp("template") / "runs.db"

    async def make() -> None:
        async with _open(path) as backend:
            await backend.invoke(double, 1, run_id="whole")
            with pytest.raises(InvokeError):
                await backend.invoke(double, -1, run_id="broken")
            for each, run_id in ((listener, "waiting"), (asker, "asking")):
                run = await backend.start(each, "go", run_id=run_id)
                while (await backend.run(run.id)).status is not RunStatus.WAITING:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            await backend.sessions.append("talk", [user("hello")], key="first")
            assert backend.deltas is not None
            await backend.deltas.append([_piece("a")])

    asyncio.run(make())
    return path


class Lock:
    """The lock of a file, in the hands of another process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def hold(self) -> None:
        assert self._tell("hold") == "held\n"

    def free(self) -> None:
        assert self._tell("free") == "free\n"

    def _tell(self, what: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    """A copy of the file."""
    shutil.copy(template, tmp_path)
    return tmp_path / template.name


@pytest.fixture
def lock(path: Path) -> Iterator[Lock]:
    with subprocess.Popen(
        [sys.executable, "-m", lock_child.__name__, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Lock(process)
        process.kill()


@pytest.fixture
def _away_from_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may wait fails in the thread of the loop, and waits in others as long as it must."""
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 3600)
    loops = threading.get_ident()

    def guarded(name: str) -> Callable[..., Any]:
        method = getattr(SQLiteFile, name)

        def guard(self: SQLiteFile, *args: Any) -> Any:
            assert threading.get_ident() != loops, f"the event loop waits: SQLiteFile.{name}"
            return method(self, *args)

        return guard

    for name in ("open", "begin", "commit", "close"):
        monkeypatch.setattr(SQLiteFile, name, guarded(name))


Operation = Callable[[SQLiteBackend], Awaitable[Any]]


async def _streamed(backend: SQLiteBackend) -> list[Any]:
    return [item async for item in (await backend.run("whole")).stream()]


async def _answer(backend: SQLiteBackend, *, approve: bool) -> Any:
    [asked] = await backend.approvals()
    return await (backend.approve(asked.id) if approve else backend.reject(asked.id, "no"))


def _of(run_id: str, operation: Callable[[Any], Awaitable[Any]]) -> Operation:
    async def of(backend: SQLiteBackend) -> Any:
        return await operation(await backend.run(run_id))

    return of


WRITES: dict[str, Operation] = {
    "start": lambda backend: backend.start(double, 4),
    "invoke": lambda backend: backend.invoke(double, 4),
    "invoke, with a session": lambda backend: backend.invoke(talker, AgentInput(message="hello", session_key="talk")),
    "send, which starts a run": lambda backend: backend.send(Event("begin", 1)),
    "send, for one who waits": lambda backend: backend.send(Event("told", 1)),
    "send, for later": lambda backend: backend.send(Event("told", 1, ts=4e9)),
    "cancel": _of("waiting", lambda run: run.cancel()),
    "approve": lambda backend: _answer(backend, approve=True),
    "reject": lambda backend: _answer(backend, approve=False),
    "retry": _of("broken", lambda run: run.retry()),
    "fork": _of("whole", lambda run: run.fork(after="double")),
    "prune": lambda backend: backend.prune(keep=0),
    "an append to a session": lambda backend: backend.sessions.append("talk", [user("again")], key="second"),
    "the end of a session": lambda backend: backend.sessions.delete("talk"),  # type: ignore[attr-defined]
    "the pieces of an answer": lambda backend: backend.deltas.append([_piece("b")]),  # type: ignore[union-attr]
    "the end of pieces": lambda backend: backend.deltas.delete("whole"),  # type: ignore[union-attr]
}

READS: dict[str, Operation] = {
    "runs": lambda backend: backend.runs(),
    "count_runs": lambda backend: backend.count_runs(),
    "approvals": lambda backend: backend.approvals(),
    "workers": lambda backend: backend.workers(),
    "run": lambda backend: backend.run("whole"),
    "result": _of("whole", lambda run: run.result()),
    "history": _of("whole", lambda run: run.history()),
    "trace": _of("whole", lambda run: run.trace()),
    "stream": _streamed,
    "a session": lambda backend: backend.sessions.load("talk"),
    "pieces of an answer": lambda backend: backend.deltas.read("whole", 0),  # type: ignore[union-attr]
}


@asynccontextmanager
async def _held(lock: Lock, work: Awaitable[Any]) -> AsyncIterator[asyncio.Future[Any]]:
    """Begin something while the lock is held, and give the lock back behind the block."""
    lock.hold()
    task = asyncio.ensure_future(work)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    try:
        yield task
    finally:
        lock.free()
    await task


@pytest.mark.usefixtures("_away_from_the_loop")
@pytest.mark.parametrize("name", WRITES)
async def test_who_writes_waits_and_the_loop_goes_on(name: str, path: Path, lock: Lock) -> None:
    async with _open(path) as backend, _held(lock, WRITES[name](backend)) as written:
        assert not written.done(), "it has been written, although another process has the lock"


@pytest.mark.usefixtures("_away_from_the_loop")
@pytest.mark.parametrize("name", READS)
async def test_who_reads_waits_for_nobody(name: str, path: Path, lock: Lock) -> None:
    async with _open(path) as backend, _held(lock, READS[name](backend)) as read:
        assert await read


@pytest.mark.usefixtures("_away_from_the_loop")
async def test_the_loop_goes_on_while_a_backend_opens_and_closes(path: Path, lock: Lock) -> None:
    backend = _open(path, retention=Retention(count=1))
    async with _held(lock, backend.__aenter__()) as opened:
        assert not opened.done()
    async with _held(lock, backend.__aexit__(None, None, None)) as closed:
        assert not closed.done()


@pytest.mark.usefixtures("_away_from_the_loop")
async def test_what_a_failed_commit_undid_is_made_again_away_from_the_loop(path: Path) -> None:
    async with _open(path) as backend:
        commit, errors = backend.journal.file.commit, [JournalError("disk I/O error")]

        def fail_once() -> None:
            if errors:
                raise errors.pop()
            commit()

        started = [asyncio.ensure_future(backend.invoke(double, number)) for number in range(5)]
        await asyncio.sleep(0)  # all of them share the commit that fails
        backend.journal.file.commit = fail_once  # type: ignore[method-assign]
        assert await asyncio.gather(*started) == [0, 2, 4, 6, 8]
        assert not errors


@pytest.mark.usefixtures("_away_from_the_loop")
async def test_the_loop_goes_on_while_a_file_is_made(tmp_path: Path) -> None:
    async with _open(tmp_path / "new.db", deltas=SQLiteDeltas(tmp_path / "deltas.db")) as backend:
        assert await backend.invoke(double, 2) == 4


def _public(kind: type) -> set[str]:
    """The names of the methods that programs wait for."""
    methods = inspect.getmembers(
        kind, lambda each: inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
    )
    return {name for name, _ in methods if not name.startswith("_")}


async def test_all_that_programs_wait_for_is_here() -> None:
    asked = {name.partition(",")[0] for name in (*WRITES, *READS)}
    # What only wraps the others, and what stands between a backend and its engine.
    apart = {"ended", "refresh", "asking_runs", "live_run_ids", "question_history"} | _public(Engine)
    assert (_public(Backend) | _public(Run)) - apart <= asked
