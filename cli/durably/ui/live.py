"""When to look again: server-sent events that name the state of what a page shows.

An event has the state as its id and nothing else. The page that gets a new one asks for itself again. A browser whose
connection broke says the last id it had (``Last-Event-ID``), so it hears of a change that it missed, and of nothing
that it knows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.requests import Request
from starlette.responses import StreamingResponse

from durably.core.serialization import digest

__all__ = ["events"]

LOOK_SECONDS = 0.7
"""How long between two looks."""

SHARE = 10
"""How many times as long as a look takes the next one waits at least: a long run must not keep the server busy."""

QUIET_LOOKS = 20
"""After so many looks without a change a comment is sent, so that a connection that is gone is noticed."""


def events(request: Request, state: Callable[[], Awaitable[object]]) -> StreamingResponse:
    """A stream that says when a state changed.

    Args:
        request: What is answered; its ``Last-Event-ID``, or ``?seen=``, is the state that the page shows.
        state: Looks at it: any value that is another one after each change.
    """
    seen = request.headers.get("last-event-id") or request.query_params.get("seen", "")

    async def stream() -> AsyncIterator[str]:
        known, quiet = seen, 0
        yield "retry: 1500\n\n"
        while not await request.is_disconnected():
            began = time.monotonic()
            found = digest(repr(await state()))
            took = time.monotonic() - began
            quiet += 1
            if found != known:
                known, quiet = found, 0
                yield f"id: {found}\nevent: changed\ndata: {found}\n\n"
            elif quiet % QUIET_LOOKS == 0:
                yield ": still here\n\n"
            await asyncio.sleep(max(LOOK_SECONDS, SHARE * took))

    return StreamingResponse(stream(), media_type="text/event-stream")
