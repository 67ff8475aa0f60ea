"""C34: what a session keeps, and what becomes of a message that arrives while a run of its session is live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from durably.core import (
    Agent,
    AgentInput,
    AgentResult,
    InvokeError,
    MemorySessions,
    NonRetriableError,
    RunStatus,
    SessionError,
    SessionStore,
    tool,
    user,
)
from durably.core.errors import UnsupportedFeatureError
from durably.core.messages import SessionEntry, UserMessage, assistant
from durably.core.model import ModelRequest
from durably.core.session_options import OnMessage
from durably.testing.conformance.rules_of_flow import what_is_missing_is_refused
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


async def _kept_by(subject: Subject, store: SessionStore) -> Any:
    """Where sessions are kept: beside the runs, where the engine keeps any, and else in a store of their own."""
    probing = Agent("c34-probing", model=ScriptedModel("done"), instructions="", sessions="backend")
    try:
        async with subject.open([probing]):
            return "backend"
    except UnsupportedFeatureError:
        return store


async def _kept(subject: Subject, agent: Agent, store: SessionStore, session_key: str) -> list[SessionEntry]:
    async with subject.open([agent]) as backend:
        return await (backend.sessions if agent.sessions == "backend" else store).load(session_key)


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


@clause
async def test_c34_runs_that_fail_or_are_cancelled_leave_what_was_said_in_order(subject: Subject) -> None:
    store = MemorySessions()
    begun, go_on = asyncio.Event(), asyncio.Event()

    @tool
    async def wait() -> str:
        """Wait until the run was cancelled."""
        begun.set()
        await go_on.wait()
        return "too late"

    def answer(request: ModelRequest) -> Any:
        said = _asked(request)[-1].split("\n\n")[-1]  # messages without an answer between them are shown as one
        if said == "fails":
            raise NonRetriableError("as asked")
        return call("wait") if said == "is cancelled" else f"it {said}"

    options: dict[str, Any] = {"sessions": await _kept_by(subject, store), "retries": 0}
    agent = Agent("c34-talker", model=ScriptedModel(answer), instructions="", tools=[wait], **options)
    async with subject.open([agent]) as backend:
        for number, said in enumerate(("fails", "is cancelled", "ends")):
            run = await backend.start(agent, AgentInput(message=said, session_key="s"), run_id=subject.run_id(number))
            if said == "is cancelled":
                await begun.wait()
                await run.cancel()
                go_on.set()
            await subject.until_ended(run)
    kept = [(entry.role, getattr(entry, "content", None)) for entry in await _kept(subject, agent, store, "s")]
    users = [("user", "fails"), ("user", "is cancelled"), ("user", "ends")]
    assert [each for each in kept if each[0] == "user"] == users, "in order, and each once"
    assert [role for role, _ in kept] == ["user", "user", "assistant", "user", "assistant"]


@clause
async def test_c34_a_run_sees_its_session_as_it_was_when_it_began(subject: Subject) -> None:
    store = MemorySessions()
    await store.append("s", [user("I am Ann"), assistant("Hello Ann")], key="before")
    model = ScriptedModel(lambda request: "You are Ann.")
    agent = Agent("c34-listener", model=model, instructions="", sessions=store)
    asked = AgentInput(message="Who am I?", session_key="s")
    assert await subject.crash(agent, data=asked, where=at("after_commit", "load-history"))
    await store.append("s", [user("I am Bob"), assistant("Hello Bob")], key="meanwhile")
    await subject.run(agent, data=asked)
    assert [_asked(request) for request in model.requests] == [["I am Ann", "Who am I?"]]


def _asked(request: ModelRequest) -> list[str]:
    return [str(each.content) for each in request.messages if isinstance(each, UserMessage)]


@clause
async def test_c34_a_run_whose_session_was_changed_is_refused(subject: Subject) -> None:
    store, model = MemorySessions(), ScriptedModel(lambda request: "You are Eve.")
    await store.append("s", [user("I am Ann"), assistant("Hello Ann")], key="before")
    before, after = (Agent("c34-listener", model=model, instructions="", sessions=store, retries=0) for _ in range(2))
    asked = AgentInput(message="Who am I?", session_key="s")
    assert await subject.crash(before, data=asked, where=at("after_commit", "load-history"))
    await store.delete("s")
    await store.append("s", [user("I am Eve"), assistant("Hello Eve")], key="instead")
    error, _ = await subject.fail(after, data=asked)
    assert isinstance(error, InvokeError)
    assert SessionError.__name__ in str(error)
    assert model.requests == []


async def _two_runs(subject: Subject, mode: OnMessage) -> tuple[list[RunStatus], list[int]] | None:
    """How two runs of one session end of which the second begins while the first is live, and how many messages the
    model saw at each turn; ``None`` if the engine refuses the agent.
    """
    begun, arrived = asyncio.Event(), asyncio.Event()

    @tool
    async def wait() -> str:
        """Wait until the other message has arrived."""
        begun.set()
        await arrived.wait()
        return "it came"

    model = ScriptedModel(lambda request: call("wait") if len(request.messages) == 1 else f"{len(request.messages)}")
    options: dict[str, Any] = {"sessions": MemorySessions(), "on_message": mode, "retries": 0}
    agent = Agent(f"c34-{mode}", model=model, instructions="", tools=[wait], **options)
    one, two = (AgentInput(message=text, session_key=f"c34-{mode}") for text in ("one", "two"))
    try:
        async with subject.open([agent]) as backend:
            first = await backend.start(agent, one)
            await begun.wait()
            second = await backend.start(agent, two)
            arrived.set()
            for run in (first, second):
                await subject.until_ended(run)
            return [first.status, second.status], [len(request.messages) for request in model.requests]
    except UnsupportedFeatureError:
        return None


@clause
async def test_c34_a_message_that_is_queued_is_answered_behind_the_live_run(subject: Subject) -> None:
    found = await _two_runs(subject, "queue")
    assert found in (None, ([RunStatus.COMPLETED] * 2, [1, 3, 5]))


@clause
async def test_c34_a_message_cancels_the_live_run_if_its_agent_says_so(subject: Subject) -> None:
    found = await _two_runs(subject, "cancel")
    assert found is None or found[0] == [RunStatus.CANCELLED, RunStatus.COMPLETED]


@clause
async def test_c34_an_agent_is_refused_whose_messages_cannot_wait(subject: Subject) -> None:
    modes: tuple[OnMessage, ...] = ("queue", "steer")
    agents = [
        Agent(f"c34-{mode}", model=ScriptedModel("hi"), instructions="", sessions=MemorySessions(), on_message=mode)
        for mode in modes
    ]
    await what_is_missing_is_refused(subject, agents, otherwise="messages can wait on this engine")
