"""A summary that is kept in the session: the next run begins with it, and the session keeps all messages."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from durably.backends import MemoryBackend
from durably.core import Agent, AgentInput, Compaction, MemorySessions, SessionStore, SQLiteSessions, assistant, user
from durably.core.messages import SessionNote
from durably.core.model import ModelRequest
from durably.testing import ScriptedModel, call, crash_matrix

SUMMARISER = ScriptedModel(lambda request: "Ann asked for order 7.", name="summariser")


async def filled(store: SessionStore) -> None:
    for number in range(4):
        await store.append("s", [user(f"question {number}"), assistant(f"answer {number}")], key=str(number))


def look() -> str:
    return "it is here"


def agent_of(store: SessionStore, *, save: bool) -> tuple[Agent, list[ModelRequest]]:
    def answer(request: ModelRequest) -> object:
        last = request.messages[-1]
        return "It is here." if last.role == "tool" else call("look")

    model = ScriptedModel(answer)  # type: ignore[arg-type]
    compaction = Compaction(at_tokens=1, keep=2, model=SUMMARISER, save=save)
    agent = Agent("a", model=model, instructions="", tools=[look], sessions=store, compaction=compaction)
    return agent, model.requests


def asked(message: str) -> AgentInput:
    return AgentInput(message=message, session_key="s")


@pytest.mark.asyncio
async def test_the_next_run_begins_with_the_summary() -> None:
    store = MemorySessions()
    await filled(store)
    agent, requests = agent_of(store, save=True)
    async with MemoryBackend([agent]) as backend:
        await backend.invoke(agent, asked("Where is it?"))
        requests.clear()
        await backend.invoke(agent, asked("And now?"))
    first = requests[0].messages
    assert str(first[0].content).startswith("(What was said before")  # type: ignore[union-attr]
    assert "Ann asked for order 7.\n\nWhere is it?" in str(first[0].content)  # type: ignore[union-attr]
    assert [message.role for message in first] == ["user", "assistant", "tool", "assistant", "user"]
    assert not any("question" in str(message) for message in first)
    entries = await store.load("s")
    kept = [entry for entry in entries if not isinstance(entry, SessionNote)]
    before = MemorySessions()
    await filled(before)
    assert kept[:8] == await before.load("s")
    notes = [entry for entry in entries if isinstance(entry, SessionNote)]
    assert notes[0] == SessionNote(summary="Ann asked for order 7.", appends=4)
    assert notes[1].appends > 4, "the second run's summary stands for what the first one said too"


@pytest.mark.asyncio
async def test_a_summary_is_not_kept_unless_wanted() -> None:
    store = MemorySessions()
    await filled(store)
    agent, requests = agent_of(store, save=False)
    async with MemoryBackend([agent]) as backend:
        await backend.invoke(agent, asked("Where is it?"))
        requests.clear()
        await backend.invoke(agent, asked("And now?"))
    assert requests[0].messages[0] == user("question 0")
    assert not any(isinstance(entry, SessionNote) for entry in await store.load("s"))


@pytest.mark.asyncio
async def test_a_run_that_began_before_sees_what_it_saw() -> None:
    store = MemorySessions()
    await filled(store)
    agent, _ = agent_of(store, save=True)
    before = await agent.load_history("s")
    await store.append("s", [SessionNote(summary="short", appends=4)], key="note")
    after = await agent.load_history("s")
    assert not isinstance(before, list)
    assert not isinstance(after, list)
    assert agent._reader is not None
    assert len(await agent._reader().joined(before, [user("hi")])) == 9
    assert len(await agent._reader().joined(after, [user("hi")])) == 1


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
@pytest.mark.asyncio
async def test_a_summary_is_kept_once_wherever_the_run_crashes(backend: str, tmp_path: Path) -> None:
    places = iter(range(10_000))
    before = SQLiteSessions(tmp_path / "before.db")
    await filled(before)

    def world() -> tuple[Agent, SessionStore]:
        store = SQLiteSessions(shutil.copy(before.path, tmp_path / f"{next(places)}.db"))
        return agent_of(store, save=True)[0], store

    async def saved(store: SessionStore) -> list[str]:
        return [entry.model_dump_json() for entry in await store.load("s")]

    report = await crash_matrix(world, asked("Where is it?"), state=saved, backend=backend)
    assert report.ok, report
    assert "save-summary" in [step.key for step in report.steps]
