"""Traces: the tree, the attempts, the sums and the conversations, from records alone."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import BaseModel

from durably.backends import MemoryBackend
from durably.core import (
    Agent,
    AgentInput,
    AgentResult,
    Context,
    Event,
    Function,
    InvokeError,
    NonRetriableError,
    RetryPolicy,
    SerializationError,
    SQLiteSessions,
    ToolError,
    Trace,
    create_agent_loop,
    delegate,
    delegate_async,
    function,
    reject,
    tool,
)
from durably.core.compaction import Compaction
from durably.core.history import History, StepRecord
from durably.core.messages import SessionPrefix, UserMessage
from durably.core.model import ModelResponse, Usage
from durably.core.trace_parts import TraceConversation
from durably.testing import ScriptedModel, call
from durably.testing.conformance import MemorySubject
from durably.testing.conformance.subject import at
from durably.testing.fuzz.faulted_runs import run_under_faults
from durably.testing.fuzz.faults import Fault, OutsideEvent
from durably.testing.fuzz.programs import Block
from durably.testing.fuzz.strategies import faults, outside_events, programs
from examples.refund_desk import desk
from tests.core.traced_runs import QUESTION, functions, outline, traced
from tests.testing.subjects import SQLiteSubject

QUICK = RetryPolicy(initial=2.0, jitter=0)


pytestmark = pytest.mark.usefixtures("quiet")


def trace_of(target: Function[Any, Any], data: Any = None, **options: Any) -> tuple[Trace, Any]:
    """A run on the memory backend: its trace and its result."""

    async def main() -> tuple[Trace, Any]:
        async with MemoryBackend([target], **options) as backend:
            run = await backend.start(target, data)
            result = await run.result()
            if isinstance(result, AgentResult):
                assert result.messages  # put together while the backend is there
            return await run.trace(), result

    return asyncio.run(main())


def keys(trace: Trace) -> list[str]:
    return [step.key for step in trace.walk() if step.role != "group"]


# -- the tree


def test_the_same_run_has_the_same_trace_on_memory_and_sqlite(tmp_path: Path) -> None:
    on_memory = asyncio.run(traced(MemorySubject()))
    on_sqlite = asyncio.run(traced(SQLiteSubject(tmp_path)))
    assert outline(on_memory) == outline(on_sqlite)


def test_the_tree_of_a_run_follows_its_keys() -> None:
    trace = asyncio.run(traced(MemorySubject()))
    gather = trace.step("gather")
    assert [branch.key for branch in gather.steps] == ["gather[0]", "gather[1]"]
    assert [step.key for step in gather.steps[1].steps] == ["gather[1]/tool-get_payments"]
    assert [step.role for step in trace.steps] == [
        *["step", "step", "model", "group"],  # load-context, load-history, think, gather
        *["model", "child", "model", "step", "group", "tool", "model"],
    ]
    with pytest.raises(LookupError, match="has no step 'nowhere'"):
        trace.step("nowhere")


def test_gathers_nest() -> None:
    @function("nested")
    async def nested(ctx: Context[None]) -> None:
        async def two() -> None:
            await ctx.step.gather(lambda: ctx.step.run("a", int), lambda: ctx.step.run("b", int))

        await ctx.step.gather(lambda: ctx.step.run("c", int), two)

    trace, _ = trace_of(nested)
    (outer,) = trace.steps
    (inner,) = outer.steps[1].steps
    assert [step.key for branch in inner.steps for step in branch.steps] == [
        "gather[1]/gather[0]/a",
        "gather[1]/gather[1]/b",
    ]
    assert outer.status == inner.status == "completed"


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(programs(), faults(), outside_events())
def test_a_trace_holds_each_step_of_the_records_once(
    program: Block, plan: list[Fault], events: list[OutsideEvent]
) -> None:
    run = asyncio.run(run_under_faults(program, plan, events))
    for history in histories(run):
        trace = Trace.of(history)
        assert sorted(keys(trace)) == sorted({record.key for record in history if record.key})
        assert Trace.from_json(trace.to_json()) == trace
        for step in trace.walk():
            numbers = [attempt.number for attempt in step.attempts]
            assert numbers == list(range(1, len(numbers) + 1))
            assert all(below.key.startswith(step.key) for below in step.walk())


def histories(run: Any) -> list[History]:
    return [log.history for log in run.store.snapshot().runs.values()]


# -- attempts and times


def test_attempts_have_their_errors_and_the_waits_between_them() -> None:
    tries: list[int] = []

    @function("flaky", retry_policy=QUICK, retries=3)
    async def flaky(ctx: Context[None]) -> None:
        await ctx.step.run("call", fail_twice)

    async def fail_twice() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError(f"no answer {len(tries)}")

    step = trace_of(flaky)[0].step("call")
    assert [(each.number, each.outcome) for each in step.attempts] == [(1, "failed"), (2, "failed"), (3, "completed")]
    assert [each.error and each.error["message"] for each in step.attempts] == ["no answer 1", "no answer 2", None]
    assert step.waiting == pytest.approx(6.0)  # 2 and 4 seconds of virtual time
    assert step.started_at is not None
    assert step.attempts[0].next_at == pytest.approx(step.started_at + 2.0)


def test_an_attempt_that_a_crash_cut_off_is_lost() -> None:
    async def main() -> Trace:
        subject = MemorySubject()
        await subject.crash(*functions(), where=at("after_effect", "tool-refund"), data=QUESTION)
        return await traced(subject)

    step = asyncio.run(main()).step("tool-refund")
    assert [(each.number, each.outcome) for each in step.attempts] == [(1, "lost"), (2, "completed")]


def test_waits_and_sleeps_count_as_waiting() -> None:
    @function("patient")
    async def patient(ctx: Context[None]) -> None:
        await ctx.step.sleep("nap", 30)
        await ctx.step.wait_for_event("listen", "never", timeout=10)

    trace, _ = trace_of(patient)
    assert [(step.role, step.waiting, step.running) for step in trace.steps] == [("wait", 30.0, 0), ("wait", 10.0, 0)]


def test_a_run_that_waits_is_live_in_its_trace() -> None:
    async def main() -> Trace:
        async with MemorySubject().open([desk]) as backend:
            run = await backend.start(desk, QUESTION)
            await backend.drain()  # type: ignore[attr-defined]
            return await run.trace()

    trace = asyncio.run(main())
    step = trace.step("gather:1[0]/approve-refund")
    assert (trace.status, trace.ended_at, step.role, step.status) == ("running", None, "approval", "waiting")
    assert trace.step("gather:1").status == "waiting"
    assert trace.conversations[0].entries[-1].step == "think:2"  # the call of refund has no result yet


def test_the_attempts_of_a_function_that_failed() -> None:
    @function("broken", retries=1, retry_policy=QUICK)
    async def broken(ctx: Context[None]) -> None:
        raise ConnectionError("no")

    async def main() -> Trace:
        async with MemoryBackend([broken]) as backend:
            run = await backend.start(broken)
            with pytest.raises(InvokeError):
                await run.result()
            return await run.trace()

    trace = asyncio.run(main())
    assert trace.status == "failed"
    assert trace.error is not None
    assert trace.error["message"] == "no"
    assert [(each.number, each.outcome) for each in trace.attempts] == [(1, "failed"), (2, "failed")]
    first, last = trace.attempts
    assert (first.started_at, last.started_at) == (trace.started_at, first.next_at), "an attempt begins when it is due"


def test_the_attempts_of_a_run_that_was_taken_up_again_are_counted_anew() -> None:
    broken = [True]

    @function("mended", retries=1)
    async def mended(ctx: Context[None]) -> None:
        if broken:
            raise ConnectionError("no")

    async def main() -> Trace:
        async with MemoryBackend([mended]) as backend:
            run = await backend.start(mended)
            with pytest.raises(InvokeError):
                await run.result()
            broken.clear()
            await run.retry()
            await run.result()
            return await run.trace()

    trace = asyncio.run(main())
    assert [(each.number, each.outcome) for each in trace.attempts] == [(1, "failed"), (2, "failed"), (1, "completed")]


# -- values


def test_values_are_cut_at_the_limit_and_redacted_as_recorded() -> None:
    @function("long")
    async def long(ctx: Context[None]) -> None:
        await ctx.step.run("make", lambda: "secret-word " * 100)

    trace, _ = trace_of(long, secrets=["secret-word"])
    whole = trace.step("make").output
    assert whole is not None
    assert not whole.is_cut
    assert "secret-word" not in trace.to_json()

    async def main() -> Trace:
        async with MemoryBackend([long]) as backend:
            run = await backend.start(long)
            await run.result()
            return await run.trace(limit=50)

    output = asyncio.run(main()).step("make").output
    assert output is not None
    assert (len(output.text), output.size, output.is_cut) == (50, 1202, True)


def test_what_is_no_trace_is_refused() -> None:
    with pytest.raises(SerializationError, match="not a trace"):
        Trace.from_json('{"run_id": 7}')


# -- tokens and cost


def test_tokens_and_cost_are_those_of_the_result() -> None:
    async def main() -> tuple[Trace, AgentResult]:
        async with MemorySubject().open(functions()) as backend:
            run = await backend.start(desk, QUESTION)
            result = await run.result()
            return await run.trace(), result

    trace, result = asyncio.run(main())
    assert trace.usage == result.usage
    assert trace.cost == pytest.approx(result.cost)
    assert trace.step("think").usage == Usage(input_tokens=1284, output_tokens=96)
    assert trace.step("tool-ask_policy").usage == Usage(input_tokens=978, cached_tokens=384, output_tokens=53)


def test_an_unknown_price_makes_the_sum_unknown() -> None:
    trace, _ = trace_of(Agent("a", model=ScriptedModel("hello"), instructions=""), "hi")
    assert trace.cost is None
    assert trace.usage == Usage(input_tokens=10, output_tokens=5)


# -- conversations


def conversation_of(target: Function[Any, Any], data: Any = None, **options: Any) -> tuple[TraceConversation, Any]:
    trace, result = trace_of(target, data, **options)
    assert Trace.from_json(trace.to_json()) == trace
    (conversation,) = trace.conversations
    return conversation, result


@tool
def ok(text: str) -> str:
    """Say it again."""
    return text


@tool
def picky(number: int) -> str:
    """Take positive numbers."""
    if number < 0:
        raise ToolError("only positive numbers")
    return str(number)


@tool(retries=0)
def broken_tool() -> str:
    """Never works."""
    raise NonRetriableError("out of order")


@tool(requires_approval=True, approval_timeout=5)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


child = Agent("child", model=ScriptedModel("the child's answer"), instructions="child")

CALLS = [
    [call("ok", text="a")],
    [call("ok", text="a"), call("picky", number=-1)],
    [call("broken_tool")],
    [call("pay", amount=7)],  # nobody answers
    [call("pay", amount=7), call("ok", text="b"), call("pay", amount=8)],
    [call("ask_child", task="x")],
    [call("start_child", task="x")],
    [call("ask_child", task="x"), call("start_child", task="y"), call("ok", text="c")],
]


@pytest.mark.parametrize("calls", CALLS, ids=lambda calls: "+".join(each.name for each in calls))
def test_the_conversation_is_that_of_the_result(calls: list[Any]) -> None:
    agent = Agent(
        "a",
        model=ScriptedModel(calls, [call("ok", text="again")], "done"),
        instructions="be good",
        tools=[ok, picky, broken_tool, pay, delegate(child), delegate_async(child)],
    )
    conversation, result = conversation_of(agent, "hello")
    assert conversation.exact
    assert conversation.messages == result.messages
    assert conversation.system == "be good"
    assert conversation.seen_by("think").messages == result.messages[:1]
    assert conversation.seen_by("think:2").messages == result.messages[:-1]
    assert set(conversation.results()) == {part.id for each in result.messages[1:] for part in _calls(each)}


def _calls(message: Any) -> list[Any]:
    return message.tool_calls if message.role == "assistant" else []


def test_what_the_code_made_up_is_marked() -> None:
    script = ScriptedModel(call("nowhere"), [call("ok", text="x"), call("ok", wrong=1)], "done")
    conversation, result = conversation_of(Agent("a", model=script, instructions="", tools=[ok]), "hello")
    assert [entry.recorded for entry in conversation.entries] == [True, True, False, True, True, False, True]
    assert not conversation.exact
    assert [message.role for message in conversation.messages] == [message.role for message in result.messages]


def test_an_answer_of_the_wrong_type_is_asked_for_again() -> None:
    class Answer(BaseModel):
        number: int

    agent = Agent("a", model=ScriptedModel("seven", '{"number": 7}'), instructions="", output_type=Answer)
    conversation, result = conversation_of(agent, "hello")
    assert [message.role for message in conversation.messages] == [message.role for message in result.messages]
    assert [entry.recorded for entry in conversation.entries] == [True, True, False, True]


@pytest.mark.parametrize("keep", [0, 1, 2, 6])
def test_a_summary_stands_where_the_model_saw_it(keep: int) -> None:
    script = ScriptedModel(*[call("ok", text=str(number)) for number in range(8)], "done")
    summarizer = ScriptedModel(*["what was said"] * 9)
    compaction = Compaction(at_tokens=1, keep=keep, model=summarizer)
    agent = Agent("a", model=script, instructions="", tools=[ok], compaction=compaction)
    conversation, result = conversation_of(agent, "hello")
    assert conversation.exact
    assert conversation.messages == result.messages
    assert any(entry.summary == "what was said" for entry in conversation.entries)
    seen = conversation.seen_by("think:8").messages
    assert seen == list(script.requests[-1].messages)


def test_a_refusal_is_what_the_model_is_told() -> None:
    agent = Agent("a", model=ScriptedModel(call("pay", amount=7), "sorry"), instructions="", tools=[pay])

    async def main() -> tuple[Trace, AgentResult]:
        async with MemoryBackend([agent]) as backend:
            run = await backend.start(agent, "pay")
            asked = await approval_of(run)
            await backend.send(reject(asked, "too much"))
            result = await run.result()
            assert result.messages
            return await run.trace(), result

    trace, result = asyncio.run(main())
    assert trace.conversations[0].messages == result.messages
    assert trace.conversations[0].exact


async def approval_of(run: Any) -> str:
    while True:
        await asyncio.sleep(0)
        for record in await run.history():
            if record.kind == "wait_for_event":
                return str(json.loads(f"[{record.input}]")[1]["approval"])


def test_loops_in_a_function_and_in_branches_have_conversations() -> None:
    agent = Agent("a", model=ScriptedModel(call("ok", text="x"), "done"), instructions="", tools=[ok])

    @function("both")
    async def both(ctx: Context[dict[str, str]]) -> None:
        await create_agent_loop(agent, ctx.input["question"])(ctx.step, ctx.logger)
        await create_agent_loop(agent, "of the code's own")(ctx.step, ctx.logger)
        branch = create_agent_loop(agent, ctx.input["question"])
        await ctx.step.gather(lambda: branch(ctx.step, None), lambda: branch(ctx.step, None))

    trace, _ = trace_of(both, {"id": "7", "question": "What?"})
    found = [(each.scope, each.exact, each.entries[0].recorded) for each in trace.conversations]
    assert found == [
        ("", True, True),
        ("", False, False),  # no record holds what the code asked
        ("gather[0]/", True, True),
        ("gather[1]/", True, True),
    ]
    assert trace.conversations[0].entries[0].message == UserMessage(content="What?")
    assert [len(each.entries) for each in trace.conversations] == [4, 4, 4, 4]


def test_a_step_that_only_looks_like_a_tool_does_not_hurt() -> None:
    @function("odd")
    async def odd(ctx: Context[None]) -> None:
        await ctx.step.run("load-context", int)
        await ctx.step.run("think", int)
        await ctx.step.run("tool-x", lambda: {"message": {"role": "assistant"}, "usage": 7})
        await ctx.step.run("compact", dict)

    trace, _ = trace_of(odd)
    assert trace.conversations == []
    assert trace.usage == Usage()


# -- speed


def test_a_trace_is_read_in_linear_time() -> None:
    def work(turns: int) -> int:
        history, calls = long_history(turns), 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(count)
        try:
            trace = Trace.of(history)
        finally:
            sys.setprofile(None)
        assert len(trace.conversations[0].entries) == 2 * turns + 1
        return calls

    work(10)  # what is done once only
    assert work(1_000) < 11 * work(100)


def long_history(turns: int) -> History:
    """An agent's records, made by hand: each turn calls two tools at once."""
    started = Event("start", {"message": "go"}).model_dump_json()
    records = [StepRecord("r", 0, "", "run", "started", name="a", output=started)]

    def add(key: str, value: Any) -> None:
        output = value.model_dump_json() if isinstance(value, ModelResponse) else json.dumps(value)
        records.append(StepRecord("r", len(records), key, "step", "completed", output=output))

    add("load-context", "system")
    add("load-history", [])
    for turn in range(turns):
        suffix = f":{turn}" if turn else ""
        call_part = {"type": "tool_call", "id": f"c{turn}", "name": "ok", "arguments": {}}
        add(f"think{suffix}", {"message": {"role": "assistant", "parts": [call_part]}})
        add(f"tool-ok{suffix}", "fine")
    return History(records)


@pytest.mark.asyncio
async def test_a_run_in_a_session_says_how_far_it_has_read(tmp_path: Path) -> None:
    sessions = SQLiteSessions(tmp_path / "sessions.db")
    model = ScriptedModel("Hello Ann.", call("look"), [call("look"), call("look")], "You are Ann.")

    async def look() -> str:
        return "Ann"

    agent = Agent("friend", model=model, instructions="Be kind.", sessions=sessions, tools=[look])
    async with MemoryBackend([agent]) as backend:
        await backend.invoke(agent, AgentInput(message="I am Ann.", session_key="s"))
        run = await backend.start(agent, AgentInput(message="Who am I?", session_key="s"))
        messages = (await run.result()).messages
        trace = Trace.of(await run.history())
    (conversation,) = trace.conversations
    assert conversation.exact
    assert conversation.messages == messages
    assert isinstance(conversation.history, SessionPrefix)
    assert conversation.history.turns == 1
    assert conversation.seen_by("think").before == conversation.history
    assert Trace.from_json(trace.to_json()) == trace
