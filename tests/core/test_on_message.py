"""A message that arrives while a run of its session is live: queued, taken up, or the end of that run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.core import (
    Agent,
    AgentInput,
    AgentResult,
    Context,
    DefinitionError,
    MemorySessions,
    RunStatus,
    Singleton,
    current_step,
    function,
    tool,
)
from durably.core.errors import MissingKeyError
from durably.core.messages import SessionEntry, SessionNote
from durably.core.session_options import OnMessage
from durably.testing import ScriptedModel, call, crash_matrix
from durably.testing.models.scripted import Reply


@tool
async def wait_for_another() -> str:
    """Wait until another message has arrived for this session."""
    info = current_step()
    assert info.services.waiting is not None
    while not await info.services.waiting(info.run_id, ()):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.001)
    return "it came"


@tool
async def work() -> str:
    """Work until it is called off."""
    await current_step().resources["called_off"].wait()
    return "done"


def said(entries: list[SessionEntry]) -> list[str]:
    return ["note" if isinstance(entry, SessionNote) else entry.role for entry in entries]


def asked(message: str) -> AgentInput:
    return AgentInput(message=message, session_key="s")


def agent_of(on_message: OnMessage, *answers: Any) -> tuple[Agent, ScriptedModel]:
    model = ScriptedModel(*answers)
    return Agent(
        "support",
        model=model,
        instructions="",
        tools=[wait_for_another, work],
        sessions="backend",
        on_message=on_message,
        retries=0,
    ), model


@pytest.mark.asyncio
async def test_a_live_run_takes_up_what_arrived_at_its_next_turn() -> None:
    agent, model = agent_of("steer", call("wait_for_another"), "Seven is here, eight too.", "Anything else?")
    async with MemoryBackend([agent]) as backend:
        first = await backend.start(agent, asked("Where is order 7?"))
        second = await backend.start(agent, asked("And order 8?"))
        assert (await first.result()).text == "Seven is here, eight too."
        taken = await second.result()
        assert (taken.text, taken.stop_reason, taken.iterations) == ("Seven is here, eight too.", "steered", 0)
        assert taken.messages == []
        third = await backend.invoke(agent, asked("Thanks."))
        assert third.text == "Anything else?"
        assert said(await backend.sessions.load("s")) == [
            "user",
            "assistant",
            "tool",
            "user",
            "assistant",
            "note",
            "user",
            "assistant",
        ]
    seen = [[message.role for message in request.messages] for request in model.requests]
    assert seen[1] == ["user", "assistant", "tool", "user"], "one message, once"
    assert seen[2] == ["user", "assistant", "tool", "user", "assistant", "user"], "and no note"


@pytest.mark.asyncio
async def test_what_nobody_took_up_is_answered_by_its_own_run() -> None:
    agent, model = agent_of("steer", "It is here.", "So is eight.")
    async with MemoryBackend([agent]) as backend:
        first = await backend.start(agent, asked("Where is order 7?"))
        second = await backend.start(agent, asked("And order 8?"))
        assert (await second.result()).text == "So is eight."
        assert (await first.result()).stop_reason == (await second.result()).stop_reason == "completed"
    assert [len(request.messages) for request in model.requests] == [1, 3]


@pytest.mark.asyncio
async def test_a_run_that_ended_without_an_answer_leaves_it_to_the_others() -> None:
    answers: Iterator[Reply] = iter([call("wait_for_another"), ValueError("no"), "Both are here."])
    model = ScriptedModel(lambda request: next(answers))
    agent = Agent(
        "support",
        model=model,
        instructions="",
        tools=[wait_for_another],
        sessions="backend",
        on_message="steer",
        retries=0,
    )
    async with MemoryBackend([agent]) as backend:
        first = await backend.start(agent, asked("Where is order 7?"))
        second = await backend.start(agent, asked("And order 8?"))
        assert (await second.result()).text == "Both are here."
        assert (await first.refresh()).status is RunStatus.FAILED


STEERED, _ = agent_of("steer", call("wait_for_another"), "Both are here.")


@function("two-messages", output_type=list[str])
async def two_messages(ctx: Context[None]) -> list[str]:
    first, second = await ctx.step.gather(
        lambda: ctx.step.invoke("first", STEERED, asked("Where is order 7?")),
        lambda: ctx.step.invoke("second", STEERED, asked("And order 8?")),
    )
    return [first.text, second.text, second.stop_reason]


@pytest.mark.parametrize(
    ("backend", "points"), [("memory", "*"), ("sqlite", ["read-messages/*", "find-answer/*", "save-session/*"])]
)
@pytest.mark.asyncio
async def test_a_message_is_taken_up_once_wherever_the_run_crashes(backend: str, points: Any) -> None:
    report = await crash_matrix(two_messages, functions=[STEERED], backend=backend, points=points)
    assert report.ok, report
    assert not report.error, report
    assert {"read-messages", "find-answer"} <= {step.key for step in report.steps}


@pytest.mark.parametrize("engine", ["memory", "sqlite"])
@pytest.mark.asyncio
async def test_the_next_message_waits_or_cancels(engine: str, tmp_path: Path) -> None:
    called_off = asyncio.Event()

    def backend_of(agent: Agent) -> Any:
        resources = {"called_off": called_off}
        if engine == "memory":
            return MemoryBackend([agent], resources=resources)
        return SQLiteBackend(tmp_path / f"{agent.on_message}.db", [agent], resources=resources)

    queued, model = agent_of("queue", call("wait_for_another"), "Seven.", "Eight.")
    async with backend_of(queued) as backend:
        runs = [await backend.start(queued, asked(text)) for text in ("Where is order 7?", "And order 8?")]
        assert [(await run.result()).text for run in runs] == ["Seven.", "Eight."]
    assert [len(request.messages) for request in model.requests] == [1, 3, 5]
    cancelled, _ = agent_of("cancel", call("work"), "Both.")
    async with backend_of(cancelled) as backend:
        first = await backend.start(cancelled, asked("Where is order 7?"))
        while not [each for each in await first.history() if each.key == "save-turn"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        second = await backend.start(cancelled, asked("And order 8?"))
        assert (await second.result()).text == "Both."
        assert (await first.refresh()).status is RunStatus.CANCELLED
        called_off.set()


@pytest.mark.asyncio
async def test_a_run_without_a_session_is_refused_where_runs_wait_for_each_other() -> None:
    agent, _ = agent_of("queue", "Hello.")
    async with MemoryBackend([agent]) as backend:
        with pytest.raises(MissingKeyError, match="session_key"):
            await backend.invoke(agent, "Hello?")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"on_message": "wait"}, "on_message='wait': use 'queue', 'steer' or 'cancel'"),
        ({"on_message": "steer"}, 'on_message="steer" needs a store of sessions: add sessions="backend"'),
        ({"on_message": "queue", "singleton": Singleton("session_key")}, "take singleton= out"),
        ({"sessions": "sessions.db"}, 'is no store of sessions: write sessions="backend" or'),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DefinitionError, match=complaint):
        Agent("a", model=ScriptedModel("hi"), instructions="", **options)


def test_the_agent_says_what_it_needs() -> None:
    agent, _ = agent_of("steer", "hi")
    assert sorted(agent.needs) == ["sessions", "steering"]
    own = Agent("a", model=ScriptedModel("hi"), instructions="", sessions=MemorySessions())
    assert own.needs == {}
    assert AgentResult(text="", iterations=0, stop_reason="steered").stop_reason == "steered"
