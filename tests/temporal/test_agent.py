"""The same agent on every engine, and what Temporal adds to it."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections import Counter
from pathlib import Path

import pytest
from temporalio.client import Client

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.temporal import TemporalBackend, commands
from durably.core import Agent, AgentInput, Context, InvokeError, SQLiteSessions, Tool, function, tool
from durably.core.backend import Backend
from durably.core.history import History
from durably.core.ids import new_id
from durably.core.replay import RecordedSteps
from durably.testing import ScriptedModel, call
from tests.temporal.conftest import OpenTemporal

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(180)]


@tool
async def get_order(order_id: str) -> str:
    """Look up one order."""
    return f"order {order_id} has shipped"


def script() -> ScriptedModel:
    return ScriptedModel(
        call("get_order", order_id="7"), [call("get_order", order_id="8"), call("get_order", order_id="9")], "Shipped."
    )


support = Agent("support", model=script(), instructions="Be kind.", tools=[get_order])


def long_agent(turns: int, size: int) -> Agent:
    """One tool call a turn, each with a result of so many characters."""

    async def look(n: int) -> str:
        """Look."""
        return "x" * size

    calls = [call("look", n=n) for n in range(turns)]
    tools: list[Tool] = [tool(look)]
    return Agent(
        "long", model=ScriptedModel(*calls, "done"), instructions="Look.", tools=tools, max_iterations=turns + 1
    )


async def test_the_agent_runs_unchanged_on_three_engines(client: Client, tmp_path: Path) -> None:
    engines: list[Backend] = [
        MemoryBackend([support]),
        SQLiteBackend(tmp_path / "runs.db", [support]),
        TemporalBackend(client, task_queue=f"readme-{new_id()}", functions=[support]),
    ]
    results, keys = [], []
    for engine in engines:
        async with engine as backend:
            run = await backend.start(support, "Where is order 7?")
            results.append(await run.result())
            keys.append(sorted(record.key for record in (await run.history()).steps()))
    assert results[0] == results[1] == results[2]
    assert results[0].messages == results[1].messages == results[2].messages
    assert keys[0] == keys[1] == keys[2]


async def test_a_run_on_temporal_replays_in_memory(open_temporal: OpenTemporal) -> None:
    async with open_temporal(support) as backend:
        run = await backend.start(support, "Where is order 7?", run_id=new_id())
        result = await run.result()
        history = History.from_jsonl((await run.history()).to_jsonl())
    event = json.loads(history[0].output)["data"]
    async with MemoryBackend([support]) as memory:
        again = await memory.start(support, event["message"], run_id=run.id)
        assert await again.result() == result
        mine = {record.key: (record.kind, record.input, record.output) for record in (await again.history()).steps()}
    assert {record.key: (record.kind, record.input, record.output) for record in history.steps()} == mine
    assert RecordedSteps(history)


async def test_a_conversation_travels_to_another_worker(open_temporal: OpenTemporal) -> None:
    agent = long_agent(turns=12, size=60_000)  # more than one piece
    async with (
        open_temporal(agent, role="workflows") as workflows,
        open_temporal(agent, role="activities"),
    ):
        run = await workflows.start(agent, "Look around.")
        result = await run.result()
        assert result.iterations == 13
        description = await workflows.client.get_workflow_handle(run.id).describe()
    assert description.raw_description.workflow_execution_info.history_size_bytes < 12 * 60_000 * 1.5


async def test_a_session_is_read_by_the_worker_that_thinks(open_temporal: OpenTemporal, tmp_path: Path) -> None:
    sessions = SQLiteSessions(tmp_path / "sessions.db")
    model = ScriptedModel(call("get_order", order_id="7"), "Shipped.", "Order 7.")
    agent = Agent("clerk", model=model, instructions="Be kind.", tools=[get_order], sessions=sessions)
    async with (
        open_temporal(agent, role="workflows") as workflows,
        open_temporal(agent, role="activities"),
    ):
        await workflows.invoke(agent, AgentInput(message="Where is order 7? " * 1000, session_key="s"))
        run = await workflows.start(agent, AgentInput(message="Which order was it?", session_key="s"))
        assert (await run.result()).text == "Order 7."
        assert "Where is" not in (await run.history()).to_jsonl(), "what was said before is not recorded again"
    roles = ["user", "assistant", "tool", "assistant", "user"]
    assert [message.role for message in model.requests[-1].messages] == roles
    assert [message.role for message in await sessions.load("s")] == [*roles, "assistant"]


async def test_history_grows_with_the_turns_and_no_faster(open_temporal: OpenTemporal) -> None:
    sizes = []
    for turns in (5, 10, 20):
        agent = long_agent(turns, size=2_000)
        async with open_temporal(agent) as backend:
            run = await backend.start(agent, "Look around.")
            await run.result()
            description = await backend.client.get_workflow_handle(run.id).describe()
            sizes.append(description.raw_description.workflow_execution_info.history_size_bytes)
    first, second = sizes[1] - sizes[0], sizes[2] - sizes[1]
    assert second < 2.1 * first, "twice the turns, twice the bytes"


async def test_a_turn_is_two_activities_and_as_many_workflow_tasks_as_by_hand(open_temporal: OpenTemporal) -> None:
    agent = long_agent(turns=10, size=100)
    async with open_temporal(agent) as backend:
        run = await backend.start(agent, "Look around.")
        await run.result()
        history = await backend.client.get_workflow_handle(run.id).fetch_history()
    events = Counter(each.WhichOneof("attributes") for each in history.events)
    steps = 2 + 2 * 10 + 1  # context and history, the turns, the answer
    assert events["activity_task_scheduled_event_attributes"] == steps
    assert events["workflow_task_completed_event_attributes"] == steps + 1
    assert events.total() == 6 * steps + 5, "three a step, three a task, the run's beginning and end"


async def test_a_very_long_run_goes_on_in_a_fresh_history(open_temporal: OpenTemporal) -> None:
    agent = long_agent(turns=40, size=100)
    async with open_temporal(agent, continue_after=100) as backend:
        run = await backend.start(agent, "Look around.")
        result = await run.result()
        assert (result.iterations, result.text) == (41, "done")
        assert len(result.messages) == 82
        history = await run.history()
        assert len({record.key for record in history.steps()}) == len(history.steps()) == 83
        first = await backend.client.get_workflow_handle(run.id).describe()
        assert first.raw_description.workflow_execution_info.first_run_id != first.run_id
        assert first.history_length < 250


async def test_hundreds_of_turns_of_4_kilobytes_end(open_temporal: OpenTemporal) -> None:
    agent = long_agent(turns=500, size=4_000)
    async with open_temporal(agent, continue_after=2_000) as backend:
        run = await backend.start(agent, "Look around.")
        result = await run.result()
        assert (result.iterations, len(result.messages)) == (501, 1_002)
        sizes = await histories(backend.client, run.id)
    grown = [size for size, *_ in sizes]
    assert len(grown) == 4, "three fresh histories on the way"
    assert max(grown) < 2.25e6, "a fresh one does not begin with all that the old one held"
    assert all(length < 2_000 + 200 for _, length in sizes)


async def histories(client: Client, run_id: str) -> list[tuple[int, int]]:
    """Bytes and events of each history of a run, oldest first."""
    last = await client.get_workflow_handle(run_id).describe()
    found = []
    history: str | None = last.raw_description.workflow_execution_info.first_run_id
    while history:
        handle = client.get_workflow_handle(run_id, run_id=history)
        info = (await handle.describe()).raw_description.workflow_execution_info
        found.append((info.history_size_bytes, info.history_length))
        event = [each async for each in handle.fetch_history_events()][-1]
        history = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return found


@pytest.mark.parametrize("text", ['{"a": "\\""}', "文字", "\n\t\\"])
async def test_the_largest_values_reach_a_fresh_history(open_temporal: OpenTemporal, text: str) -> None:
    @function("large")
    async def large(ctx: Context[None]) -> list[int]:
        values = [await ctx.step.run("fill", fill, text, 1_700_000) for _ in range(3)]
        for _ in range(20):
            await ctx.step.run("think", fill, "x", 3)
        return [len(json.dumps(value, ensure_ascii=False).encode()) for value in values]

    async with open_temporal(large, continue_after=100) as backend:
        run = await backend.start(large)
        assert min(await run.result()) > 1_690_000
        assert len(await histories(backend.client, run.id)) > 1


async def test_a_run_that_outgrows_temporal_fails_with_a_name(
    open_temporal: OpenTemporal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "ROOM", commands.ROOM // 10)  # the same, with a tenth of the bytes
    monkeypatch.setattr(commands, "FULL", commands.FULL // 10)

    @function("hoard", retries=0)
    async def hoard(ctx: Context[None]) -> None:
        for _ in range(40):
            await ctx.step.run("noise", noise, 130_000)

    async with open_temporal(hoard) as backend:
        run = await backend.start(hoard)
        with pytest.raises(InvokeError, match=r"step 'noise:.*the limit is 4,500,000") as caught:
            await run.result()
        assert caught.value.error_type == "PayloadTooLargeError"
        assert len(await histories(backend.client, run.id)) > 1


async def noise(size: int) -> str:
    """What cannot be compressed."""
    return b64encode(os.urandom(size)).decode()


async def fill(text: str, size: int) -> str:
    """As much of a text as makes so many bytes of JSON."""
    return text * (size // len(json.dumps(text, ensure_ascii=False)[1:-1].encode()))


async def test_nothing_of_the_workflow_depends_on_a_cache(open_temporal: OpenTemporal) -> None:
    async with open_temporal(support, worker_options={"max_cached_workflows": 0}) as backend:
        assert (await backend.invoke(support, "Where is order 7?")).text == "Shipped."
