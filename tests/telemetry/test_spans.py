"""What spans and metrics say of a run."""

from __future__ import annotations

import logging
import time
from collections import Counter

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, StatusCode

from durably.backends import MemoryBackend
from durably.core import (
    Agent,
    AgentInput,
    Context,
    Event,
    FailedRun,
    InvokeError,
    MemorySessions,
    RetryPolicy,
    delegate,
    function,
    tool,
)
from durably.telemetry import OpenTelemetryObserver
from durably.testing import ScriptedModel, call
from tests.telemetry.collected import Collected, attributes, derived, events, ids, linked

pytestmark = pytest.mark.asyncio


@tool
async def look_up(order: str) -> str:
    return f"private answer of {order}"


def _agent() -> Agent:
    both = [call("look_up", order="a"), call("look_up", order="b")]
    model = ScriptedModel(both, call("look_up", order="c"), "private end")
    return Agent("support", model=model, instructions="private rules", tools=[look_up], sessions=MemorySessions())


async def _run(collected: Collected, agent: Agent, *, capture_content: bool = False) -> None:
    observer = collected.observer(agent, capture_content=capture_content)
    async with MemoryBackend([agent], observers=[observer]) as backend:
        asked = AgentInput(message="private question", session_key="customer-7")
        await (await backend.start(agent, asked, run_id="r")).result()


async def test_the_spans_of_an_agent_follow_the_conventions() -> None:
    collected = Collected()
    await _run(collected, _agent())
    assert Counter(span.name for span in collected.spans) == {
        "invoke_agent support": 1,
        "chat scripted": 3,
        "execute_tool look_up": 3,
        "step load-context": 1,
        "step load-history": 1,
        "step save-message": 1,
        "step save-turn": 2,
        "step save-session": 1,
    }
    said = {ids(span)[:2]: span for span in collected.spans}
    run, think = said[derived("r")], said[derived("r", "think:1")]
    assert run.parent is None
    assert {ids(span)[2] for span in collected.spans if span is not run} == {derived("r")[1]}
    assert attributes(run) == {
        "durably.run.id": "r",
        "durably.function": "support",
        "durably.run.status": "completed",
        "durably.event.id": attributes(run)["durably.event.id"],
        "durably.event.name": "durably/function.started",
        "gen_ai.agent.name": "support",
        "gen_ai.conversation.id": "customer-7",
        "gen_ai.operation.name": "invoke_agent",
    }
    assert think.kind is SpanKind.CLIENT
    chat = attributes(think)
    assert (chat["gen_ai.operation.name"], chat["gen_ai.agent.name"]) == ("chat", "support")
    assert chat["gen_ai.conversation.id"] == "customer-7"
    assert (chat["gen_ai.request.model"], chat["gen_ai.response.finish_reasons"]) == ("scripted", ("tool_call",))
    keys = ["gather[0]/tool-look_up", "gather[1]/tool-look_up", "tool-look_up"]
    tools = [attributes(said[derived("r", key)]) for key in keys]
    assert [each["gen_ai.tool.name"] for each in tools] == ["look_up"] * 3
    assert len({each["gen_ai.tool.call.id"] for each in tools}) == 3


async def test_tokens_and_seconds_are_counted() -> None:
    collected = Collected()
    await _run(collected, _agent())
    points = collected.metric("gen_ai.client.token.usage")
    assert {str((point.attributes or {})["gen_ai.token.type"]): point.count for point in points} == {
        "input": 3,
        "output": 3,
    }
    assert sum(point.sum for point in points) == collected.tokens
    (seconds,) = collected.metric("gen_ai.client.operation.duration")
    assert seconds.count == 3
    assert (seconds.attributes or {})["gen_ai.operation.name"] == "chat"


async def test_content_is_shown_only_where_it_is_asked_for() -> None:
    silent, open_ = Collected(), Collected()
    await _run(silent, _agent())
    assert "private" not in "".join(span.to_json() for span in silent.spans)
    await _run(open_, _agent(), capture_content=True)
    shown = "".join(span.to_json() for span in open_.spans)
    for text in ("private question", "private rules", "private answer of b", "private end"):
        assert text in shown
    last = next(span for span in open_.spans if ids(span)[:2] == derived("r", "tool-look_up"))
    assert attributes(last)["gen_ai.tool.call.arguments"] == '{"order": "c"}'


async def test_spans_of_a_body_stand_below_its_step() -> None:
    collected = Collected()
    tracer = collected.tracers.get_tracer("shop")

    def sync() -> None:
        with tracer.start_as_current_span("in a thread"):
            pass

    async def nested() -> None:
        with tracer.start_as_current_span("outer"), tracer.start_as_current_span("inner"):
            pass

    @function("nesting")
    async def nesting(ctx: Context[None]) -> None:
        await ctx.step.run("sync", sync)
        await ctx.step.gather(lambda: ctx.step.run("a", nested), lambda: ctx.step.sleep("nap", 1))

    async with MemoryBackend([nesting], observers=[collected.observer()]) as backend:
        await (await backend.start(nesting, run_id="r")).result()
    thread, outer, inner = (ids(collected.span(name)) for name in ("in a thread", "outer", "inner"))
    assert (thread[0], thread[2]) == derived("r", "sync")
    assert (outer[0], outer[2]) == derived("r", "gather[0]/a")
    assert (inner[0], inner[2]) == outer[:2]
    assert ids(collected.span("sleep nap")) == (*derived("r", "gather[1]/nap"), derived("r")[1])


async def test_failures_are_told_without_their_messages() -> None:
    collected = Collected()

    async def bad() -> None:
        raise ValueError("private")

    @function("failing", retry_policy=RetryPolicy(initial=1, jitter=0))
    async def failing(ctx: Context[None]) -> None:
        await ctx.step.run("bad", bad, retries=2)

    async with MemoryBackend([failing], observers=[collected.observer()]) as backend:
        with pytest.raises(InvokeError):
            await (await backend.start(failing, run_id="r")).result()
    step, run = collected.span("step bad"), collected.span("run failing")
    assert events(step) == ["durably.attempt.failed"] * 2
    assert [dict(event.attributes or {}) for event in step.events] == [
        {"durably.attempt": number, "error.type": "ValueError"} for number in (1, 2)
    ]
    for span in (step, run):
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
        assert attributes(span)["error.type"] == "ValueError"
    assert (step.start_time or 0) <= step.events[0].timestamp < step.events[1].timestamp
    assert "private" not in "".join(span.to_json() for span in collected.spans)


async def test_a_child_goes_on_with_the_trace_of_its_caller() -> None:
    collected = Collected()
    tracer = collected.tracers.get_tracer("shop")

    def work() -> None:
        with tracer.start_as_current_span("in the body"):
            pass

    @function("below")
    async def below(ctx: Context[None]) -> None:
        await ctx.step.run("work", work)

    @function("child")
    async def child(ctx: Context[None]) -> None:
        await ctx.step.invoke("deeper", below)

    @function("parent")
    async def parent(ctx: Context[None]) -> None:
        await ctx.step.gather(lambda: ctx.step.invoke("ask", child), lambda: ctx.step.invoke("ask", child))

    async with MemoryBackend([parent, child, below], observers=[collected.observer()]) as backend:
        await (await backend.start(parent, run_id="r")).result()
    assert {ids(span)[0] for span in collected.spans} == {derived("r")[0]}
    by_id = {ids(span)[1]: span for span in collected.spans}
    assert len(by_id) == len(collected.spans) == 13
    chain = ["in the body", "step work", "run below", "invoke deeper", "run child", "invoke ask", "run parent"]
    for span in (each for each in collected.spans if each.name == "in the body"):
        names, above = [span.name], ids(span)[2]
        while above is not None:
            names.append(by_id[above].name)
            above = ids(by_id[above])[2]
        assert names == chain


async def test_what_a_failure_starts_goes_on_with_its_trace() -> None:
    collected = Collected()

    async def handler(ctx: Context[FailedRun]) -> None: ...

    @function("failing", retries=0, on_failure=handler)
    async def failing(ctx: Context[None]) -> None:
        raise ValueError

    async with MemoryBackend([failing], observers=[collected.observer()]) as backend:
        with pytest.raises(InvokeError):
            await (await backend.start(failing, run_id="r")).result()
        await backend.drain()
    trace, _, above = ids(collected.span("run failing-failure"))
    assert (trace, above) == derived("r")


async def test_an_event_is_a_message_and_links_what_it_starts_and_wakes() -> None:
    collected = Collected()

    @function("started", triggers=["an/event"])
    async def started(ctx: Context[None]) -> None:
        await ctx.step.send_event("back", Event("an/answer"))

    @function("sender")
    async def sender(ctx: Context[None]) -> None:
        await ctx.step.gather(
            lambda: ctx.step.wait_for_event("wait", "an/answer"),
            lambda: ctx.step.send_event("tell", Event("an/event")),
        )

    async with MemoryBackend([sender, started], observers=[collected.observer()]) as backend:
        await (await backend.start(sender, run_id="r")).result()
        await backend.drain()
    tell, run = collected.span("send_event tell"), collected.span("run started")
    assert (tell.kind, run.kind, run.parent) == (SpanKind.PRODUCER, SpanKind.CONSUMER, None)
    assert ids(run)[0] != derived("r")[0]
    assert linked(run) == [ids(tell)[:2]]
    said = attributes(run)
    assert (said["durably.event.id"],) == attributes(tell)["durably.event.ids"] == (said["messaging.message.id"],)
    assert (said["messaging.destination.name"], said["messaging.operation.type"]) == ("an/event", "process")
    wait = collected.span("wait_for_event wait")
    assert wait.kind is SpanKind.CONSUMER
    assert linked(wait) == [ids(collected.span("send_event back"))[:2]]
    assert attributes(wait)["messaging.operation.type"] == "receive"


async def test_the_span_of_a_program_is_carried_to_what_it_starts_and_sends() -> None:
    collected = Collected()

    @function("called", triggers=["an/event"])
    async def called(ctx: Context[None]) -> None:
        await ctx.step.run("a", time.time)

    async with MemoryBackend([called], observers=[collected.observer()]) as backend:
        with collected.tracers.get_tracer("web").start_as_current_span("request"):
            run = await backend.start(called, run_id="r")
            await backend.send(Event("an/event"), Event("an/event"))
        await backend.start(called, run_id="r")  # the same run, wherever it is asked for
        await run.result()
        await backend.drain()
    request = ids(collected.span("request"))[:2]
    mine, *others = sorted(
        (span for span in collected.spans if span.name == "run called"), key=lambda each: each.kind.value
    )
    assert (ids(mine)[0], ids(mine)[2]) == request
    assert ids(mine)[1] == derived("r")[1]
    assert [(linked(each), each.parent) for each in others] == [([request], None)] * 2
    assert {ids(span)[0] for span in collected.spans if span.name == "step a"} == {
        ids(each)[0] for each in (mine, *others)
    }


async def test_a_caller_that_is_not_sampled_has_none_of_its_runs_sampled() -> None:
    collected = Collected()
    collected.tracers.sampler = ParentBased(ALWAYS_OFF)

    @function("quiet")
    async def quiet(ctx: Context[None]) -> None:
        await ctx.step.run("a", time.time)

    async with MemoryBackend([quiet], observers=[collected.observer()]) as backend:
        with collected.tracers.get_tracer("web").start_as_current_span("request"):
            await backend.invoke(quiet)
    assert collected.spans == []


async def test_the_sender_of_an_event_may_be_named() -> None:
    collected = Collected()
    elsewhere = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    @function("told", triggers=["an/event"])
    async def told(ctx: Context[None]) -> None: ...

    async with MemoryBackend([told], observers=[collected.observer()]) as backend:
        await backend.send(Event("an/event", traceparent=elsewhere))
        await backend.drain()
    assert linked(collected.span("run told")) == [(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)]
    with pytest.raises(ValueError, match="is not a traceparent"):
        Event("an/event", traceparent="7")


async def test_without_observers_that_trace_nothing_is_carried() -> None:
    @function("child")
    async def child(ctx: Context[None]) -> None:
        assert ctx.event.traceparent is None

    @function("parent")
    async def parent(ctx: Context[None]) -> None:
        await ctx.step.invoke("ask", child)

    async with MemoryBackend([parent, child]) as backend:
        await (await backend.start(parent, run_id="r")).result()
        for run in await backend.runs():
            assert "traceparent" not in ((await run.history()).records[0].output or "")


async def test_delegates_are_known_by_the_agent_that_asks_them() -> None:
    collected = Collected()
    clerk = Agent("clerk", model=ScriptedModel("done"), instructions="")
    boss = Agent(
        "boss", model=ScriptedModel(call("ask_clerk", task="?"), "ok"), instructions="", tools=[delegate(clerk)]
    )
    async with MemoryBackend([boss], observers=[collected.observer(boss)]) as backend:
        await backend.invoke(boss, "go")
    asked = ids(collected.span("execute_tool ask_clerk"))
    clerks = ids(collected.span("invoke_agent clerk"))
    assert (clerks[0], clerks[2]) == asked[:2]


async def test_a_sampler_by_trace_id_takes_whole_runs() -> None:
    collected = Collected()
    collected.tracers.sampler = TraceIdRatioBased(0.5)

    @function("sampled")
    async def sampled(ctx: Context[None]) -> None:
        await ctx.step.run("a", time.time)

    async with MemoryBackend([sampled], observers=[collected.observer()]) as backend:
        for number in range(20):
            await (await backend.start(sampled, run_id=f"r{number}")).result()
    traces = [ids(span)[0] for span in collected.spans]
    assert 0 < len(set(traces)) < 20
    assert {traces.count(each) for each in traces} == {2}


async def test_random_ids_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    @function("plain")
    async def plain(ctx: Context[None]) -> None:
        await ctx.step.run("a", time.time)

    with caplog.at_level(logging.WARNING, "durably"):
        async with MemoryBackend([plain], observers=[OpenTelemetryObserver(tracer_provider=provider)]) as backend:
            await backend.invoke(plain)
    assert len(exporter.get_finished_spans()) == 2
    (line,) = caplog.messages
    assert "TracerProvider(id_generator=RunIdGenerator())" in line


async def test_without_an_sdk_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    @function("unseen")
    async def unseen(ctx: Context[None]) -> str:
        return await ctx.step.run("a", str, "fine")

    with caplog.at_level(logging.WARNING, "durably"):
        async with MemoryBackend([unseen], observers=[OpenTelemetryObserver()]) as backend:
            assert await backend.invoke(unseen) == "fine"
    assert caplog.messages == []
