"""What is read to list the questions that are pending: of each run the records that say so, however long it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.replay.backend import ReplayBackend
from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.sqlite_journal import SQLiteJournal
from durably.core import Agent, approve, tool
from durably.testing import ScriptedModel, call

pytestmark = pytest.mark.asyncio


@tool
async def read(page: int) -> str:
    """Read a page."""
    return f"page {page}"


@tool(requires_approval=True)
async def pay(order: int) -> str:
    """Pay for an order."""
    return f"paid {order}"


def _clerk(pages: int) -> Agent[Any, Any]:
    """Reads so many pages, asks for two payments one after the other, and then for two at once."""
    reading: list[Any] = [call("read", page=page) for page in range(pages)]
    asking: list[Any] = [
        call("pay", order=1),
        call("pay", order=2),
        [call("pay", order=3), call("pay", order=4)],
        "done",
    ]
    model = ScriptedModel(*reading, *asking)
    return Agent("clerk", model=model, instructions="", tools=[read, pay], max_iterations=pages + 9)


async def _ask(backend: ReplayBackend, agent: Agent[Any, Any]) -> None:
    await backend.start(agent, "go", run_id="run")
    await backend.drain()


async def test_the_records_of_a_long_run_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_records = SQLiteJournal._record
    seen: list[int] = []

    def counted(self: SQLiteJournal, run_id: str, seq: int, *rest: Any) -> Any:
        seen.append(seq)
        return read_records(self, run_id, seq, *rest)

    monkeypatch.setattr(SQLiteJournal, "_record", counted)
    found = []
    for pages in (1, 40):
        agent = _clerk(pages)
        async with SQLiteBackend(tmp_path / f"{pages}.db", [agent]) as backend:
            await _ask(backend, agent)
            seen.clear()
            assert [each.arguments for each in await backend.approvals()] == [{"order": 1}]
            found.append(len(seen))
    assert found[0] == found[1]


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
async def test_what_is_read_is_what_the_whole_history_says(engine: str, tmp_path: Path) -> None:
    agent = _clerk(3)
    backend = MemoryBackend([agent]) if engine == "memory" else SQLiteBackend(tmp_path / "runs.db", [agent])
    async with backend:
        await _ask(backend, agent)
        for left in (4, 3, 2, 1):
            asked, part = await backend.approvals(), await backend.question_history("run")
            whole = await backend.history("run")
            assert (part[0], part[-1]) == (whole[0], whole[-1])
            assert [each for each in whole if each in part.records] == list(part)
            questions = {"request-pay", "ask-pay", "approve-pay"}
            assert {each.seq for each in whole if each.step_id in questions} <= {each.seq for each in part}
            assert not [each for each in part[1:-1] if each.step_id not in questions]
            assert len(asked) == min(left, 2 if left <= 2 else 1)
            await backend.send(approve(asked[0].id))
            await backend.drain()
        assert await backend.approvals() == []


async def test_a_page_of_questions_reads_those_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, limit = 12, 3
    agent = _clerk(0)
    async with SQLiteBackend(tmp_path / "runs.db", [agent], clock=VirtualClock()) as backend:
        for number in range(runs):
            await backend.start(agent, "go", run_id=f"run-{number}")
            await backend.drain()
            assert isinstance(backend.clock, VirtualClock)
            backend.clock.shift(60)
        forked = await (await backend.run(f"run-{runs - 1}")).fork(after="think", run_id="forked")
        await backend.drain()
        everything = await backend.approvals()
        assert [each.asked_at for each in everything] == sorted(each.asked_at for each in everything)
        assert forked.id in [each.run_id for each in everything]
        read: list[str] = []
        history = backend.question_history

        def noted(run_id: str) -> Any:
            read.append(run_id)
            return history(run_id)

        monkeypatch.setattr(backend, "question_history", noted)
        pages, after, most = [], None, 0
        while page := await backend.approvals(limit=limit, after=after):
            most = max(most, len(read))
            read.clear()
            pages += page
            after = page[-1]
    assert pages == everything
    assert len({each.run_id for each in pages}) == runs + 1
    assert most <= limit + 3  # beside the page: the fork, the one behind it, and the last of the page before
