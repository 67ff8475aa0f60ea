"""What the page shows of runs: one run, one step, its conversation, two runs side by side, approvals."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from durably.core import Run, RunNotFoundError, Trace
from durably.core.serialization import digest
from durably.core.stream import offset_behind
from durably.core.trace_parts import TraceStep
from durably.ui.approvals import Question, question
from durably.ui.chat import chat, chats
from durably.ui.compare import compare
from durably.ui.live import events
from durably.ui.rendering import path_of, render, run_id_of
from durably.ui.run_stream import run_events
from durably.ui.timeline import timeline
from durably.ui.traces import Read, Traces

__all__ = [
    "approvals",
    "approvals_live",
    "comparison",
    "conversation",
    "messages",
    "run",
    "run_live",
    "run_rows",
    "step",
]

CHILDREN = 12
"""Children of a run that its head links to; the list shows the others."""

ROWS = 300
"""Rows of a time line that are sent at once; the rest follows as it is scrolled to."""


# -- one run


async def run(request: Request) -> Response:
    """A run as a waterfall."""
    read = await _run(request)
    drawn = timeline(read.trace, time.time(), squeeze=request.query_params.get("scale") != "linear")
    return render(
        request,
        "run.html",
        **await _run_values(request, read),
        scale=drawn.scale,
        rows=drawn.rows[:ROWS],
        more=ROWS if len(drawn.rows) > ROWS else 0,
        row_count=len(drawn.rows),
        linear=request.query_params.get("scale") == "linear",
    )


async def run_rows(request: Request) -> Response:
    """Further rows of the waterfall."""
    found, trace, _ = await _run(request)
    start = _number(request, "from")
    drawn = timeline(trace, time.time(), squeeze=request.query_params.get("scale") != "linear")
    end = start + ROWS
    return render(
        request,
        "rows.html",
        run=found,
        rows=drawn.rows[start:end],
        more=end if len(drawn.rows) > end else 0,
        linear=request.query_params.get("scale") == "linear",
    )


async def conversation(request: Request) -> Response:
    """The conversations of a run as chats."""
    read = await _run(request)
    return render(request, "conversation.html", **await _run_values(request, read), chats=chats(read.trace))


async def messages(request: Request) -> Response:
    """Further messages of a conversation."""
    found, trace, _ = await _run(request)
    number = _number(request, "chat")
    if number >= len(trace.conversations):
        raise HTTPException(404, f"this run has no conversation {number}")
    return render(request, "messages.html", run=found, chat=chat(trace, number, _number(request, "from")))


async def step(request: Request) -> Response:
    """One step, whole: by itself, or in the panel beside the waterfall."""
    found, trace, _ = await _run(request)
    one = _step(trace, request.query_params.get("key", ""))
    return render(request, "step.html", run=found, trace=trace, step=one, call=_call(trace, one))


async def comparison(request: Request) -> Response:
    """Two runs side by side."""
    left, left_trace, _ = await _run(request)
    other = request.query_params.get("with", "").strip()
    if not other:
        return RedirectResponse(path_of(left.id), 303)
    right, right_trace, _ = await _run(request, other)
    pairs = compare(left_trace, right_trace)
    return render(
        request,
        "compare.html",
        left=left,
        right=right,
        left_trace=left_trace,
        right_trace=right_trace,
        pairs=pairs,
        differing=sum(pair.verdict != "same" for pair in pairs),
    )


async def run_live(request: Request) -> Response:
    """Says what happens in a run."""
    return run_events(request, await request.app.state.backend.run(run_id_of(request)))


async def _run_values(request: Request, read: Read) -> dict[str, Any]:
    """What the pages of one run have in common."""
    found, trace, _ = read
    return {
        "run": found,
        "trace": trace,
        "pending": await _pending_of(request, found, trace),
        "children": await _children(request, found, trace),
        "children_shown": CHILDREN,
        "troubles": _troubles(trace),
        "offset": offset_behind(read.records),
        "ended": trace.ended_at or time.time(),
    }


def _troubles(trace: Trace) -> int:
    """How many attempts failed or were cut off: of steps, and of the function's own code."""
    attempts = [*trace.attempts, *(attempt for each in trace.walk() for attempt in each.attempts)]
    return sum(attempt.outcome in ("failed", "lost") for attempt in attempts)


async def _children(request: Request, found: Run[Any], trace: Trace) -> Sequence[Run[Any]]:
    """The newest runs that a run invoked, and one more than are shown if there are others."""
    if not any(each.child for each in trace.walk()):
        return []
    return await request.app.state.backend.runs(parent=found.id, limit=CHILDREN + 1)  # type: ignore[no-any-return]


async def _run(request: Request, run_id: str = "") -> Read:
    try:
        return await _traces(request).of(run_id or run_id_of(request))
    except RunNotFoundError as error:
        raise HTTPException(404, str(error)) from error


def _traces(request: Request) -> Traces:
    return request.app.state.traces  # type: ignore[no-any-return]


def _step(trace: Trace, key: str) -> TraceStep:
    try:
        return trace.step(key)
    except LookupError as error:
        raise HTTPException(404, str(error)) from error


def _call(trace: Trace, one: TraceStep) -> str:
    """The key of the model call that asked for a step, or an empty text."""
    asked = (each.key for each in trace.walk() if one.call_id is not None and one.call_id in each.tool_calls)
    return next(asked, "")


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "0")
    if not text.isascii() or not text.isdigit():
        raise HTTPException(400, f"{name} is a number, not {text!r}")
    return int(text)


# -- approvals


async def approvals(request: Request) -> Response:
    """The tool calls that wait for a person."""
    found = await _pending(request)
    return render(request, "approvals.html", pending=found, state=digest(repr(_approvals_state(found))))


async def approvals_live(request: Request) -> Response:
    """Says when another call waits, or one does no longer."""

    async def state() -> object:
        return _approvals_state(await _pending(request))

    return events(request, state)


def _approvals_state(found: Sequence[Question]) -> object:
    return [each.asked.id for each in found]


async def _pending(request: Request) -> list[Question]:
    """All that waits for a person, the oldest first."""
    asked = await request.app.state.backend.approvals()
    return [question(each, (await _traces(request).of(each.run_id)).trace) for each in asked]


async def _pending_of(request: Request, found: Run[Any], trace: Trace) -> list[Question]:
    """What of a run waits for a person."""
    if found.status.final or not any(each.role == "approval" and each.status == "waiting" for each in trace.walk()):
        return []
    return [question(each, trace) for each in await request.app.state.backend.approvals(run=found.id)]
