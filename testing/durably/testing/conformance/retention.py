"""What stays when finished runs are forgotten: C06, C16, C17 and C20."""

from __future__ import annotations

from typing import Any

from durably.core import Backend, Context, Event, Function, RunNotFoundError, RunStatus, function
from durably.core.errors import UnsupportedFeatureError
from durably.core.retention import EVENT_MEMORY, Pruned
from durably.testing.conformance.subject import Subject, at
from durably.testing.conformance.suite import clause


async def _echo(value: Any) -> Any:
    return value


@function("prune-clock")
async def _pass_time(ctx: Context[float]) -> None:
    await ctx.step.sleep("pass", ctx.input)


async def _refused(subject: Subject) -> bool:
    """Whether the engine has declared that it does not forget; it must refuse to, then."""
    async with subject.open([_pass_time]) as backend:
        if "retention" not in backend.capabilities.gaps:
            return False
        try:
            await backend.prune(keep=0)
        except UnsupportedFeatureError:
            return True
        raise AssertionError("prune() is a declared gap, and is not refused")


async def _is_there(backend: Backend, run_id: str) -> bool:
    try:
        await backend.run(run_id)
    except RunNotFoundError:
        return False
    return True


@clause
async def test_c06_finished_runs_are_forgotten_and_live_ones_go_on(subject: Subject) -> None:
    @function("prune-quick")
    async def quick(ctx: Context[int]) -> int:
        return await ctx.step.run("work", _echo, ctx.input)

    @function("prune-live")
    async def live(ctx: Context[None]) -> str:
        await ctx.step.run("work", _echo, 1)
        event = await ctx.step.wait_for_event("wait", "prune/go")
        return "nobody" if event is None else str(event.at("who"))

    if await _refused(subject):
        return
    async with subject.open([quick, live, _pass_time]) as backend:
        waiting = await backend.start(live, run_id=subject.run_id(9))
        for number in range(4):
            await (await backend.start(quick, number, run_id=subject.run_id(number))).result()
        await backend.invoke(_pass_time, subject.unit)
        gone = await backend.prune(keep=1)
        assert gone.runs == 3
        assert gone.records == 3 * 3
        found = [await _is_there(backend, subject.run_id(number)) for number in (*range(4), 9)]
        assert found == [False, False, False, True, True], "the newest of its function stays, and what is live"
        assert await backend.prune(older_than=10 * subject.unit) == Pruned()
        again = await backend.start(quick, 7, run_id=subject.run_id(0))
        assert await again.result() == 7, "the id of a run that was forgotten is free again"
        await backend.send(Event("prune/go", {"who": "me"}))
        assert await waiting.result() == "me"
    async with subject.open([quick, live, _pass_time]) as backend:
        assert [record.key for record in (await (await backend.run(subject.run_id(9))).history()).steps()] == [
            "work",
            "wait",
        ]


@clause
async def test_c16_a_run_that_is_waited_for_is_not_forgotten(subject: Subject) -> None:
    began: list[str] = []

    @function("prune-child")
    async def child(ctx: Context[None]) -> str:
        began.append(ctx.run_id)
        return await ctx.step.run("work", _echo, "the child's")

    @function("prune-parent")
    async def parent(ctx: Context[None]) -> str:
        return await ctx.step.invoke("call", child)

    if await _refused(subject):
        return
    functions: list[Function[Any, Any]] = [parent, child, _pass_time]
    # The child ends, and its parent dies before it has written down what the child returned.
    assert await subject.crash(*functions, where=at("child_done", "call"))
    async with subject.open([child, _pass_time]) as backend:  # nobody here serves the parent
        await backend.invoke(_pass_time, subject.unit)
        await backend.prune(older_than=0)
        assert await _is_there(backend, began[0]), "its parent still asks for it"
    async with subject.open(functions) as backend:
        assert await (await backend.run(subject.run_id())).result() == "the child's"
        await backend.invoke(_pass_time, subject.unit)
        await backend.prune(older_than=0)
        assert not await _is_there(backend, began[0])
    assert len(set(began)) == 1


@clause
async def test_c17_an_event_is_remembered_for_a_day_after_its_runs_are_forgotten(subject: Subject) -> None:
    started: list[str] = []

    @function("prune-listener", triggers=["prune/told"])
    async def listener(ctx: Context[None]) -> None:
        started.append(ctx.run_id)

    event = Event("prune/told", id=f"told-{subject.token}")
    if await _refused(subject):
        return
    async with subject.open([listener, _pass_time]) as backend:
        await backend.send(event)
        await backend.invoke(_pass_time, EVENT_MEMORY / 2)
        assert len(started) == 1
        gone = await backend.prune(keep=0)
        assert gone.runs
        assert not await _is_there(backend, started[0])
        await backend.send(event)
        await backend.invoke(_pass_time, subject.unit)
        assert len(started) == 1, "the same event, handed over again, started its function again"
        await backend.send(Event("prune/other"))  # the newest event marks the place in the log, and stays
        await backend.invoke(_pass_time, EVENT_MEMORY)
        assert (await backend.prune(keep=0)).events == 1
        await backend.send(event)
        await backend.invoke(_pass_time, subject.unit)
        assert len(started) == 2, "the memory of an event ends, as was said"


@clause
async def test_c20_an_event_that_a_run_still_waits_for_is_not_forgotten(subject: Subject) -> None:
    @function("prune-waiter")
    async def waiter(ctx: Context[None]) -> str:
        event = await ctx.step.wait_for_event("wait", "prune/answer")
        return "nobody" if event is None else str(event.at("who"))

    if await _refused(subject):
        return
    assert await subject.crash(waiter, _pass_time, where=at("registered", "wait"))
    async with subject.open([_pass_time]) as backend:  # nobody here serves the waiter: the event finds it later
        await backend.send(Event("prune/other"))
        await backend.send(Event("prune/answer", {"who": "me"}))
        await backend.send(Event("prune/other"))
        await backend.invoke(_pass_time, 2 * EVENT_MEMORY)
        assert (await backend.prune(keep=0)).events == 1, "the one that nobody waits for"
    async with subject.open([waiter, _pass_time]) as backend:
        run = await backend.run(subject.run_id())
        assert await run.result() == "me"
        assert run.status is RunStatus.COMPLETED
