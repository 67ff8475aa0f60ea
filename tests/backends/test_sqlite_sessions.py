"""Sessions in the file of a SQLite backend: beside its runs, in order, once each key."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably.backends import SQLiteBackend
from durably.backends.replay.sqlite_sessions import SQLiteFileSessions
from durably.core import Agent, AgentInput, MemorySessions, SessionError, SessionStore, user
from durably.core.errors import UnsupportedFeatureError
from durably.core.messages import SessionEntry
from durably.core.sessions import AppendLog
from durably.testing import ScriptedModel, crash_matrix
from examples.lmdb_backend import LMDBBackend

APPENDS = st.tuples(st.sampled_from("ab"), st.integers(0, 4), st.lists(st.text(max_size=300), max_size=3))
"""Together they come to some rows: 900 characters make a row full after a few appends."""


@settings(max_examples=30, deadline=None)
@given(actions=st.lists(APPENDS | st.sampled_from("ab"), max_size=10), after=st.integers(0, 5))
def test_it_does_what_the_store_in_memory_does(actions: list[tuple[str, int, list[str]] | str], after: int) -> None:
    oracle = MemorySessions()

    async def run(path: Path) -> None:
        store = SQLiteFileSessions(path)
        assert isinstance(store, SessionStore)
        assert isinstance(store, AppendLog)
        for action in actions:
            if isinstance(action, str):
                await store.delete(action)
                await oracle.delete(action)
                continue
            session, number, texts = action
            for each in (oracle, store):
                await each.append(session, [user(text * 9) for text in texts], key=f"key-{number}")
        for session in "abc":
            assert await store.load(session) == await oracle.load(session)
            assert await store.load_appends(session, after) == await oracle.load_appends(session, after)
        store.close()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory, "runs.db")))


@pytest.mark.asyncio
async def test_runs_and_sessions_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    model = ScriptedModel("Hello Ann.", "You are Ann.")
    agent = Agent("friend", model=model, instructions="", sessions="backend")
    for message in ("I am Ann.", "Who am I?"):
        async with SQLiteBackend(path, [agent]) as backend:
            await backend.invoke(agent, AgentInput(message=message, session_key="s"))
    assert len(model.requests[-1].messages) == 3
    async with SQLiteBackend(path) as client:
        assert [entry.role for entry in await client.sessions.load("s")] == ["user", "assistant", "user", "assistant"]
    assert {each.name.partition("-")[0] for each in tmp_path.iterdir()} == {"runs.db"}


@pytest.mark.asyncio
async def test_a_damaged_append_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with SQLiteBackend(path) as backend:
        await backend.sessions.append("s", [user("word " * 200)], key="1")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE appends SET messages = x'00'")
    async with SQLiteBackend(path) as backend:
        with pytest.raises(SessionError, match=r"runs\.db: append 0 of session 's' is damaged"):
            await backend.sessions.load("s")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE appends SET messages = ?", (zlib.compress(b'[[{"role":"user","content":"no"}]]'),))
    async with SQLiteBackend(path) as backend:
        with pytest.raises(SessionError, match="its checksum is wrong"):
            await backend.sessions.load("s")


@pytest.mark.asyncio
async def test_an_append_waits_for_another_writer(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with SQLiteBackend(path) as backend:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        append = asyncio.create_task(backend.sessions.append("s", [user("hi")], key="1"))
        await asyncio.sleep(0.3)
        assert not append.done()
        other.execute("COMMIT")
        await append
        entries: list[SessionEntry] = await backend.sessions.load("s")
        assert entries == [user("hi")]
        other.close()


def test_an_engine_without_a_store_refuses_the_agent(tmp_path: Path) -> None:
    agent = Agent("friend", model=ScriptedModel("hi"), instructions="", sessions="backend")
    with pytest.raises(UnsupportedFeatureError, match="sessions=\"backend\" of agent 'friend'"):
        LMDBBackend(tmp_path / "runs", [agent])


@pytest.mark.asyncio
async def test_a_session_is_the_same_wherever_its_run_crashes() -> None:
    def world() -> Agent:
        return Agent("a", model=ScriptedModel("done"), instructions="", sessions="backend")

    report = await crash_matrix(world, AgentInput(message="hi", session_key="s"), backend="sqlite")
    assert report.ok, report
