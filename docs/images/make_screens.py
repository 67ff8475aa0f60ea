"""Makes the pictures of the command line and of the page: ``python docs/images/make_screens.py``.

The runs are those of ``examples/refund_desk.py``, on a file of their own: one that was killed in a model call, retried
a tool, did two things at once, asked another agent, and needed a person; and others beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from durably.backends import SQLiteBackend
from durably.core import Context, NonRetriableError, function
from durably.core.errors import Signal
from durably.core.steps import Point
from examples.refund_desk import desk

QUESTION = "Where is my money? Order 1042."

SECONDS = {"think": 0.9, "think:1": 0.7, "think:2": 0.8, "think:3": 1.1, "gather[0]/tool-get_order": 0.4}
SECONDS |= {"gather[1]/tool-get_payments": 0.6, "tool-search_policy": 0.2, "tool-refund": 0.5}


class Killed(Signal):
    """The process is gone."""


@function("nightly-report", retries=0)
async def nightly_report(ctx: Context[str]) -> str:
    """Counts something."""
    total = await ctx.step.run("count", len, ctx.input)
    await ctx.step.run("write", lambda: f"{total} refunds")
    if total > 9:
        raise NonRetriableError("the archive refused the file: quota exceeded")
    return f"{total} refunds"


def paced(kill_at: str = "") -> Any:
    """A probe that lets each body take its time, and kills the worker once after the body of a step."""
    struck: list[str] = []

    def probe(point: Point) -> Awaitable[None] | None:
        if point.name != "after_effect":
            return None
        if point.key == kill_at and not struck:
            struck.append(point.key)
            return _die()
        return asyncio.sleep(SECONDS.get(point.key, 0.02))

    return probe


async def _die() -> None:
    await asyncio.sleep(0.4)
    raise Killed


async def make_runs(path: Path) -> None:
    """Make the runs of the pictures; the refund of order 1042 waits for a person."""
    for day in range(12):
        async with SQLiteBackend(path, [desk, nightly_report]) as backend:
            run = await backend.start(nightly_report, "x" * (4 + day % 8), run_id=f"report-05-{day + 1:02}")
            await run.ended()
    async with SQLiteBackend(path, [desk]) as backend:
        backend.probe = paced(kill_at="think:1")
        try:
            await (await backend.start(desk, QUESTION, run_id="refund-1042")).result()
        except Killed:
            print("killed in think:1")
    async with SQLiteBackend(path, [desk]) as backend:
        backend.probe = paced()
        await until_waiting(backend, "refund-1042")


async def until_waiting(backend: SQLiteBackend, run_id: str) -> None:
    """Wait until a run asks for an approval."""
    while not any(  # noqa: ASYNC110
        record.kind == "wait_for_event" for record in await backend.history(run_id)
    ):
        await asyncio.sleep(0.05)
