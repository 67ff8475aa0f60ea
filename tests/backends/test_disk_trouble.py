"""A disk that is full or failing, and a lock that another program holds: waited for, and nothing runs twice for it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from random import Random

import pytest

from durably.backends import SQLiteBackend
from durably.backends.replay import sqlite_file
from durably.backends.replay.clock import VirtualClock
from durably.core import Context, JSONLSessions, SQLiteSessions, function
from durably.core.errors import JournalError
from durably.core.messages import UserMessage
from durably.core.steps import Point

pytestmark = pytest.mark.asyncio

FIRST, SECOND = "a" * 50_000, "b" * 50_000

bodies: list[str] = []


async def _write(letter: str) -> str:
    bodies.append(letter)
    return Random(letter).randbytes(25_000).hex()  # nothing that can be compressed to a page or two


@function("writer")
async def writer(ctx: Context[None]) -> int:
    return len(await ctx.step.run("write", _write, "a")) + len(await ctx.step.run("write", _write, "b"))


@pytest.fixture(autouse=True)
def _fresh() -> None:
    bodies.clear()


@pytest.mark.parametrize("passages", [1, 40], ids=["once", "lasting"])
async def test_a_full_disk_is_waited_for(tmp_path: Path, passages: int) -> None:
    """The disk is really full, as far as SQLite can tell: the file may not grow."""
    refused = 0

    class Clock(VirtualClock):
        def advance(self) -> bool:
            # Each jump of the clock is one more try; after so many somebody makes room.
            nonlocal refused
            refused += 1
            if refused == passages:
                _limit(2**30)
            return super().advance()

    def _limit(pages: int) -> None:
        backend.journal.file.run(f"PRAGMA max_page_count = {pages}")

    def fill(point: Point) -> None:
        if (point.name, point.key) == ("before_body", "write:1") and not refused:
            _limit(1)  # SQLite makes of it the size that the file has

    async with SQLiteBackend(tmp_path / "runs.db", [writer], clock=Clock()) as backend:
        backend.probe = fill
        assert await backend.invoke(writer, run_id="full") == 100_000
        history = await (await backend.run("full")).history()
    assert refused >= passages, "the disk was full for so long"
    assert [record.key for record in history.steps()] == ["write", "write:1"]
    assert bodies.count("a") == 1, "what was committed is not run again"
    assert bodies.count("b") == 1, "what it returned is kept in hand until there is room for it"


@pytest.mark.parametrize("tries", [1, 12], ids=["once", "lasting"])
async def test_a_failing_disk_is_waited_for(tmp_path: Path, tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tries
    run = sqlite_file.SQLiteFile.run

    def fail(self: sqlite_file.SQLiteFile, sql: str, *values: object) -> sqlite3.Cursor:
        nonlocal left
        writes = sql.lstrip().startswith(("INSERT INTO records", "REPLACE INTO workers"))
        if writes and left and bodies[-1:] == ["b"]:
            left -= 1
            raise JournalError("disk I/O error")
        return run(self, sql, *values)

    monkeypatch.setattr(sqlite_file.SQLiteFile, "run", fail)
    async with SQLiteBackend(tmp_path / "runs.db", [writer], clock=VirtualClock()) as backend:
        assert await backend.invoke(writer) == 100_000
    assert not left
    assert bodies.count("a") == 1
    assert bodies.count("b") <= 2


@pytest.mark.parametrize("tries", [1, 8], ids=["once", "lasting"])
async def test_a_lock_that_another_program_holds_is_waited_for(
    tmp_path: Path, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.01)
    path = tmp_path / "runs.db"
    waits = 0

    class Clock(VirtualClock):
        def advance(self) -> bool:
            nonlocal waits
            waits += 1
            if waits == tries and other.in_transaction:
                other.execute("ROLLBACK")
            return super().advance()

    def hold(point: Point) -> None:
        if (point.name, point.key) == ("before_body", "write:1") and not waits:
            other.execute("BEGIN IMMEDIATE")

    async with SQLiteBackend(path, [writer], clock=Clock()) as backend:
        other = sqlite3.connect(path, isolation_level=None, timeout=0)
        backend.probe = hold
        assert await backend.invoke(writer) == 100_000
        other.close()
    assert waits >= tries
    assert bodies.count("a") == 1
    assert bodies.count("b") <= 2


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
async def test_nothing_is_written_to_a_file_that_is_not_in_its_place(
    tmp_path: Path, replaced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path, aside = tmp_path / "runs.db", tmp_path / "aside.db"
    waits = 0

    class Clock(VirtualClock):
        def advance(self) -> bool:
            nonlocal waits
            waits += aside.exists()
            if waits == 5 and aside.exists():
                aside.replace(path)
            return super().advance()

    def take(point: Point) -> None:
        if (point.name, point.key) == ("before_body", "write:1") and not waits:
            path.replace(aside)
            if replaced:
                path.write_bytes(b"")

    async with SQLiteBackend(path, [writer], clock=Clock()) as backend:
        backend.probe = take
        assert await backend.invoke(writer, run_id="kept") == 100_000
    assert waits == 5
    assert (bodies.count("a"), bodies.count("b")) == (1, 1)
    assert ("was replaced" if replaced else "was removed") in caplog.text
    async with SQLiteBackend(path, [writer]) as backend:
        assert await backend.invoke(writer, run_id="kept") == 100_000
    assert len(bodies) == 2, "what it said to have kept is there"


async def test_a_backend_whose_file_is_gone_says_so_and_makes_no_other(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    gone = r"runs\.db was removed while it was open: put it back"
    backend = await SQLiteBackend(path, [writer], clock=VirtualClock()).__aenter__()
    path.unlink()
    with pytest.raises(JournalError, match=gone):
        await backend.start(writer)
    with pytest.raises(JournalError, match=gone):
        await backend.__aexit__(None, None, None)
    assert not path.exists()
    assert not bodies


async def test_a_process_that_goes_to_another_directory_keeps_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stores = SQLiteSessions("sessions.db"), JSONLSessions("sessions")
    async with SQLiteBackend("runs.db", [writer], clock=VirtualClock()) as backend:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
        assert await backend.invoke(writer, run_id="kept") == 100_000
        await (await backend.run("kept")).history()
        for store in stores:
            await store.append("alex", [UserMessage(content="Hello.")], key="1")
    assert not list(Path().iterdir())
    assert {each.name for each in tmp_path.iterdir()} == {"elsewhere", "runs.db", "sessions.db", "sessions"}


@pytest.mark.parametrize("place", ["", "file/runs.db"], ids=["directory", "below-a-file"])
async def test_what_cannot_be_opened_is_said(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot open"):
        async with SQLiteBackend(tmp_path / place, [writer]):
            pass


async def test_a_value_of_the_largest_size_is_kept_and_a_larger_one_refused(tmp_path: Path) -> None:
    @function("sizes", retries=0)
    async def sizes(ctx: Context[int]) -> int:
        return len(await ctx.step.run("make", "x".__mul__, ctx.input, output_type=str))

    async with SQLiteBackend(tmp_path / "runs.db", [sizes], clock=VirtualClock()) as backend:
        limit = backend.capabilities.max_payload_bytes
        assert await backend.invoke(sizes, limit - 2) == limit - 2
        with pytest.raises(Exception, match=rf"{limit + 1:,} bytes as JSON, the limit is {limit:,}"):
            await backend.invoke(sizes, limit - 1)
