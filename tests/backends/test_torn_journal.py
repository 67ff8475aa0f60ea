"""A SQLite file that was cut off or changed: the committed prefix comes back, and nothing damaged is replayed."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from durably.backends import SQLiteBackend, SQLiteJournal
from durably.backends.replay.clock import VirtualClock
from durably.core import Context, DurablyError, function
from durably.core.errors import JournalCorruptError, JournalError, Signal
from durably.core.history import StepRecord
from durably.core.steps import Point

pytestmark = pytest.mark.asyncio

VALUES = ["first value", "second value", "third value"]


async def _echo(value: str) -> str:
    return value


@function("words")
async def words(ctx: Context[None]) -> list[str]:
    return [await ctx.step.run("word", _echo, value) for value in VALUES]


class _Unplugged(Signal):
    pass


def _files(path: Path) -> list[Path]:
    return [path, path.with_name(path.name + "-wal")]


async def _snapshots(tmp_path: Path) -> tuple[Path, Path]:
    """The files before and after the commit of the second step, copied while a worker had them open."""
    before, after = tmp_path / "before", tmp_path / "after"

    def copy(point: Point) -> None:
        for directory, name in ((before, "before_body"), (after, "after_commit")):
            if (point.name, point.key) == (name, "word:1"):
                directory.mkdir()
                for file in _files(tmp_path / "runs.db"):
                    shutil.copy(file, directory)
                if directory is after:
                    raise _Unplugged

    async with SQLiteBackend(tmp_path / "runs.db", [words], clock=VirtualClock()) as backend:
        backend.probe = copy
        with pytest.raises(_Unplugged):
            await backend.invoke(words, run_id="torn")
    return before, after


def _records(path: Path) -> list[StepRecord]:
    journal = SQLiteJournal(path)
    journal.open()
    try:
        assert journal.get("torn") is not None
        return journal.records("torn")
    finally:
        journal.close()


async def _resume(path: Path, *, seconds: float = 10) -> Any:
    journal = SQLiteJournal(path)
    journal.open()
    journal.file.run("UPDATE workers SET expires = 0")  # in the copy its worker, this process, seems to be alive
    journal.close()
    async with SQLiteBackend(path, [words], clock=VirtualClock()) as backend:
        return await asyncio.wait_for(backend.invoke(words, run_id="torn"), seconds)


async def test_a_wal_torn_at_any_byte_of_the_last_record_keeps_the_prefix(tmp_path: Path) -> None:
    before, after = await _snapshots(tmp_path)
    prefix, whole = _records_of_copy(before, tmp_path), _records_of_copy(after, tmp_path)
    assert len(whole) == len(prefix) + 1 == 3
    stale, wal = ((each / "runs.db-wal").read_bytes() for each in (before, after))
    old, new = _written(stale, wal)
    kept = []
    for length in range(old, new + 1):
        torn = _copy(after, tmp_path)
        (torn / "runs.db-wal").write_bytes(wal[:length] + stale[length:])
        records = _records(torn / "runs.db")
        assert records == (whole if length == new else prefix), f"torn after {length} bytes"
        kept.append(len(records))
        if length % 401 == 0 or length == new:
            assert await _resume(torn / "runs.db") == VALUES
        if length < new:
            (torn / "runs.db-wal").write_bytes(wal[:length])
            assert _records(torn / "runs.db") == prefix, f"cut off after {length} bytes"
    assert kept[0] == 2
    assert kept[-1] == 3


def _written(before: bytes, after: bytes) -> tuple[int, int]:
    """The part of a log that a commit wrote; the log itself was made longer in advance."""
    length = max(len(before), len(after))
    places = [
        place
        for place, (old, new) in enumerate(zip(before.ljust(length, b"\0"), after.ljust(length, b"\0"), strict=True))
        if old != new
    ]
    return places[0], places[-1] + 1


def _copy(source: Path, tmp_path: Path) -> Path:
    target = tmp_path / "copy"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


def _records_of_copy(source: Path, tmp_path: Path) -> list[StepRecord]:
    return _records(_copy(source, tmp_path) / "runs.db")


async def test_bytes_of_the_last_record_that_never_reached_the_disk(tmp_path: Path) -> None:
    """The file has its length, but a part of it is zeros: written out of order, then the power went."""
    before, after = await _snapshots(tmp_path)
    prefix = _records_of_copy(before, tmp_path)
    stale, wal = ((each / "runs.db-wal").read_bytes() for each in (before, after))
    old, new = _written(stale, wal)
    places = range(old, new - 64, 97)
    assert len(places) > 5
    for start in places:
        if any(wal[start : start + 64]):
            torn = _copy(after, tmp_path)
            (torn / "runs.db-wal").write_bytes(wal[:start] + bytes(64) + wal[start + 64 :])
            assert _records(torn / "runs.db") == prefix


async def _half_done(tmp_path: Path) -> bytes:
    """One settled file of a run that is not over, all of it in the main database."""
    path = tmp_path / "runs.db"

    def stop(point: Point) -> None:
        if (point.name, point.key) == ("before_body", "word:2"):
            raise _Unplugged

    async with SQLiteBackend(path, [words], clock=VirtualClock()) as backend:
        backend.probe = stop
        with pytest.raises(_Unplugged):
            await backend.invoke(words, run_id="torn")
    assert not _files(path)[1].exists()
    return path.read_bytes()


async def test_a_flipped_bit_in_a_recorded_value_is_noticed(tmp_path: Path) -> None:
    data = await _half_done(tmp_path)
    path = tmp_path / "flipped.db"
    place = data.index(b'"first value"')
    for offset in range(len(b'"first value"')):
        for bit in (0, 5):
            flipped = bytearray(data)
            flipped[place + offset] ^= 1 << bit
            path.write_bytes(flipped)
            with pytest.raises(DurablyError) as caught:
                await _resume(path)
            assert "JournalCorruptError" in str(caught.value) or isinstance(caught.value, JournalError)
            with pytest.raises(JournalCorruptError) as where:
                _records(path)
            assert (where.value.run_id, where.value.seq) == ("torn", 1)


@pytest.mark.timeout(60)
async def test_no_flipped_bit_anywhere_gives_a_wrong_value(tmp_path: Path) -> None:
    """A run may fail, or, where its row or an index is hit (they carry no checksum), wait; it never replays damage."""
    logging.getLogger("durably").setLevel(logging.CRITICAL)
    data = await _half_done(tmp_path)
    path = tmp_path / "flipped.db"
    noticed = 0
    for place in range(0, len(data), 41):
        if not data[place]:
            continue
        flipped = bytearray(data)
        flipped[place] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        try:
            assert await _resume(path, seconds=1) == VALUES, f"byte {place}"
        except (DurablyError, TypeError, ValueError, TimeoutError):
            noticed += 1
        for file in _files(path):
            file.unlink(missing_ok=True)
    logging.getLogger("durably").setLevel(logging.NOTSET)
    assert noticed
