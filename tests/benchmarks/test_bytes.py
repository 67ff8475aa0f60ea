"""Bytes on disk: tables are made once for a file, and a run adds what it records and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from durably.backends import SQLiteBackend
from tests.benchmarks.__main__ import empty_files
from tests.benchmarks.agent import MESSAGE, order_agent
from tests.benchmarks.floor import TableRows, run_floor

pytestmark = pytest.mark.asyncio

TURNS, CHARACTERS = 30, 200
LIMIT = 1.5


async def _grown(path: Path, runs: int, empty: int) -> int:
    agent = order_agent(TURNS, CHARACTERS)
    async with SQLiteBackend(path, [agent]) as backend:
        for number in range(runs):
            await backend.invoke(agent, MESSAGE, run_id=f"run-{number}")
    return path.stat().st_size - empty


async def test_beyond_its_empty_tables_a_file_holds_little_more_than_the_records(tmp_path: Path) -> None:
    floor_empty, empty = await empty_files(tmp_path)
    rows = TableRows(tmp_path / "floor.db")
    await run_floor(TURNS, CHARACTERS, rows)
    rows.close()
    floor = (tmp_path / "floor.db").stat().st_size - floor_empty
    one, four = [await _grown(tmp_path / f"{runs}.db", runs, empty) for runs in (1, 4)]
    assert one <= LIMIT * floor
    assert four <= 4 * one, "what is there once for a file is in the empty one, and no run adds to it"
