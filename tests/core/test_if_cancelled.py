"""What a run calls off when it is cancelled: on the engines whose workers hear of that."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.core import Backend, Context, Function, current_step, function
from durably.core.run import Run

pytestmark = pytest.mark.asyncio


@pytest.fixture(params=["memory", "memory-evicting", "sqlite"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    def open_engine(*functions: Function[Any, Any], **options: Any) -> Backend:
        if request.param == "sqlite":
            return SQLiteBackend(tmp_path / "runs.db", functions, **options)
        return MemoryBackend(functions, evict="always" if request.param == "memory-evicting" else "never", **options)

    return open_engine


class Press:
    """Work elsewhere, and what was called off."""

    def __init__(self, failures: int = 0) -> None:
        self.called_off: list[tuple[str, str]] = []
        self._failures = failures

    async def stop(self, job: str) -> None:
        if self._failures:
            self._failures -= 1
            raise OSError("out of reach")
        self.called_off.append((job, current_step().resources["place"]))


async def begun(run: Run[Any], key: str) -> None:
    while key not in [record.key for record in await run.history()]:  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0.005)


async def test_what_stands_around_the_code_is_called_off(engine: Any) -> None:
    press = Press()

    @function("book")
    async def book(ctx: Context[None]) -> None:
        with ctx.step.if_cancelled(press.stop, "done before"):
            await ctx.step.run("short", str, output_type=str)
        with ctx.step.if_cancelled(press.stop, "outer"), ctx.step.if_cancelled(press.stop, "inner"):
            await ctx.step.sleep("long", "30d")

    async with engine(book, resources={"place": "cellar"}) as backend:
        run = await backend.start(book)
        await begun(run, "long")
        await run.cancel()
    assert press.called_off == [("outer", "cellar"), ("inner", "cellar")], "before the worker has stopped"


async def test_branches_call_off_theirs(engine: Any) -> None:
    press = Press()

    @function("books")
    async def books(ctx: Context[None]) -> None:
        async def one(name: str) -> None:
            with ctx.step.if_cancelled(press.stop, name):
                await ctx.step.sleep("long", "30d")

        await ctx.step.gather(lambda: one("a"), lambda: one("b"))

    async with engine(books, resources={"place": "cellar"}) as backend:
        run = await backend.start(books)
        await begun(run, "gather[1]/long")
        await run.cancel()
    assert sorted(press.called_off) == [("a", "cellar"), ("b", "cellar")]


@pytest.mark.parametrize("end", ["completed", "failed", "stopped"])
async def test_no_other_end_calls_off(engine: Any, end: str) -> None:
    press = Press()

    @function("book", retries=0)
    async def book(ctx: Context[None]) -> None:
        with ctx.step.if_cancelled(press.stop, "it"):
            await ctx.step.sleep("wait", "30d" if end == "stopped" else 0.001)
            if end == "failed":
                raise ValueError("it tore")

    async with engine(book, resources={"place": "cellar"}) as backend:
        run = await backend.start(book)
        await begun(run, "wait")
        if end != "stopped":
            await asyncio.wait([asyncio.ensure_future(run.result())])
    assert press.called_off == []


@pytest.mark.parametrize(("failures", "done"), [(2, True), (3, False)])
async def test_it_is_tried_three_times_and_then_logged(
    engine: Any, failures: int, done: bool, caplog: pytest.LogCaptureFixture
) -> None:
    press = Press(failures)

    @function("book")
    async def book(ctx: Context[None]) -> None:
        with ctx.step.if_cancelled(press.stop, "it"):
            await ctx.step.sleep("long", "30d")

    with caplog.at_level(logging.WARNING, "durably"):
        async with engine(book, resources={"place": "cellar"}) as backend:
            run = await backend.start(book)
            await begun(run, "long")
            await run.cancel()
    assert bool(press.called_off) is done
    assert ("out of reach" in caplog.text) is not done
