"""Makes the pictures of the command line and of the page: ``python -m docs.images.make_screens``.

The runs are those of ``examples/refund_desk.py``, on a file of their own: one that was killed in a model call, retried
a tool, did two things at once, asked another agent, and needed a person; and others beside it.
"""

from __future__ import annotations

import asyncio
import io
import logging
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from playwright.async_api import async_playwright
from rich.console import Console
from tests.ui.served import served

from durably.backends import SQLiteBackend
from durably.cli.run_tree import trace_view
from durably.core import Context, NonRetriableError, Trace, function
from durably.core.errors import Signal
from durably.core.steps import Point
from examples.refund_desk import desk

HERE = Path(__file__).parent

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
        with suppress(Killed):
            await (await backend.start(desk, QUESTION, run_id="refund-1042")).result()
    async with SQLiteBackend(path, [desk]) as backend:
        backend.probe = paced()
        await until_waiting(backend, "refund-1042")


async def until_waiting(backend: SQLiteBackend, run_id: str) -> None:
    """Wait until a run asks for an approval."""
    while not any(record.kind == "wait_for_event" for record in await backend.history(run_id)):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def make_screens(path: Path) -> None:
    """Look at the runs as a user does, and keep the pictures."""
    async with SQLiteBackend(path, [desk]) as backend:
        backend.probe = paced()
        async with browser(backend) as open_page:
            await open_page("/runs/refund-1042", "ui-run", 860)
            await open_page("/runs/refund-1042", "ui-step-dark", 760, dark=True, step="tool-get_payments")
            (asked,) = await backend.approvals()
            await asyncio.sleep(4)
            await backend.approve(asked, by="Ada")
            run = await (await backend.run("refund-1042")).ended()
            await open_page("/runs/refund-1042/conversation", "ui-conversation", 1240)
            await open_page("/runs", "ui-runs-dark", 640, dark=True)
            await open_page("/runs/refund-1042", "ui-phone", 780, width=390)
        draw_terminal(await run.trace(), time.time())


def draw_terminal(trace: Trace, now: float) -> None:
    """What ``durably show`` prints."""
    console = Console(width=112, record=True, file=io.StringIO(), highlight=False, force_terminal=True)
    console.print(trace_view(trace, now))
    console.save_svg(str(HERE / "cli-show.svg"), title="durably show refund-1042", unique_id="show")


@asynccontextmanager
async def browser(backend: SQLiteBackend) -> AsyncIterator[Any]:
    """A browser on the page of an engine; gives a function that keeps a picture."""
    async with served(backend) as address, async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--font-render-hinting=none"]
        )

        async def picture(
            path: str, name: str, height: int, *, width: int = 1240, dark: bool = False, step: str = ""
        ) -> None:
            page = await chromium.new_page(
                base_url=address,
                viewport={"width": width, "height": height},
                color_scheme="dark" if dark else "light",
                device_scale_factor=1.5,
                reduced_motion="reduce",
            )
            await page.goto(path)
            await page.wait_for_selector("#pulse:not([hidden])")
            if step:
                await page.get_by_text(step).click()
                await page.wait_for_selector("#panel #step")
            await page.screenshot(path=HERE / f"{name}.png")
            await page.close()

        yield picture
        await chromium.close()


async def main() -> None:
    """Make all of them."""
    logging.getLogger("durably").setLevel(logging.CRITICAL)  # the failures are part of the picture
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        await make_runs(path)
        await make_screens(path)


if __name__ == "__main__":
    asyncio.run(main())
