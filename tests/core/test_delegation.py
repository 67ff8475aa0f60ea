"""Sub-agents: tools that another agent answers, now, on its own, or later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.backends import MemoryBackend
from durably.backends.memory import MemoryJournal
from durably.backends.replay.clock import VirtualClock
from durably.core import (
    Agent,
    AgentResult,
    DefinitionError,
    InvokeError,
    MemorySessions,
    NonRetriableError,
    RetryAfterError,
    Run,
    ToolError,
    assistant,
    delegate,
    delegate_async,
    delegate_scheduled,
    tool,
    user,
)
from durably.core.due_times import due_time
from durably.core.ids import derive_id
from durably.core.messages import ToolResultMessage
from durably.core.model import ModelRequest, ModelResponse, Usage
from durably.testing import ScriptedModel, call
from tests.conftest import Open
from tests.killed_at import Killed, KilledAt

START = VirtualClock().now()


def say(text: str, cost: float | None = None) -> ModelResponse:
    return ModelResponse(message=assistant(text), usage=Usage(input_tokens=100, output_tokens=1), cost=cost)


def ask(name: str, cost: float | None = None, **arguments: Any) -> ModelResponse:
    """A priced answer that calls one tool."""
    part = {"type": "tool_call", "id": "c", "name": name, "arguments": arguments}
    return ModelResponse.model_validate(
        {"message": {"parts": [part]}, "usage": {"input_tokens": 100, "output_tokens": 1}, "cost": cost}
    )


def answers(result: AgentResult) -> list[ToolResultMessage]:
    return [message for message in result.messages if isinstance(message, ToolResultMessage)]


def parent(*replies: Any, tools: list[Any], **options: Any) -> Agent:
    return Agent("parent", model=ScriptedModel(*replies), instructions="", tools=tools, **options)


def child(*replies: Any, **options: Any) -> Agent:
    return Agent("child", model=ScriptedModel(*replies), instructions="You are the child.", **options)


async def finished(backend: MemoryBackend, agent: Agent) -> tuple[Run[AgentResult], AgentResult]:
    run = await backend.start(agent, "go", run_id="top")
    return run, await run.result()


# -- waiting


@pytest.mark.asyncio
async def test_a_delegate_is_asked_and_its_answer_comes_back(open_backend: Open) -> None:
    below = child("It rains.")
    top = parent(call("ask_child", task="How is the weather?"), "Take a coat.", tools=[delegate(below)])
    async with open_backend([top]) as backend:  # the child comes along
        run = await backend.start(top, "go", run_id="top")
        result = await run.result()
        steps = [(each.key, each.kind) for each in (await run.history()).steps()]
        runs = await backend.runs(function=below)
        seen = await runs[0].result()
    assert [(each.content, each.is_error) for each in answers(result)] == [("It rains.", False)]
    assert steps[3] == ("tool-ask_child", "invoke")
    assert len(steps) == 5  # a delegation is one step
    assert [each.id for each in runs] == [derive_id("child", "top", "tool-ask_child")]
    assert seen.messages == [user("How is the weather?"), assistant("It rains.")]  # nothing of the parent's


@pytest.mark.asyncio
@pytest.mark.parametrize("evict", ["never", "always"])
async def test_what_children_spent_is_counted_once(evict: Any) -> None:
    grandchild = Agent("grandchild", model=ScriptedModel(say("deep", 0.01)), instructions="")
    below = child(ask("ask_grandchild", 0.1, task="dig"), say("done", 0.1), tools=[delegate(grandchild)])
    twice = [call("ask_child", task="a"), call("ask_child", task="b")]
    top = parent(twice, say("all done", 1.0), tools=[delegate(below)])
    async with MemoryBackend([top], evict=evict) as backend:
        run, result = await finished(backend, top)
        again = await (await backend.run("top")).result()
        keys = [each.key for each in (await run.history()).steps() if each.kind == "invoke"]
    assert sorted(keys) == ["gather[0]/tool-ask_child", "gather[1]/tool-ask_child"]
    assert result.usage == again.usage == Usage(input_tokens=10 + 100 + 2 * 300, output_tokens=5 + 1 + 2 * 3)
    assert result.cost is None  # the price of the first turn is not known
    assert (result.iterations, result.tool_calls) == (2, 2)  # its own


@pytest.mark.asyncio
async def test_costs_add_up_and_an_unknown_one_stays_unknown() -> None:
    below = child(say("cheap", 0.25))
    top = parent(ask("ask_child", 0.5, task="go"), say("done", 1.0), tools=[delegate(below)])
    async with MemoryBackend([top]) as backend:
        assert (await finished(backend, top))[1].cost == 1.75
    free = child(say("for how much?"))
    top = parent(ask("ask_child", 0.5, task="go"), say("done", 1.0), tools=[delegate(free)])
    async with MemoryBackend([top]) as backend:
        assert (await finished(backend, top))[1].cost is None


@pytest.mark.asyncio
async def test_a_child_that_fails_is_reported_to_the_model(open_backend: Open) -> None:
    below = child(NonRetriableError("the library is closed"))
    top = parent(call("ask_child", task="go"), "I see.", tools=[delegate(below)])
    async with open_backend([top]) as backend:
        result = await backend.invoke(top, "go")
    (answer,) = answers(result)
    assert answer.is_error
    assert "function 'child'" in str(answer.content)
    assert "the library is closed" in str(answer.content)


@pytest.mark.asyncio
async def test_or_raised_by_choice() -> None:
    below = child(NonRetriableError("closed"))
    top = parent(call("ask_child", task="go"), "never", tools=[delegate(below, on_error="raise")], retries=0)
    async with MemoryBackend([top]) as backend:
        with pytest.raises(InvokeError, match="closed"):
            await backend.invoke(top, "go")


@pytest.mark.asyncio
async def test_a_child_that_ran_out_of_turns_is_an_error_with_its_last_words() -> None:
    below = child(ask("ask_child", task="x"), max_iterations=1)
    top = parent(call("ask_child", task="go"), "I see.", tools=[delegate(below)])
    async with MemoryBackend([top]) as backend:
        _, result = await finished(backend, top)
    (answer,) = answers(result)
    assert answer.is_error
    assert answer.content == "child ended before it was done (max_iterations). Its last words: (child gave no text)"
    assert result.usage.input_tokens == 10 + 100 + 10


@pytest.mark.asyncio
async def test_a_child_that_takes_too_long_is_cancelled_and_reported() -> None:
    below = child(RetryAfterError("busy", delay=3600))
    top = parent(call("ask_child", task="go"), "I see.", tools=[delegate(below, timeout=60)])
    async with MemoryBackend([top]) as backend:
        _, result = await finished(backend, top)
        (run,) = await backend.runs(function=below)
    assert answers(result)[0].is_error
    assert "longer than 60 s" in str(answers(result)[0].content)
    assert run.status == "cancelled"


@pytest.mark.asyncio
async def test_cancelling_the_parent_reaches_the_child_it_waits_for(open_backend: Open) -> None:
    entered, ended = asyncio.Event(), asyncio.Event()

    @tool
    async def think_hard() -> str:
        entered.set()
        await ended.wait()
        return "42"

    grandchild = Agent("grandchild", model=ScriptedModel(call("think_hard"), "42"), instructions="", tools=[think_hard])
    below = child(call("ask_grandchild", task="x"), "never", tools=[delegate(grandchild)])
    top = parent(call("ask_child", task="go"), "never", tools=[delegate(below)])
    async with open_backend([top]) as backend:
        run = await backend.start(top, "go")
        await entered.wait()
        await run.cancel()
        ended.set()
        assert {each.function: each.status.value for each in [each.view for each in await backend.runs()]} == {
            "parent": "cancelled",
            "child": "cancelled",
            "grandchild": "cancelled",
        }


@pytest.mark.asyncio
async def test_each_child_has_a_session_of_its_own() -> None:
    sessions = MemorySessions()
    below = child("yes", sessions=sessions)
    top = parent([call("ask_child", task="a"), call("ask_child", task="b")], "done", tools=[delegate(below)])
    async with MemoryBackend([top]) as backend:
        await finished(backend, top)
    keys = [derive_id("child", "top", f"gather[{index}]/tool-ask_child") for index in (0, 1)]
    assert [await sessions.load(key) for key in keys] == [
        [user("a"), assistant("yes")],
        [user("b"), assistant("yes")],
    ]
    assert len(sessions._appends) == 2


# -- not waiting


@pytest.mark.asyncio
async def test_an_async_delegate_starts_and_is_not_waited_for(open_backend: Open) -> None:
    release = asyncio.Event()

    @tool
    async def dig() -> str:
        await release.wait()
        return "found"

    below = child(call("dig"), "done digging", tools=[dig])
    top = parent(call("start_child", task="Dig."), "It is under way.", tools=[delegate_async(below)])
    async with open_backend([top]) as backend:
        run = await backend.start(top, "go", run_id="top")
        result = await run.result()  # while the child still digs
        event = derive_id("event", "top", "tool-start_child#0")
        started = await backend.run(derive_id("run", event, "child"))
        await run.cancel()  # ended: nothing happens, least of all to the child
        release.set()
        below_result = await started.result()
    assert event in str(answers(result)[0].content)
    assert below_result.text == "done digging"
    assert below_result.messages[0] == user("Dig.")
    assert result.usage == Usage(input_tokens=20, output_tokens=10)


@pytest.mark.asyncio
async def test_a_scheduled_delegate_starts_at_its_time() -> None:
    clock = VirtualClock()
    below = child("Wake up!")
    schedule = delegate_scheduled(below, now=clock.now)
    at_nine = "2026-03-17T09:00:00+01:00"
    twice = [call("schedule_child", task="x", when="2h"), call("schedule_child", task="y", when=at_nine)]
    top = parent(twice, "Will do.", tools=[schedule])
    async with MemoryBackend([top], clock=clock) as backend:
        _, result = await finished(backend, top)
        assert await backend.runs(function=below) == []
        await backend.drain()
        runs = await backend.runs(function=below)
    assert [each.view.created_at for each in runs] == [1773734400.0, START + 7200]
    assert [str(each.content).split(" (")[0] for each in answers(result)] == [
        "child will start at 2026-01-01T02:00:00Z",
        "child will start at 2026-03-17T08:00:00Z",
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize("when", ["tomorrow", "2026-03-17T09:00:00", "2020-01-01T00:00:00Z", -1, "2h ago"])
async def test_a_time_that_cannot_be_is_an_error_to_the_model(when: Any) -> None:
    clock = VirtualClock()
    below = child("never")
    schedule = delegate_scheduled(below, now=clock.now)
    top = parent(call("schedule_child", task="x", when=when), "I see.", tools=[schedule])
    async with MemoryBackend([top], clock=clock) as backend:
        _, result = await finished(backend, top)
        await backend.drain()
        assert await backend.runs(function=below) == []
    assert answers(result)[0].is_error


@pytest.mark.asyncio
async def test_the_clock_is_looked_at_once_however_often_the_run_is_replayed() -> None:
    looks: list[float] = []

    def now() -> float:
        looks.append(START + 1000.0 * len(looks))  # another time at each look
        return looks[-1]

    top = parent(call("schedule_child", task="x", when=60), "ok", tools=[delegate_scheduled(child("hi"), now=now)])
    async with MemoryBackend([top], evict="always") as backend:
        await finished(backend, top)
        await backend.drain()
        runs = await backend.runs(function="child")
    assert len(looks) == 1
    assert [each.view.created_at for each in runs] == [START + 60]


# -- recursion


def eager(request: ModelRequest) -> Any:
    """Hands its task on, whatever it is, and says how that went."""
    last = request.messages[-1]
    if not isinstance(last, ToolResultMessage):
        return call(
            request.tools[0].name, task="deeper", **({"when": "1h"} if "sched" in request.tools[0].name else {})
        )
    return f"[{last.content}]"


def recursive(make: Callable[..., Any], **options: Any) -> Agent:
    return Agent("self", model=ScriptedModel(eager), instructions="", tools=[make("self", max_depth=2, **options)])


@pytest.mark.asyncio
async def test_recursion_ends_at_its_depth() -> None:
    agent = recursive(delegate)
    async with MemoryBackend([agent]) as backend:
        result = await backend.invoke(agent, "go")
        assert len(await backend.runs()) == 3
    assert result.text == "[[[tasks may be handed on 2 deep, and this one was: do it yourself]]]"
    assert result.usage.input_tokens == 3 * 20


@pytest.mark.asyncio
@pytest.mark.parametrize("make", [delegate_async, delegate_scheduled])
async def test_recursion_by_events_ends_too(make: Any) -> None:
    agent = recursive(make)
    async with MemoryBackend([agent]) as backend:
        await backend.invoke(agent, "go")
        await backend.drain()
        assert len(await backend.runs()) == 3


@pytest.mark.asyncio
async def test_a_child_has_no_delegates_but_its_own() -> None:
    below = child("leaf")
    top = parent(call("ask_child", task="x"), "done", tools=[delegate(below)])
    async with MemoryBackend([top]) as backend:
        await finished(backend, top)
    assert isinstance(below.model, ScriptedModel)
    assert below.model.requests[0].tools == ()


@pytest.mark.parametrize("make", [delegate, delegate_async, delegate_scheduled])
def test_what_is_defined_wrongly(make: Any) -> None:
    with pytest.raises(DefinitionError, match="say how deep: max_depth=3"):
        make("self")
    with pytest.raises(DefinitionError, match="max_depth must be 1 or more"):
        make(child("x"), max_depth=0)
    with pytest.raises(DefinitionError, match="providers want a name"):
        make(child("x"), name="a/b")
    with pytest.raises(DefinitionError, match="two tools named"):
        parent("x", tools=[make(child("x")), make(child("x"))])


def test_the_model_sees_a_name_a_description_and_a_schema() -> None:
    odd = Agent("Dr. Who", model=ScriptedModel("x"), instructions="")
    spec = delegate_scheduled(odd, description="Asks the doctor.").spec
    assert spec.name == "schedule_Dr__Who"
    assert spec.description == "Asks the doctor."
    assert spec.parameters["required"] == ["task", "when"]
    assert spec.parameters["additionalProperties"] is False


# -- crashes


async def live(journal: MemoryJournal, top: Agent, clock: VirtualClock, kill: int | None) -> tuple[Any, int]:
    """One life: what the runs came to (or nothing, if it was killed) and how many points it passed."""
    backend = MemoryBackend([top], journal=journal, clock=clock)
    backend.probe = probe = KilledAt(kill)
    try:
        async with backend:
            run = await backend.start(top, "go", run_id="top")
            await run.result()
            await backend.drain()
            ended = [await backend.run(each.id) for each in await backend.runs()]
            return {each.id: ((await each.result()), each.view.created_at) for each in ended}, probe.passed
    except Killed:
        return None, probe.passed


def family(clock: VirtualClock) -> Agent:
    below = child("fine")
    tools = [delegate(below), delegate_async(below), delegate_scheduled(below, now=clock.now)]
    everything = [
        call("ask_child", task="a"),
        call("start_child", task="b"),
        call("schedule_child", task="c", when="1 day"),
    ]
    return parent(call("ask_child", task="first"), everything, "done", tools=tools)


@pytest.mark.asyncio
async def test_a_crash_anywhere_changes_nothing() -> None:
    clock = VirtualClock()
    calm, points = await live(MemoryJournal(), family(clock), clock, None)
    assert len(calm) == 5
    assert calm["top"][0].usage == Usage(input_tokens=50, output_tokens=25)
    for kill in range(1, points + 1):
        journal, clock = MemoryJournal(), VirtualClock()
        dead, _ = await live(journal, family(clock), clock, kill)
        assert dead is None
        seen, _ = await live(journal, family(clock), clock, None)
        assert seen == calm, f"after a crash at point {kill}"


# -- times


@pytest.mark.parametrize(
    ("when", "delay"),
    [
        (7200, 7200),
        ("7200", 7200),
        ("2h", 7200),
        ("in 2 hours", 7200),
        ("1 day 12 hours", 129600),
        ("1h30m", 5400),
        ("2 hours and 5 minutes", 7500),
        ("PT2H", 7200),
        ("P1DT2H", 93600),
        ("2026-01-01T00:01:00Z", 60),
        ("2026-01-01 01:01:00+01:00", 60),
        ("0s", 0),
    ],
)
def test_times_as_models_write_them(when: Any, delay: float) -> None:
    assert due_time(when, START) == START + delay


@given(st.text() | st.floats() | st.datetimes().map(str) | st.timedeltas().map(str) | st.from_regex(r"P[\dTDHMS]+"))
def test_any_text_is_a_time_to_come_or_an_error_for_the_model(when: Any) -> None:
    with suppress(ToolError):
        assert START <= due_time(when, START) <= START + 3660 * 86400


@given(st.datetimes(timezones=st.timezones()))
def test_a_time_with_a_zone_is_that_moment(when: Any) -> None:
    moment = when.timestamp()
    try:
        assert abs(due_time(when.isoformat(), moment - 60) - moment) < 1
    except ToolError:
        assert when.year in (1, 9999) or when.utcoffset().total_seconds() % 60
