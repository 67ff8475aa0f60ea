"""How long the page takes to open: a list of 100,000 runs, and a run of 5,000 steps.

The time is that of a browser, from asking for the page until its rows are there; beside it the server's share of it.
`python -m tests.benchmarks.page`; exits with 1 if one takes longer than its limit.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Browser, async_playwright
from rich.console import Console
from rich.table import Table

from durably.backends import SQLiteBackend
from durably.core import Agent, Context, FunctionRef, function, tool
from durably.core.model import ModelRequest
from durably.testing import ScriptedModel, call
from durably.testing.models.scripted import Reply
from tests.ui.served import served

RUNS = 100_000
TURNS = 2_500
ROUNDS = 7
LIMIT = 1.0
"""Seconds: what takes longer, a person notices as a wait."""

CASES = {
    "100,000 runs": ("/runs", "tr[data-row]"),
    "100,000 runs, one function": ("/runs?function=rare", "tr[data-row]"),
    "5,000 steps": ("/runs/long", ".row[data-step]"),
    "5,000 steps, conversation": ("/runs/long/conversation", ".said"),
}


@tool(effect="pure")
def look(number: int) -> str:
    """Look something up."""
    return f"item {number} " + "of the list " * 20


def _reply(request: ModelRequest) -> Reply:
    return call("look", number=request.turn) if request.turn < TURNS else "done"


LONG = Agent("long", model=ScriptedModel(_reply), instructions="Look.", tools=[look], max_iterations=TURNS + 1)


@function("rare")
async def rare(ctx: Context[None]) -> None:
    """Does one thing."""
    await ctx.step.run("one", int)


async def make(path: Path) -> None:
    """A file with a hundred thousand runs, and a long one."""
    async with SQLiteBackend(path) as client:
        client.journal.file.run("PRAGMA synchronous = OFF")  # how long it takes to make them is not the question
        for number in range(RUNS):
            await client.start(FunctionRef("order"), {"order": number}, run_id=f"order-{number}")
    async with SQLiteBackend(path, [LONG, rare]) as backend:
        backend.journal.file.run("PRAGMA synchronous = OFF")
        for number in range(100):
            await backend.invoke(rare, run_id=f"rare-{number}")
        await backend.invoke(LONG, "go", run_id="long")


async def measure(address: str, browser: Browser, path: str, row: str) -> tuple[float, float]:
    """Seconds until a browser shows rows, and until the server has answered: the medians of some rounds."""
    opened, answered = [], []
    async with httpx.AsyncClient(base_url=address, timeout=60) as http:
        for _ in range(ROUNDS):
            began = time.perf_counter()
            (await http.get(path)).raise_for_status()
            answered.append(time.perf_counter() - began)
    page = await browser.new_page(base_url=address)
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await page.goto(path, wait_until="commit")
        await page.locator(row).first.wait_for()
        opened.append(time.perf_counter() - began)
    await page.close()
    return statistics.median(opened), statistics.median(answered)


async def main() -> bool:
    """Measure all cases; whether each kept its limit."""
    table = Table("page", "a browser shows it after", "of which the server", title=f"limit {LIMIT:g} s")
    kept = True
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        await make(path)
        async with SQLiteBackend(path) as backend, served(backend) as address, async_playwright() as playwright:
            options: dict[str, Any] = {"executable_path": shutil.which("chromium"), "args": ["--no-sandbox"]}
            browser = await playwright.chromium.launch(**options)
            for name, (page, row) in CASES.items():
                opened, answered = await measure(address, browser, page, row)
                kept = kept and opened <= LIMIT
                Console(stderr=True).print(f"{name}: {opened:.3f} s, {answered:.3f} s", style="dim")
                table.add_row(name, f"{opened * 1000:.0f} ms", f"{answered * 1000:.0f} ms")
            await browser.close()
    Console().print(table)
    return kept


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)
