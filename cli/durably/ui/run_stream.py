"""What happens in one run, as server-sent events: the stream of the run, and how it stands.

The id of an event is an offset of the run's stream. A browser whose connection broke says the last one that it had
(``Last-Event-ID``), and is told what came behind it. That a run stands otherwise, without anything having been
recorded, is an event without an id.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

from durably.cli.stream import KINDS
from durably.core import Run, RunNotFoundError
from durably.core.observer import StreamedDelta
from durably.core.stream import StreamItem

__all__ = ["run_events"]

LOOK_SECONDS = 2.0
"""How long between two looks at how the run stands."""

QUIET_SECONDS = 15.0
"""After so long without an event a comment is sent, so that a connection that is gone is noticed."""


def run_events(request: Request, run: Run[Any]) -> StreamingResponse:
    """A stream of what happens in a run, from its ``Last-Event-ID`` on, or from the offset ``?from=``."""
    last, given = request.headers.get("last-event-id", ""), request.query_params.get("from", "")
    offset = int(last) + 1 if _is_offset(last) else int(given) if _is_offset(given) else 0
    return StreamingResponse(_events(request, run, offset), media_type="text/event-stream")


def _is_offset(text: str) -> bool:
    return text.isascii() and text.isdigit()


async def _events(request: Request, run: Run[Any], offset: int) -> AsyncIterator[str]:
    yield "retry: 1500\n\n"
    items = run.stream(offset)
    upcoming: asyncio.Future[StreamItem | None] = asyncio.ensure_future(_next(items))
    stands, said = _standing(run), time.monotonic()
    try:
        while not await request.is_disconnected():
            await asyncio.wait([upcoming], timeout=LOOK_SECONDS)
            item = upcoming.result() if upcoming.done() else None
            if item is not None:
                yield _said(item)
                offset, said = item.offset + 1, time.monotonic()
                upcoming = asyncio.ensure_future(_next(items))
                continue
            if upcoming.done():
                await asyncio.sleep(LOOK_SECONDS)  # it has ended, but somebody may retry it
            await run.refresh()
            if _standing(run) != stands:
                stands, said = _standing(run), time.monotonic()
                yield "event: stands\ndata:\n\n"
                if upcoming.done() and not run.status.final:
                    items = run.stream(offset)
                    upcoming = asyncio.ensure_future(_next(items))
            elif time.monotonic() - said > QUIET_SECONDS:
                said = time.monotonic()
                yield ": still here\n\n"
    except RunNotFoundError:
        yield "event: stands\ndata:\n\n"  # it was forgotten, as the page finds when it looks
    finally:
        upcoming.cancel()
        await asyncio.gather(upcoming, return_exceptions=True)


async def _next(items: AsyncIterator[StreamItem]) -> StreamItem | None:
    """The next thing that happens; ``None`` at the end of the run."""
    return await anext(items, None)


def _standing(run: Run[Any]) -> object:
    return run.status, [(each.kind, each.step) for each in run.view.waiting_for]


def _said(item: StreamItem) -> str:
    """An event with little in it: the page asks for what it shows."""
    event = item.event
    data: dict[str, Any] = {"step": getattr(event, "step", "")}
    if isinstance(event, StreamedDelta):
        data |= {"attempt": event.attempt, "kind": event.delta.kind, "text": event.delta.text}
        data |= {"abandoned": True} if item.abandoned else {}
    return f"id: {item.offset}\nevent: {KINDS[type(event)]}\ndata: {json.dumps(data)}\n\n"
