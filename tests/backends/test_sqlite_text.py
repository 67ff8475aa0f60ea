"""Long texts in a SQLite file: compressed, and kept once where a run's result repeats a step's."""

from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.backends import SQLiteBackend
from durably.backends.replay.sqlite_text import packed, packed_beside, unpacked
from durably.core import Agent, Context, function
from durably.core.errors import JournalCorruptError
from durably.testing import ScriptedModel

TEXTS = st.text(max_size=40).flatmap(lambda text: st.integers(0, 60).map(lambda times: text * times))


@given(TEXTS, TEXTS, TEXTS, st.integers(0, 2**63))
def test_a_text_comes_back_whatever_stands_beside_it(before: str, text: str, after: str, row: int) -> None:
    other, rows = before + text + after, []

    def text_of(id: int) -> str:
        rows.append(id)
        return other

    assert unpacked(packed(text), text_of) == text
    assert rows == [], "it stands alone"
    assert unpacked(packed_beside(text, row, other), text_of) == text
    assert rows in ([], [row])


def test_what_has_nothing_to_do_with_the_other_stands_alone() -> None:
    text = "".join(chr(0x4E00 + 7 * place) for place in range(500))
    assert packed_beside(text, 1, "something else" * 100) == packed(text)
    with pytest.raises(zlib.error):
        unpacked(packed_beside(text, 1, text), lambda row: "another text")


ANSWER = " ".join(f"word{place * place}" for place in range(300))


@function("tells")
async def tells(ctx: Context[None]) -> dict[str, str]:
    text = await ctx.step.run("write", ANSWER.format)
    for _ in range(3):
        await ctx.step.run("look", str)
    return {"text": text}


def sizes(path: Path) -> list[int]:
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT length(output) FROM records WHERE typeof(output) = 'blob' ORDER BY id")
        return [size for (size,) in rows]


@pytest.mark.asyncio
async def test_a_result_that_repeats_a_step_takes_little_room(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agent = Agent("tells-too", model=ScriptedModel(ANSWER), instructions="")
    async with SQLiteBackend(path, [tells, agent]) as backend:
        assert (await backend.invoke(tells, run_id="r"))["text"] == ANSWER
        assert (await backend.invoke(agent, "go", run_id="a")).text == ANSWER
    for step, result in (sizes(path)[:2], sizes(path)[2:]):
        assert result < step / 5
    async with SQLiteBackend(path, [tells, agent]) as backend:  # nothing of it is in memory
        run = await backend.run("r")
        assert await run.result() == {"text": ANSWER}
        records = (await run.history()).records
        assert (records[1].output or "").count(ANSWER) == (records[-1].output or "").count(ANSWER) == 1
        assert (await (await backend.run("a")).result()).text == ANSWER


@pytest.mark.asyncio
async def test_a_result_is_not_read_beside_a_damaged_step(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with SQLiteBackend(path, [tells]) as backend:
        await backend.invoke(tells, run_id="r")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE records SET output = ? WHERE key = 'write'", (zlib.compress(b'"' + b"x" * 500 + b'"'),))
    async with SQLiteBackend(path, [tells]) as backend:
        with pytest.raises(JournalCorruptError) as raised:
            await (await backend.run("r")).result()
    assert (raised.value.run_id, raised.value.seq) == ("r", 1)
