"""Messages that a live run takes up, with crashes at the places where one could get lost or be answered twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client

from durably.backends.temporal import TemporalBackend
from durably.core import (
    Agent,
    AgentInput,
    AgentResult,
    Context,
    Event,
    Function,
    MemorySessions,
    RunStatus,
    ToolContext,
    current_step,
    tool,
)
from durably.core.messages import UserMessage
from durably.core.tools import Tool
from durably.testing import ScriptedModel, call, crash_matrix
from durably.testing.crash.engines import Store
from tests.temporal.conftest import OpenTemporal

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]

POINTS = {
    "cached": ("read-messages/after_effect", "find-answer/before_body"),
    "evicted": ("save-session/after_commit",),
}


async def until_another_waits() -> str:
    info = current_step()
    assert info.services.waiting is not None
    while not await info.services.waiting(info.run_id, ()):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.05)
    return "it came"


@tool(steps=True)
async def wait_for_another(ctx: ToolContext) -> str:
    """Wait until another message has arrived for this session."""
    await ctx.step.send_event("say-so", Event("first-is-live"))
    return await ctx.step.run("wait", until_another_waits)


def asked(message: str) -> AgentInput:
    return AgentInput(message=message, session_key="s")


def steered(work: Tool, *answers: Any) -> Agent:
    return Agent(
        "support",
        model=ScriptedModel(*answers),
        instructions="",
        tools=[work],
        sessions=MemorySessions(),
        on_message="steer",
    )


def fresh() -> tuple[Function[None, list[str]], MemorySessions]:
    support = steered(wait_for_another, call("wait_for_another"), "Both are here.")

    async def two_messages(ctx: Context[None]) -> list[str]:
        async def second() -> AgentResult:
            await ctx.step.wait_for_event("until-first-is-live", "first-is-live")
            return await ctx.step.invoke("second", support, asked("And order 8?"))

        results = await ctx.step.gather(second, lambda: ctx.step.invoke("first", support, asked("Where is order 7?")))
        return [f"{each.text} ({each.stop_reason})" for each in results]

    assert isinstance(support.sessions, MemorySessions)
    return Function[None, list[str]]("two-messages", two_messages, uses=[support]), support.sessions


async def said(sessions: MemorySessions) -> list[str]:
    return sorted(str(each) for each in await sessions.load("s"))


@pytest.mark.parametrize("cache", POINTS)
async def test_no_crash_loses_a_message_or_answers_it_twice(client: Client, cache: str) -> None:
    def temporal(functions: Sequence[Function[Any, Any]], store: Store) -> TemporalBackend:
        return TemporalBackend(
            client,
            task_queue=f"steered-{store.id}",
            functions=functions,
            heartbeat=timedelta(seconds=1),
            worker_options={"max_cached_workflows": 0 if cache == "evicted" else 100},
        )

    report = await crash_matrix(fresh, backend=temporal, points=POINTS[cache], state=said)
    assert report.ok, report
    assert not report.error, report


async def test_a_message_that_is_withdrawn_is_not_taken_up(open_temporal: OpenTemporal) -> None:
    go_on = asyncio.Event()

    @tool
    async def wait() -> str:
        """Wait until the customer has thought better of it."""
        await go_on.wait()
        return "so be it"

    support = steered(wait, call("wait"), "Seven is here.")
    async with open_temporal(support) as backend:
        first, second = [await backend.start(support, asked(text)) for text in ("Where is order 7?", "And order 8?")]
        await second.cancel()
        go_on.set()
        result = await first.result()
    assert (await second.refresh()).status is RunStatus.CANCELLED
    assert [each.content for each in result.messages if isinstance(each, UserMessage)] == ["Where is order 7?"]
