"""C21 and C22: cancelling, and singletons."""

from __future__ import annotations

import asyncio
from typing import Any

from durably.core import Context, Event, RunCancelledError, RunStatus, Singleton, function
from durably.testing.conformance.subject import Subject
from durably.testing.conformance.suite import clause


async def _echo(value: Any) -> Any:
    return value


@clause
async def test_c21_a_cancelled_run_stops_at_its_next_step(subject: Subject) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    later: list[str] = []

    async def work() -> str:
        begun.set()
        await go_on.wait()
        return "done"

    async def more() -> None:
        later.append("more")

    @function("cancelled")
    async def cancelled(ctx: Context[None]) -> str:
        await ctx.step.run("work", work)
        await ctx.step.run("more", more)
        return "completed"

    async with subject.open([cancelled]) as backend:
        run = await backend.start(cancelled, run_id=subject.run_id())
        await begun.wait()
        await run.cancel()
        assert run.status is RunStatus.CANCELLED
        go_on.set()
        try:
            raise AssertionError(f"a cancelled run returned {await run.result()!r}")
        except RunCancelledError:
            before = await run.history()
        await run.cancel()
    async with subject.open([cancelled]) as backend:
        again = await backend.start(cancelled, run_id=subject.run_id())
        assert again.status is RunStatus.CANCELLED, "it stays cancelled"
        assert await again.history() == before, "nothing is written after the end"
    assert before.status == "cancelled"
    assert not later


@clause
async def test_c21_cancelling_a_run_cancels_its_children_and_timers(subject: Subject) -> None:
    children: dict[str, str] = {}
    later: list[str] = []

    async def body(name: str) -> None:
        later.append(name)

    @function("grandchild")
    async def grandchild(ctx: Context[None]) -> None:
        children["grandchild"] = ctx.run_id
        await ctx.step.sleep("nap", subject.unit)
        await ctx.step.run("later", body, "grandchild")

    @function("child")
    async def child(ctx: Context[None]) -> None:
        children["child"] = ctx.run_id
        await ctx.step.invoke("call", grandchild)
        await ctx.step.run("later", body, "child")

    @function("parent")
    async def parent(ctx: Context[None]) -> None:
        await ctx.step.invoke("call", child)
        await ctx.step.run("later", body, "parent")

    @function("bystander")
    async def bystander(ctx: Context[None]) -> None:
        await ctx.step.sleep("nap", 2 * subject.unit)

    async with subject.open([parent, child, grandchild, bystander]) as backend:
        run = await backend.start(parent)
        await subject.until(lambda: len(children) == 2)
        await run.cancel()
        for run_id in children.values():
            family = await backend.run(run_id)
            await subject.until_ended(family)
            assert family.status is RunStatus.CANCELLED
        await backend.invoke(bystander)
    assert not later


@clause
async def test_c21_a_cancelled_run_calls_off_what_it_waits_for(subject: Subject) -> None:
    called_off: list[str] = []
    reached: list[str] = []

    async def call_off(what: str) -> None:
        called_off.append(what)

    @function("c21-waits")
    async def waits(ctx: Context[str]) -> None:
        with ctx.step.if_cancelled(call_off, f"{ctx.input}, done before"):
            await ctx.step.run("work", _echo, "done")
        with ctx.step.if_cancelled(call_off, ctx.input):
            reached.append(ctx.input)
            await ctx.step.sleep("nap", 0 if ctx.input == "calm" else 100 * subject.unit)

    async with subject.open([waits]) as backend:
        await backend.invoke(waits, "calm")
        run = await backend.start(waits, "cut off")
        await subject.until(lambda: "cut off" in reached)
        await run.cancel()
        await subject.until_ended(run)
        await subject.until(lambda: bool(called_off))
        before = await run.history()
    assert called_off == ["cut off"]
    assert "call_off" not in before.to_jsonl(), "it leaves no record"


@clause
async def test_c21_a_run_that_has_ended_cannot_be_cancelled(subject: Subject) -> None:
    @function("quick")
    async def quick(ctx: Context[None]) -> str:
        return await ctx.step.run("work", _echo, "done")

    async with subject.open([quick]) as backend:
        run = await backend.start(quick)
        assert await run.result() == "done"
        before = await run.history()
        await run.cancel()
        assert run.status is RunStatus.COMPLETED
        assert await run.result() == "done"
        assert await run.history() == before


@clause
async def test_c22_singleton_cancel_ends_the_older_run(subject: Subject) -> None:
    statuses, results = await _three_runs(subject, "cancel")
    assert statuses == [RunStatus.CANCELLED, RunStatus.COMPLETED, RunStatus.COMPLETED]
    assert results == ["second", "other"]


@clause
async def test_c22_singleton_skip_drops_the_newer_run(subject: Subject) -> None:
    statuses, results = await _three_runs(subject, "skip")
    assert statuses == [RunStatus.COMPLETED, RunStatus.SKIPPED, RunStatus.COMPLETED]
    assert results == ["first", "other"]


async def _three_runs(subject: Subject, mode: Any) -> tuple[list[RunStatus], list[str]]:
    """Two runs of one key and one of another, live at the same time; then a second one of the first key."""
    ended: list[str] = []

    async def note(name: str) -> None:
        ended.append(name)

    @function("alone", singleton=Singleton("user.id", mode=mode))
    async def alone(ctx: Context[dict[str, Any]]) -> None:
        await ctx.step.sleep("nap", subject.unit / 2)
        await ctx.step.run("note", note, ctx.input["name"])

    inputs = [{"user": {"id": 1 + (name == "other")}, "name": name} for name in ("first", "second", "other")]
    async with subject.open([alone]) as backend:
        runs = [await backend.start(alone, each) for each in inputs]
        for run in runs:
            await subject.until_ended(run)
        results = list(ended)
        await (await backend.start(alone, inputs[0])).result()  # nothing is live any more: neither rule applies
        assert ended == [*results, "first"]
    return [run.status for run in runs], sorted(results, key=["first", "second", "other"].index)


@clause
async def test_c22_singleton_holds_for_runs_started_by_events(subject: Subject) -> None:
    ended: list[str] = []

    async def note(name: str) -> None:
        ended.append(name)

    @function("alone", triggers=["c22/message"], singleton=Singleton("chat"))
    async def alone(ctx: Context[dict[str, Any]]) -> None:
        await ctx.step.sleep("nap", subject.unit / 2)
        await ctx.step.run("note", note, ctx.input["text"])

    @function("bystander")
    async def bystander(ctx: Context[None]) -> None:
        await ctx.step.sleep("nap", subject.unit)

    async with subject.open([alone, bystander]) as backend:
        for text in ("one", "two", "three"):
            await backend.send(Event("c22/message", {"chat": 1, "text": text}))
        await backend.invoke(bystander)
    assert ended == ["three"]
