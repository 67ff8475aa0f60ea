"""What goes wrong between Inngest and the app, and the program that must not notice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from durably.core import Context, Event, current_step, function
from durably.core.errors import Signal
from durably.testing.inngest import InngestEngine
from durably.testing.inngest.faults import Where
from tests.inngest.conftest import OpenInngest

FAULTS = ("refuse", "drop_reply", "duplicate", "repeat", "stale")


class Program:
    """Effects behind a ledger, by idempotency key."""

    def __init__(self) -> None:
        self.effects: dict[str, list[str]] = {}
        self.told: set[str | None] = set()
        self.children: set[str] = set()

        async def effect(name: str) -> str:
            self.effects.setdefault(current_step().idempotency_key, []).append(name)
            return name

        @function("faults-child")
        async def child(ctx: Context[str]) -> str:
            self.children.add(ctx.run_id)
            return await ctx.step.run("inner", effect, "inner")

        @function("faults-listener", triggers=["faults/told"])
        async def listener(ctx: Context[Any]) -> None:
            self.told.add(ctx.event.id)

        @function("faults-main", retries=0)
        async def main(ctx: Context[None]) -> list[Any]:
            step = ctx.step
            first = await step.run("first", effect, "first")
            both = await step.gather(
                lambda: step.run("left", effect, "left"), lambda: step.run("right", effect, "right")
            )
            called = await step.invoke("call", child, "x")
            await step.send_event("tell", Event("faults/told", 1))
            await step.sleep("nap", 2)
            return [first, *both, called, await step.run("last", effect, "last")]

        self.main = main
        self.functions = (main, child, listener)


def nth(number: int) -> Where:
    count = -1

    def fits(call: Any) -> bool:
        nonlocal count
        count += 1
        return count == number

    return fits


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("hold", [60.0, 0.0], ids=["suspended", "replayed"])
async def test_a_fault_at_any_call_changes_nothing(fault: str, hold: float, open_inngest: OpenInngest) -> None:
    number = 0
    while True:
        program, engine = Program(), InngestEngine(seed=number, backoff=1.0)
        setattr(engine.faults, fault, nth(number))
        backend = type(open_inngest())(
            engine.client(), program.functions, serve=engine.serve, now=engine.now, poll=0.001, grace=0.5, hold=hold
        )
        async with backend:
            result = await backend.invoke(program.main)
        assert result == ["first", "left", "right", "inner", "last"]
        assert len(program.children) == 1
        assert len(program.told) == 1
        names = Counter(names[0] for names in program.effects.values())
        assert names == Counter(["first", "left", "right", "inner", "last"]), "one key a step"
        assert sum(len(names) for names in program.effects.values()) <= 6, "a call that is made again runs one body"
        if not engine.faults.hit:
            break
        number += 1
    assert number >= 10, "every call was hurt once"


@pytest.mark.asyncio
async def test_a_crash_beside_a_branch_that_has_ended_repeats_only_the_others(
    engine: InngestEngine, open_inngest: OpenInngest
) -> None:
    """What the contract's own test asks of `gather`, at the moment at which Inngest has one of the results."""
    bodies: list[str] = []

    async def body(name: str) -> str:
        bodies.append(name)
        if bodies.count("slow") == 1 and name == "slow":
            (run,) = engine.runs.values()
            while len(run.steps) < 2:  # noqa: ASYNC110  # until both others are kept
                await asyncio.sleep(0)
            first.crash(Kill())
            await asyncio.sleep(60)
        return name

    @function("partly")
    async def partly(ctx: Context[None]) -> list[str]:
        names = ("a", "slow", "c")
        return [*await ctx.step.gather(*[lambda n=n: ctx.step.run("work", body, n) for n in names])]

    first = open_inngest(partly)
    async with first:
        run = await first.start(partly, run_id="r")
        with pytest.raises(Kill):
            await run.result()
    async with open_inngest(partly) as second:
        assert await (await second.run("r")).result() == ["a", "slow", "c"]
    assert Counter(bodies) == {"a": 1, "slow": 2, "c": 1}


class Kill(Signal):
    """The process is gone."""


@pytest.mark.asyncio
async def test_an_answer_that_was_lost_is_one_effect_for_who_looks_at_the_key(
    engine: InngestEngine, open_inngest: OpenInngest
) -> None:
    program = Program()
    engine.faults.drop_reply = nth(0)
    async with open_inngest(*program.functions) as backend:
        await backend.invoke(program.main)
    assert [names for names in program.effects.values() if names[0] == "first"] == [["first", "first"]]
