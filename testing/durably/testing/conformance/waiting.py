"""C19 and C20: sleeping, and waiting for events."""

from __future__ import annotations

import asyncio
from datetime import date
from functools import partial
from typing import Any
from uuid import UUID

from durably.core import Context, Event, function
from durably.core.durations import LATEST, LONGEST
from durably.testing.conformance.subject import Subject, at
from durably.testing.conformance.suite import clause


async def _echo(value: Any) -> Any:
    return value


@clause
async def test_c19_a_crash_does_not_make_a_sleep_longer(subject: Subject) -> None:
    unit = subject.unit

    @function("sleeper")
    async def sleeper(ctx: Context[None]) -> None:
        step = ctx.step

        async def meanwhile() -> None:
            await step.sleep("half", 2 * unit)
            await step.run("work", _echo, 1)

        await step.gather(lambda: step.sleep("long", 4 * unit), meanwhile)

    async with subject.open([]) as backend:
        start = subject.now(backend)
    assert await subject.crash(sleeper, where=at("before_body", "gather[1]/work"))
    async with subject.open([sleeper]) as backend:
        await (await backend.start(sleeper, run_id=subject.run_id())).result()
        took = subject.now(backend) - start
    assert 4 * unit <= took < 5.5 * unit, f"the sleep of {4 * unit:g} s took {took:g} s"


@clause
async def test_c19_a_sleep_never_ends_early(subject: Subject) -> None:
    unit = subject.unit
    woken: dict[str, float] = {}

    async with subject.open([]) as backend:
        start = subject.now(backend)

    @function("sleeper")
    async def sleeper(ctx: Context[None]) -> None:
        await ctx.step.sleep("first", unit)
        woken.setdefault("first", subject.now(backend) - start)  # replayed, the moment is a later one
        await ctx.step.sleep_until("second", start + 2 * unit)
        woken.setdefault("second", subject.now(backend) - start)
        await ctx.step.sleep_until("past", start - unit)
        await ctx.step.sleep("none", 0)

    async with subject.open([sleeper]) as backend:
        await backend.invoke(sleeper)
    assert woken["first"] >= unit
    assert woken["second"] >= 2 * unit


@clause
async def test_c19_the_farthest_times_are_taken(subject: Subject) -> None:
    """A sleep of ten years, a sleep and an event until the year 9999: what is allowed does not end early anywhere."""
    passes: set[str] = set()
    ended: list[str] = []

    async def note(name: str) -> None:
        ended.append(name)

    @function("patient", triggers=["c19/far"])
    async def patient(ctx: Context[None]) -> None:
        passes.add(ctx.run_id)

        async def years() -> None:
            await ctx.step.sleep("years", LONGEST)
            await ctx.step.run("note", note, "years")

        async def ages() -> None:
            await ctx.step.sleep_until("ages", LATEST)
            await ctx.step.run("note", note, "ages")

        async def soon() -> None:
            await ctx.step.sleep("soon", subject.unit)
            await ctx.step.run("note", note, "soon")

        await ctx.step.gather(years, ages, soon)

    @function("bystander")
    async def bystander(ctx: Context[None]) -> None:
        await ctx.step.sleep("nap", 2 * subject.unit)

    async with subject.open([patient, bystander]) as backend:
        await backend.send(Event("c19/far", ts=LATEST))
        run = await backend.start(patient, run_id=subject.run_id())
        await backend.invoke(bystander)
        await subject.until(lambda: bool(ended))
        assert not (await run.refresh()).status.final
        await run.cancel()
        await subject.until_ended(run)
    assert ended == ["soon"]
    assert passes == {run.id}


@clause
async def test_c20_the_first_event_that_matches(subject: Subject) -> None:
    registered = asyncio.Event()

    @function("waiter")
    async def waiter(ctx: Context[None]) -> list[Any]:
        async def tell() -> None:
            registered.set()

        event, _ = await ctx.step.gather(
            lambda: ctx.step.wait_for_event("reply", "c20/reply", match={"order.id": 7}),
            lambda: ctx.step.run("tell", tell),
        )
        assert event is not None
        return [event.name, event.data["text"]]

    async with subject.open([waiter]) as backend:
        run = await backend.start(waiter)
        await registered.wait()
        await backend.send(Event("c20/other", {"order": {"id": 7}, "text": "another name"}))
        await backend.send(Event("c20/reply", {"order": {"id": 8}, "text": "another order"}))
        await backend.send(Event("c20/reply", None))
        await backend.send(Event("c20/reply", {"order": {"id": 7}, "text": "first"}))
        await backend.send(Event("c20/reply", {"order": {"id": 7}, "text": "second"}))
        assert await run.result() == ["c20/reply", "first"]


@clause
async def test_c20_match_tells_values_apart_as_json_does(subject: Subject) -> None:
    registered = asyncio.Event()
    day, order = date(2030, 1, 31), UUID(int=7)
    matches: list[dict[str, Any]] = [{"flag": True}, {"flag": 1}, {"gone": None}, {"flags": [False]}]
    matches += [{"day": day}, {"orders": {order: (1, 2)}}]  # what JSON writes as something else is compared as that

    @function("waiter")
    async def waiter(ctx: Context[None]) -> list[int]:
        async def tell() -> None:
            registered.set()

        *events, _ = await ctx.step.gather(
            *(partial(ctx.step.wait_for_event, "reply", "c20/typed", match=match) for match in matches),
            lambda: ctx.step.run("tell", tell),
        )
        return [event.data["number"] for event in events if event is not None]

    async with subject.open([waiter]) as backend:
        run = await backend.start(waiter)
        await registered.wait()
        await backend.send(Event("c20/typed", {"number": 0, "flag": 1, "flags": [0]}))
        await backend.send(Event("c20/typed", {"number": 1, "flag": True, "flags": [False]}))
        await backend.send(Event("c20/typed", {"number": 2, "gone": None}))
        await backend.send(Event("c20/typed", {"number": 3, "day": day, "orders": {str(order): [1, 2]}}))
        assert await run.result() == [1, 0, 2, 1, 3, 3]


@clause
async def test_c20_a_wait_is_registered_before_what_stands_beside_it(subject: Subject) -> None:
    @function("asker")
    async def asker(ctx: Context[None]) -> list[str]:
        step, replies = ctx.step, []
        for turn in range(6):
            branches = [
                lambda: step.wait_for_event("reply", "c20/beside", match={"run": ctx.run_id}, timeout=subject.unit),
                lambda: step.send_event("ask", Event("c20/beside", {"run": ctx.run_id})),
            ]
            outcomes = await step.gather(*(reversed(branches) if turn % 2 else branches))
            replies.append(type(outcomes[turn % 2]).__name__)
        return replies

    result, _ = await subject.run(asker)
    assert result == ["Event"] * 6, "whichever branch stands first"


@clause
async def test_c20_events_from_before_the_wait_do_not_count(subject: Subject) -> None:
    @function("waiter")
    async def waiter(ctx: Context[None]) -> bool:
        await ctx.step.run("begin", _echo, 1)
        await ctx.step.send_event("early", Event("c20/early", "too early"))
        return await ctx.step.wait_for_event("reply", "c20/early", timeout=subject.unit / 4) is None

    async with subject.open([waiter]) as backend:
        await backend.send(Event("c20/early", "much too early"))
    result, _ = await subject.run(waiter)
    assert result is True


@clause
async def test_c20_none_at_the_timeout_and_not_before(subject: Subject) -> None:
    unit = subject.unit
    ended: list[float] = []

    @function("waiter")
    async def waiter(ctx: Context[None]) -> None:
        event = await ctx.step.wait_for_event("reply", "c20/never", timeout=unit)
        assert event is None
        ended.append(subject.now(backend))

    async with subject.open([waiter]) as backend:
        start = subject.now(backend)
        await backend.invoke(waiter)
    assert start + unit <= ended[0] < start + 4 * unit


@clause
async def test_c20_an_event_while_the_worker_is_down_is_not_lost(subject: Subject) -> None:
    @function("waiter")
    async def waiter(ctx: Context[None]) -> str:
        event, _ = await ctx.step.gather(
            lambda: ctx.step.wait_for_event("reply", "c20/down"), lambda: ctx.step.run("told", _echo, 1)
        )
        assert event is not None
        return await ctx.step.run("last", _echo, event.data)

    assert await subject.crash(waiter, where=at("after_commit", "gather[1]/told"))
    async with subject.open([]) as backend:
        await backend.send(Event("c20/down", "while you were out"))
    assert await subject.crash(waiter, where=at("before_body", "last"))
    result, _ = await subject.run(waiter)
    assert result == "while you were out"


@clause
async def test_c20_each_waiter_gets_the_event_once(subject: Subject) -> None:
    waiting: set[str] = set()

    @function("waiter")
    async def waiter(ctx: Context[None]) -> list[Any]:
        async def tell() -> None:
            waiting.add(ctx.run_id)

        first, _ = await ctx.step.gather(
            lambda: ctx.step.wait_for_event("reply", "c20/all"), lambda: ctx.step.run("tell", tell)
        )
        assert first is not None
        second = await ctx.step.wait_for_event("reply", "c20/all", timeout=subject.unit / 4)
        return [first.data, second is None]

    async with subject.open([waiter]) as backend:
        runs = [await backend.start(waiter) for _ in range(2)]
        await subject.until(lambda: len(waiting) == 2)
        await backend.send(Event("c20/all", "to all"))
        assert [await run.result() for run in runs] == [["to all", True]] * 2
