"""One run for traces: two tools at once, a retry, a delegate, an approval. The tests of every engine take it."""

from __future__ import annotations

from typing import Any

from durably.core import APPROVAL_REQUESTED, ApprovalRequest, Context, Function, Trace, approve, function
from durably.testing.conformance import Subject
from examples.refund_desk import desk

QUESTION = "Where is my money? Order 1042."


def functions() -> list[Function[Any, Any]]:
    """The desk, and somebody who says yes to everything."""

    @function("ask-person", triggers=[APPROVAL_REQUESTED])
    async def ask_person(ctx: Context[ApprovalRequest]) -> None:
        await ctx.step.send_event("yes", approve(ctx.input.approval))

    return [desk, ask_person]


async def traced(subject: Subject) -> Trace:
    """The trace of that run, on any engine."""
    async with subject.open(functions()) as backend:
        run = await backend.start(desk, QUESTION, run_id=subject.run_id())
        await run.result()
        trace = await run.trace()
        assert Trace.from_json(trace.to_json()) == trace
        return trace


def outline(trace: Trace) -> list[tuple[object, ...]]:
    """What of a trace is the same on every engine: no times, no random ids, and no inputs, which Inngest keeps as short
    digests. Of attempts only the number counts: Temporal keeps no error of one that another followed."""
    head = (trace.function, trace.status, trace.usage, trace.cost, _text(trace.input), _text(trace.output))
    steps = [
        (
            step.key,
            step.kind,
            step.role,
            step.status,
            step.call_id,
            step.tool_calls,
            step.model,
            step.usage,
            step.cost,
            len(step.events),
            step.child is not None,
            [attempt.number for attempt in step.attempts],
            [below.key for below in step.steps],
        )
        for step in trace.walk()
    ]
    said = [(entry.step, entry.message, entry.recorded) for entry in trace.conversations[0].entries]
    return [head, *steps, *said, (len(trace.conversations), trace.conversations[0].exact)]


def _text(payload: Any) -> str | None:
    return None if payload is None else payload.text
