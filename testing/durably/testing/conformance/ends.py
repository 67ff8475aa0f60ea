"""C16 to C22: what an end reaches, and what it does not."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from durably.core import (
    Context,
    Event,
    FunctionRef,
    NonRetriableError,
    RetryPolicy,
    RunStatus,
    Singleton,
    function,
)
from durably.core.flow import Throttle
from durably.testing.conformance.flow_control import bystander, opened
from durably.testing.conformance.subject import Subject
from durably.testing.conformance.suite import clause


@clause
async def test_c21_a_cancelled_run_does_nothing_more_wherever_it_waited(subject: Subject) -> None:
    reached: set[str] = set()
    later: list[str] = []

    async def note(name: str) -> None:
        later.append(name)

    async def fail() -> None:
        if "attempt" in reached:
            later.append("another attempt")
        reached.add("attempt")
        raise ConnectionError("down")

    @function("waits", retry_policy=RetryPolicy(initial=subject.unit, jitter=0))
    async def waits(ctx: Context[str]) -> None:
        step = ctx.step
        if ctx.input != "attempt":
            reached.add(ctx.input)
        if ctx.input == "sleep":
            await step.sleep("nap", subject.unit)
        elif ctx.input == "event":
            await step.wait_for_event("reply", "c21/reply", timeout=subject.unit)
        elif ctx.input == "branches":
            await step.gather(lambda: step.sleep("nap", subject.unit), lambda: step.sleep("nap", 2 * subject.unit))
        else:
            await step.run("down", fail)
        await step.run("later", note, ctx.input)

    async with subject.open([waits, bystander]) as backend:
        with subject.still():
            runs = [await backend.start(waits, data) for data in ("sleep", "event", "branches", "attempt")]
            await subject.until(lambda: len(reached) == 4)
            for run in runs:
                await run.cancel()
                await subject.until_ended(run)
            ends = [await run.history() for run in runs]
            await backend.send(Event("c21/reply"))
        await backend.invoke(bystander, 3 * subject.unit)
        assert [(await run.refresh()).status for run in runs] == [RunStatus.CANCELLED] * 4
        assert [await run.history() for run in runs] == ends
    assert later == []


@clause
async def test_c21_cancelling_spares_what_the_run_does_not_wait_for(subject: Subject) -> None:
    begun: set[str] = set()
    ended: list[str] = []

    async def end(name: str) -> None:
        ended.append(name)

    @function("listener", triggers=["c21/told"])
    async def listener(ctx: Context[Any]) -> None:
        begun.add("listener")
        await ctx.step.sleep("nap", subject.unit)
        await ctx.step.run("end", end, "listener")

    @function("sender")
    async def sender(ctx: Context[str]) -> None:
        if ctx.input == "cancelled":
            await ctx.step.send_event("tell", Event("c21/told"))
        begun.add(ctx.input)
        await ctx.step.sleep("nap", subject.unit)
        await ctx.step.run("end", end, ctx.input)

    async with subject.open([sender, listener, bystander]) as backend:
        with subject.still():
            runs = [await backend.start(sender, data) for data in ("beside", "cancelled")]
            await subject.until(lambda: begun == {"listener", "beside", "cancelled"})
            await runs[1].cancel()
        await runs[0].result()
        await backend.invoke(bystander, 2 * subject.unit)
    assert sorted(ended) == ["beside", "listener"]


@clause
async def test_c21_a_run_can_be_cancelled_by_another_worker(subject: Subject) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    later: list[str] = []

    async def work() -> None:
        begun.set()
        await go_on.wait()

    async def more() -> None:
        later.append("more")

    @function("held")
    async def held(ctx: Context[None]) -> None:
        await ctx.step.run("work", work)
        await ctx.step.run("more", more)

    async with subject.open([held]) as holder:
        run = await holder.start(held, run_id=subject.run_id())
        await begun.wait()
        async with subject.open([]) as other:
            await (await other.run(run.id)).cancel()
        go_on.set()
        await subject.until_ended(run)
        assert run.status is RunStatus.CANCELLED
    assert later == []


@clause
async def test_c22_a_run_that_another_rule_let_in_waits_for_its_turn(subject: Subject) -> None:
    said: list[str] = []

    async def say(text: str) -> None:
        said.append(text)

    period = float(math.ceil(subject.unit))
    rules: dict[str, Any] = {
        "singleton": Singleton("user", mode="queue"),
        "throttle": Throttle(limit=1, period=period, key="user"),
    }

    @function("both", **rules)
    async def both(ctx: Context[dict[str, str]]) -> None:
        await ctx.step.run("begin", say, f"{ctx.input['name']} begins")
        await ctx.step.sleep("nap", 4 * period)
        await ctx.step.run("end", say, f"{ctx.input['name']} ends")

    async with opened(subject, both) as backend:
        runs = [await backend.start(both, {"user": "ann", "name": name}) for name in "abc"]
        for run in runs:
            await run.result()
    assert said == [f"{name} {what}" for name in "abc" for what in ("begins", "ends")]


@clause
async def test_c22_the_rule_holds_for_starts_by_a_worker_that_serves_something_else(subject: Subject) -> None:
    ended: list[str] = []

    async def end(name: str) -> None:
        ended.append(name)

    @function("alone", singleton=Singleton("user", mode="skip"))
    async def alone(ctx: Context[dict[str, str]]) -> None:
        await ctx.step.sleep("nap", subject.unit / 2)
        await ctx.step.run("end", end, ctx.input["name"])

    elsewhere: FunctionRef[Any, Any] = FunctionRef("alone")
    async with subject.open([alone]):
        pass  # from now on its rule is known
    async with subject.open([bystander]) as backend:
        runs = [await backend.start(elsewhere, {"user": "ann", "name": name}) for name in ("first", "second")]
    async with subject.open([alone]) as backend:
        runs = [await backend.run(run.id) for run in runs]
        for run in runs:
            await subject.until_ended(run)
        assert [run.status for run in runs] == [RunStatus.COMPLETED, RunStatus.SKIPPED]
    assert ended == ["first"]


@clause
async def test_c22_queue_goes_on_however_the_run_before_ended(subject: Subject) -> None:
    begun: list[str] = []

    async def begin(name: str) -> None:
        begun.append(name)

    @function("one-by-one", singleton=Singleton("user", mode="queue"), retries=0)
    async def one_by_one(ctx: Context[dict[str, str]]) -> None:
        name = ctx.input["name"]
        await ctx.step.run("begin", begin, name)
        if name == "fails":
            raise NonRetriableError("as asked")
        if name == "cancelled":
            await ctx.step.wait_for_event("for-ever", "c22/never")

    async with opened(subject, one_by_one) as backend:
        names = ("fails", "cancelled", "completes", "last")
        runs = [await backend.start(one_by_one, {"user": "ann", "name": name}) for name in names]
        await subject.until(lambda: "cancelled" in begun)
        await runs[1].cancel()
        for run in runs:
            await subject.until_ended(run)
    assert begun == list(names)


@clause
async def test_c20_of_several_events_the_first_counts_also_while_the_worker_is_down(subject: Subject) -> None:
    registered = asyncio.Event()

    @function("waiter")
    async def waiter(ctx: Context[None]) -> Any:
        async def tell() -> None:
            registered.set()

        event, _ = await ctx.step.gather(
            lambda: ctx.step.wait_for_event("reply", "c20/order", match={"fits": True}),
            lambda: ctx.step.run("tell", tell),
        )
        return event and event.data["number"]

    with subject.still():
        async with subject.open([waiter]) as backend:
            await backend.start(waiter, run_id=subject.run_id())
            await registered.wait()
    async with subject.open([]) as backend:
        for number, fits in enumerate((False, True, True)):
            await backend.send(Event("c20/order", {"number": number, "fits": fits}))
    result, _ = await subject.run(waiter)
    assert result == 1


@clause
async def test_c17_the_ids_stand_in_the_order_of_the_events(subject: Subject) -> None:
    told: dict[str | None, str] = {}
    names = [f"{number}" for number in range(3)]

    @function("listener", triggers=["c17/ordered"])
    async def listener(ctx: Context[str]) -> None:
        told[ctx.event.id] = ctx.input

    @function("sender")
    async def sender(ctx: Context[None]) -> list[str]:
        return await ctx.step.send_event("tell", *[Event("c17/ordered", name) for name in names])

    async with subject.open([sender, listener]) as backend:
        ids = await backend.invoke(sender)
        await subject.until(lambda: len(told) == len(names))
        assert [told[each] for each in ids] == names
        own = f"own-{subject.token}"
        sent = await backend.send(Event("c17/ordered", "own", id=own), Event("c17/ordered", "named"))
        await subject.until(lambda: len(told) == len(names) + 2)
    assert sent[0] == own
    assert [told[each] for each in sent] == ["own", "named"], "from outside a run likewise"
