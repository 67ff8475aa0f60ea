"""A program of a user's with runs in a file, for the tests of the command line and of the page."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from durably.backends import SQLiteBackend
from durably.core import Context, InvokeError, NonRetriableError, function
from examples.refund_desk import desk

QUESTION = "Where is my money? Order 1042."

HOSTILE = "<script>document.title = 'taken'</script>\x1b[2J'\"><img src=x onerror=alert(1)>"
"""What a tool, a model or an input must not be able to do to whoever looks at it."""


@function("echo", retries=0)
async def echo(ctx: Context[str]) -> str:
    """Says what it is told, and fails when it is told to."""
    said: str = await ctx.step.run("say", lambda: ctx.input)
    if said == "fail":
        raise NonRetriableError("told to")
    return said


async def make_runs(path: Path) -> None:
    """Runs that completed, one that failed, one with hostile text, and a refund that waits for a person."""
    async with SQLiteBackend(path, [desk, echo]) as backend:
        for number in range(3):
            await backend.invoke(echo, f"hello {number}", run_id=f"echo-{number}")
        await backend.invoke(echo, HOSTILE, run_id="hostile")
        run = await backend.start(echo, "fail", run_id="broken")
        with contextlib.suppress(InvokeError):
            await run.result()
        await backend.start(desk, QUESTION, run_id="refund-1042")
        # Its wait is recorded first, and the question is put to somebody after that.
        while not await backend.approvals():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
