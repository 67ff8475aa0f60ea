"""The ledger: what it notes as a probe, what bodies note themselves, and a file that several processes write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from durably.backends import MemoryBackend
from durably.core import Context, current_step, function
from durably.core.steps import Point
from durably.testing import EffectLedger
from durably.testing.crash.faults import FaultPlan
from durably.testing.ledger import append_line

ledgers: dict[str, EffectLedger] = {}


async def note() -> str:
    ledgers["now"].body_started()
    return "noted"


@function("noting")
async def noting(ctx: Context[None]) -> str:
    return await ctx.step.run("note", note)


@pytest.mark.asyncio
async def test_a_body_can_say_itself_that_it_started(tmp_path: Path) -> None:
    ledger = ledgers["now"] = EffectLedger(tmp_path / "ledger.jsonl")
    async with MemoryBackend([noting]) as backend:
        run = await backend.start(noting, run_id="r")
        await run.result()
        history = await run.history()
    ledger.crashed(Point("", "noting", "r", ""))
    ledger.add_commits(history)
    ledger.add_commits(history)  # what was noted is not noted again
    assert [(each.kind, each.run_id, each.key, each.life) for each in ledger] == [
        ("started", "r", "note", 0),
        ("crash", "r", "", 0),
        ("committed", "r", "note", 1),
    ]
    (started,) = ledger.of("started")
    assert (started.attempt, len(started.idempotency_key), started.pid) == (1, 32, os.getpid())


async def used_and_shared() -> list[object]:
    info = current_step()
    assert info.idempotency_key
    return [info.function, info.max_payload_bytes, info.services.sessions is not None]


@function("asking")
async def asking(ctx: Context[None]) -> list[object]:
    return await ctx.step.run("ask", used_and_shared)


@pytest.mark.asyncio
async def test_a_body_that_is_watched_sees_all_that_the_engine_offers() -> None:
    ledger = EffectLedger()
    async with MemoryBackend([asking]) as backend:
        unwatched = await backend.invoke(asking)
        backend.probe = FaultPlan((), ledger=ledger)
        assert await backend.invoke(asking) == unwatched
    assert unwatched[0] == "asking"
    assert unwatched[2] is True
    assert [each.kind for each in ledger.of("started")] == ["started"]


def test_outside_a_body_there_is_nothing_to_note() -> None:
    with pytest.raises(RuntimeError, match="outside the body of a step"):
        EffectLedger().body_started()


def test_several_processes_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    code = """
import sys
from durably.core.steps import Point
from durably.testing import EffectLedger
ledger = EffectLedger(sys.argv[1])
for number in range(100):
    ledger(Point("before_body", "f", sys.argv[2], f"step-{number}"))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), name], env=environment) for name in ("one", "two")
    ]
    for writer in writers:
        assert writer.wait() == 0
    ledger = EffectLedger(path)
    for name, writer in zip(("one", "two"), writers, strict=True):
        mine = [each for each in ledger if each.run_id == name]
        assert [each.key for each in mine] == [f"step-{number}" for number in range(100)]
        assert {each.pid for each in mine} == {writer.pid}


def test_what_others_wrote_is_there_after_reloading(tmp_path: Path) -> None:
    mine, other = (EffectLedger(tmp_path / "ledger.jsonl") for _ in range(2))
    other.crashed(Point("after_effect", "f", "r", "a"))
    assert len(mine) == 0
    mine.reload()
    assert mine.entries == other.entries
    assert mine.life == 1


def test_a_line_is_appended_whole(tmp_path: Path) -> None:
    append_line(tmp_path / "lines", "é")
    append_line(tmp_path / "lines", "two")
    assert (tmp_path / "lines").read_text(encoding="utf-8") == "é\ntwo\n"
