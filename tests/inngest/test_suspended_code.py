"""The code of a run that is suspended between two requests: it is not replayed, and nobody can tell otherwise."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from durably.core import Context, function
from durably.core.errors import Signal
from durably.testing.inngest import InngestEngine
from tests.inngest.conftest import OpenInngest

pytestmark = pytest.mark.asyncio


class Kill(Signal):
    """The process is gone."""


async def _echo(value: Any) -> Any:
    return value


class Program:
    """Four steps, and what its code sees."""

    def __init__(self) -> None:
        self.begun = 0
        self.left = 0

        @function("suspended")
        async def suspended(ctx: Context[None]) -> int:
            self.begun += 1
            try:
                first = await ctx.step.run("first", _echo, 1)
                await ctx.step.sleep("nap", 60)
                return await ctx.step.run("second", _echo, first + 1)
            finally:
                self.left += 1

        self.function = suspended


async def test_suspended_code_is_not_replayed(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    begun: dict[float, int] = {}
    calls: dict[float, int] = {}
    for hold in (60.0, 0.0):
        program = Program()
        async with open_inngest(program.function, hold=hold) as backend:
            assert await backend.invoke(program.function) == 2
        begun[hold], calls[hold] = program.begun, len(engine.calls)
        engine.calls.clear()
    assert begun == {60.0: 1, 0.0: calls[0.0]}
    assert calls[60.0] == calls[0.0], "the engine sees no difference"


@pytest.mark.parametrize("hold", [60.0, 0.0])
async def test_a_step_behind_finally_runs_once_and_in_its_turn(hold: float, open_inngest: OpenInngest) -> None:
    bodies: list[str] = []

    async def body(name: str) -> None:
        bodies.append(name)

    @function("tidy")
    async def tidy(ctx: Context[None]) -> None:
        try:
            await ctx.step.run("one", body, "one")
            await ctx.step.gather(*[lambda n=n: ctx.step.run("work", body, n) for n in ("a", "b")])
            await ctx.step.run("two", body, "two")
        finally:
            await ctx.step.run("clean", body, "clean")

    async with open_inngest(tidy, hold=hold) as backend:
        await backend.invoke(tidy)
    assert [bodies[0], {*bodies[1:3]}, *bodies[3:]] == ["one", {"a", "b"}, "two", "clean"]


async def test_code_that_waits_too_long_is_unwound_and_replayed(
    open_inngest: OpenInngest, engine: InngestEngine
) -> None:
    program = Program()
    async with open_inngest(program.function, hold=0.01) as backend:
        run = await backend.start(program.function)
        while not program.left:  # noqa: ASYNC110  # it is unwound by a timer
            await asyncio.sleep(0.001)
        assert await run.result() == 2
    assert program.begun > 1


async def test_a_backend_that_closes_or_dies_unwinds_code(open_inngest: OpenInngest, engine: InngestEngine) -> None:
    program = Program()
    async with open_inngest(program.function) as backend:
        await backend.start(program.function, run_id="r")
        await engine.rest()
        assert (program.begun, program.left) == (1, 0)
    await asyncio.sleep(0)
    assert program.left == 1
    async with open_inngest(program.function) as backend:
        engine.advance()
        await engine.rest()
        backend.crash(Kill())
        await asyncio.sleep(0)
        with pytest.raises(Kill):
            await (await backend.run("r")).result()
    assert program.left == program.begun
    async with open_inngest(program.function) as backend:
        assert await (await backend.run("r")).result() == 2


async def test_another_worker_may_go_on(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    """Two workers of one app take turns: what one has suspended is out of date when its turn comes again."""
    program = Program()
    async with open_inngest(program.function) as first:
        run = await first.start(program.function)
        await engine.rest()
        async with open_inngest(program.function):  # registered last, it is called from now on
            assert await run.result() == 2
        assert program.left == 1
        assert len(first.suspended) == 1


async def test_a_worker_suspends_a_bounded_number(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    @function("napping")
    async def napping(ctx: Context[None]) -> None:
        await ctx.step.run("first", _echo, 1)
        await ctx.step.sleep("nap", 60)

    async with open_inngest(napping) as backend:
        backend.suspended.limit = 10
        for _ in range(20):
            await backend.start(napping)
        await engine.rest()
        assert len(backend.suspended) == 10


@pytest.mark.parametrize("hold", [60.0, 0.0])
async def test_code_that_swallows_its_unwinding_does_not_end_the_run(hold: float, open_inngest: OpenInngest) -> None:
    bodies: list[str] = []

    async def body(name: str) -> str:
        bodies.append(name)
        return name

    async def work(ctx: Context[None], name: str) -> str:
        try:
            return await ctx.step.run("work", body, name)
        except BaseException:
            return "swallowed"

    @function("swallowing")
    async def swallowing(ctx: Context[None]) -> list[str]:
        both = await ctx.step.gather(lambda: work(ctx, "a"), lambda: work(ctx, "b"))
        return [*both, await work(ctx, "c")]

    async with open_inngest(swallowing, hold=hold) as backend:
        assert await backend.invoke(swallowing) == ["a", "b", "c"]
    assert sorted(bodies) == ["a", "b", "c"]


@pytest.mark.parametrize("hold", [60.0, 0.0])
async def test_what_code_raises_while_it_is_unwound_is_no_failure(hold: float, open_inngest: OpenInngest) -> None:
    bodies: list[int] = []

    async def body(number: int) -> int:
        bodies.append(number)
        return number

    @function("raising", retries=0)
    async def raising(ctx: Context[None]) -> int:
        number = 0
        try:
            number = await ctx.step.run("work", body, 1)
            [number] = await ctx.step.gather(lambda: ctx.step.run("more", body, 2))
        finally:
            if number < 2:
                raise RuntimeError("cut off")
        return number

    async with open_inngest(raising, hold=hold) as backend:
        assert await backend.invoke(raising) == 2
    assert bodies == [1, 2]
