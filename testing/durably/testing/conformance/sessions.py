"""C34: what a session keeps, and what becomes of a message that arrives while a run of its session is live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from durably.core import Agent, AgentInput, AgentResult, MemorySessions, SessionStore, tool
from durably.core.errors import UnsupportedFeatureError
from durably.core.messages import UserMessage
from durably.testing.conformance.subject import Subject, at
from durably.testing.conformance.suite import RefusedError, clause
from durably.testing.models.scripted import Reply, ScriptedModel, call


@tool
def look() -> str:
    """Look."""
    return "seen"


async def _agent(subject: Subject, make: Callable[[Any], Agent]) -> tuple[Agent, SessionStore | None]:
    """An agent whose sessions are kept beside the runs where the engine keeps any, and else in a store of its own.

    Args:
        subject: The engine.
        make: Makes the agent, given its ``sessions=``.
    """
    try:
        async with subject.open([agent := make("backend")]):
            return agent, None
    except UnsupportedFeatureError:
        store = MemorySessions()
    try:
        async with subject.open([agent := make(store)]):
            return agent, store
    except UnsupportedFeatureError as error:
        raise RefusedError(str(error)) from None


@clause
async def test_c34_what_is_said_is_kept_once_whatever_crashes(subject: Subject) -> None:
    def make(sessions: Any) -> Agent:
        model = ScriptedModel(call("look"), "done")
        return Agent("c34-agent", model=model, instructions="", tools=[look], sessions=sessions)

    agent, store = await _agent(subject, make)
    asked = AgentInput(message="where?", session_key=f"c34-{subject.token}")
    for key in ("save-message", "save-turn", "save-session"):
        assert await subject.crash(agent, data=asked, where=at("after_effect", key))
    await subject.run(agent, data=asked)
    async with subject.open([agent]) as backend:
        kept = await (store or backend.sessions).load(asked.session_key or "")
    assert [entry.role for entry in kept] == ["user", "assistant", "tool", "assistant"]


async def _two_messages(subject: Subject, *answers: Reply) -> tuple[AgentResult, AgentResult]:
    """The results of two runs of one session, of which the second is started while the first is live."""
    arrived = asyncio.Event()

    @tool
    async def wait() -> str:
        """Wait until the other message has arrived."""
        await arrived.wait()
        return "it came"

    def make(sessions: Any) -> Agent:
        model = ScriptedModel(lambda request: next(script))
        options: dict[str, Any] = {"sessions": sessions, "on_message": "steer", "retries": 0}
        return Agent("c34-steered", model=model, instructions="", tools=[wait], **options)

    script = iter(answers)
    agent, _ = await _agent(subject, make)
    inputs = [AgentInput(message=text, session_key=f"c34-{subject.token}") for text in ("one", "two")]
    async with subject.open([agent]) as backend:
        runs = [await backend.start(agent, asked, run_id=subject.run_id(n)) for n, asked in enumerate(inputs)]
        arrived.set()
        live, waited = [await run.result() for run in runs]
    return live, waited


def _said_by_user(result: AgentResult) -> list[object]:
    return [each.content for each in result.messages if isinstance(each, UserMessage)]


@clause
async def test_c34_a_message_that_arrives_is_taken_up_by_the_live_run_and_answered_once(subject: Subject) -> None:
    live, waited = await _two_messages(subject, call("wait"), call("wait"), "both are here", "once more")
    assert (live.text, live.stop_reason) == ("both are here", "completed")
    assert (waited.text, waited.stop_reason, waited.iterations) == ("both are here", "steered", 0)
    assert _said_by_user(live) == ["one", "two"]


@clause
async def test_c34_a_message_that_the_live_run_does_not_take_up_is_answered_by_its_own(subject: Subject) -> None:
    live, waited = await _two_messages(subject, "one is here", "two is here")
    assert (live.text, live.stop_reason) == ("one is here", "completed")
    assert (waited.text, waited.stop_reason, waited.iterations) == ("two is here", "completed", 1)
    assert [_said_by_user(each) for each in (live, waited)] == [["one"], ["two"]]
