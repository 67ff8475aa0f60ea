"""Streams over one file: a process that executes nothing sees the same, and pieces are kept beside the records."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from durably.backends import MemoryBackend, SQLiteBackend, SQLiteDeltas
from durably.core import Agent, RunNotFoundError
from durably.core.deltas import DeltaStore, MemoryDeltas, StoredDelta
from durably.core.model import Delta, StreamedDelta
from durably.core.observer import StreamedDelta as Told
from durably.core.stream import StreamItem
from durably.testing.conformance.observing import Teller
from tests.backends import stream_child

pytestmark = pytest.mark.asyncio


async def watched(path: Path) -> list[StreamItem]:
    """Stream the run from another process than the one that executes it, from the moment it is there."""
    async with SQLiteBackend(path) as backend:
        while True:
            try:
                run = await backend.run("run")
                break
            except RunNotFoundError:
                await asyncio.sleep(0.01)
        return [item async for item in run.stream()]


async def test_a_process_that_does_not_execute_streams_the_same(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", stream_child.__name__, str(path), stdout=asyncio.subprocess.PIPE
    )
    items = await watched(path)
    printed, _ = await child.communicate()
    assert child.returncode == 0
    seen = [f"{item.offset} {item.event!r}" for item in items]
    assert seen == printed.decode().splitlines()
    texts = [item.event.delta.text for item in items if isinstance(item.event, Told)]
    assert texts == ["it ", "is ", "it ", "is ", "done"]
    assert [item.offset for item in await watched(path)] == [item.offset for item in items], "and after its end"


def piece(run: str, text: str) -> StoredDelta:
    delta = StreamedDelta(run_id=run, step="think", attempt=1, offset=0, delta=Delta(kind="text", text=text), at=1.5)
    return StoredDelta(delta, 3)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_store_numbers_and_forgets_the_pieces_of_each_run(tmp_path: Path, kind: str) -> None:
    store: DeltaStore = MemoryDeltas() if kind == "memory" else SQLiteDeltas(tmp_path / "deltas.db")
    quote = 'a "quoted" \u2028 line'
    await store.append([piece("a", "1"), piece('b"', quote), piece("a", "2")])
    await store.append([piece("a", "3")])
    assert [(each.number, each.place, each.delta.delta.text) for each in await store.read("a", 1)] == [
        (1, 3, "2"),
        (2, 3, "3"),
    ]
    assert await store.read('b"', 0) == [piece('b"', quote)]
    await store.delete("a")
    await store.close()
    assert await store.read("a", 0) == []
    assert len(await store.read('b"', 0)) == 1, "it is opened again, and other runs are still there"
    await store.close()


async def test_a_piece_stands_behind_the_records_that_came_while_it_was_on_its_way(tmp_path: Path) -> None:
    agent = Agent("one", model=Teller(), instructions="", stream=True)
    async with SQLiteBackend(tmp_path / "runs.db", [agent]) as backend:
        await backend.invoke(agent, "go", run_id="run")
        store, records = backend.deltas, len(list(await (await backend.run("run")).history()))
        assert store is not None
        before = len(await store.read("run", 0))
        late = piece("run", "late")
        await store.append([late, replace(late, place=records + 1), replace(late, place=None)])
        assert [each.place for each in await store.read("run", before)] == [records, records + 1, None]


async def test_pieces_that_cannot_be_written_are_missing_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    locked = tmp_path / "deltas.db"
    await SQLiteDeltas(locked).append([piece("other", "1")])
    holder = sqlite3.connect(locked, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    agent = Agent("one", model=Teller(), instructions="", stream=True)
    async with SQLiteBackend(tmp_path / "runs.db", [agent], deltas=SQLiteDeltas(locked)) as backend:
        assert (await backend.invoke(agent, "go")).text == "it is done"
    holder.close()
    assert "3 pieces of answers are missing in streams" in caplog.text


async def test_a_piece_is_kept_with_the_place_that_it_has_among_the_records() -> None:
    """Else one reader finds it before the record of another branch, and another reader behind it."""
    store, teller = MemoryDeltas(), Agent("teller", model=Teller(), instructions="", stream=True)
    async with MemoryBackend([teller], deltas=store) as backend:
        run = await backend.start(teller, "go", run_id="run")
        await run.result()
        (answer,) = [record for record in await run.history() if record.key == "think"]
    places = [piece.place for piece in await store.read("run", 0)]
    assert places == [answer.seq] * 3
