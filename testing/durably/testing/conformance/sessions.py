"""C34: what a session keeps, and what becomes of a message that arrives while a run of its session is live."""

from __future__ import annotations

import asyncio
from typing import Any

from durably.core import Agent, AgentInput, MemorySessions, SessionStore, tool
from durably.core.errors import UnsupportedFeatureError
from durably.core.messages import UserMessage
from durably.testing.conformance.subject import Subject, at
from durably.testing.conformance.suite import clause
from durably.testing.models.scripted import ScriptedModel, call


@tool
def look() -> str:
    """Look."""
    return "seen"


async def _agent(subject: Subject, store: SessionStore) -> Agent:
    """An agent whose sessions are kept beside the runs, where the engine keeps any, and else in a store of its own."""

    def made(sessions: Any) -> Agent:
        model = ScriptedModel(call("look"), "done")
        return Agent("c34-agent", model=model, instructions="", tools=[look], sessions=sessions)

    try:
        async with subject.open([agent := made("backend")]):
            return agent
    except UnsupportedFeatureError:
        return made(store)


@clause
async def test_c34_what_is_said_is_kept_once_whatever_crashes(subject: Subject) -> None:
    store = MemorySessions()
    agent = await _agent(subject, store)
    asked = AgentInput(message="where?", session_key=f"c34-{subject.token}")
    for key in ("save-message", "save-turn", "save-session"):
        assert await subject.crash(agent, data=asked, where=at("after_effect", key))
    await subject.run(agent, data=asked)
    async with subject.open([agent]) as backend:
        kept = await (backend.sessions if agent.sessions == "backend" else store).load(asked.session_key or "")
    assert [entry.role for entry in kept] == ["user", "assistant", "tool", "assistant"]


@clause
async def test_c34_a_message_that_arrives_is_taken_up_by_the_live_run_and_answered_once(subject: Subject) -> None:
    arrived = asyncio.Event()

    @tool
    async def wait() -> str:
        """Wait until the other message has arrived."""
        await arrived.wait()
        return "it came"

    model = ScriptedModel(call("wait"), "both are here", "once more")
    agent = Agent(
        "c34-steered", model=model, instructions="", tools=[wait], sessions="backend", on_message="steer", retries=0
    )
    inputs = [AgentInput(message=text, session_key=f"c34-{subject.token}") for text in ("one", "two")]
    try:
        async with subject.open([agent]) as backend:
            runs = [await backend.start(agent, asked, run_id=subject.run_id(n)) for n, asked in enumerate(inputs)]
            arrived.set()
            live, waited = [await run.result() for run in runs]
    except UnsupportedFeatureError:
        return  # the engine says that it cannot
    assert (live.text, live.stop_reason) == ("both are here", "completed")
    assert (waited.text, waited.stop_reason, waited.iterations) == ("both are here", "steered", 0)
    assert [each.content for each in live.messages if isinstance(each, UserMessage)] == ["one", "two"]
