"""C06, C08 and C09: crashes everywhere, two workers with one run, and code that changed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from typing import Any

from durably.core import Context, Event, Function, InvokeError, NonDeterminismError, RunStatus, function
from durably.core.steps import Point
from durably.testing.conformance.subject import Subject, at, keys, nth
from durably.testing.conformance.suite import RefusedError, clause


async def _echo(value: Any) -> Any:
    return value


class _World:
    """What the effects of a program with every primitive did, by run."""

    def __init__(self, subject: Subject) -> None:
        self.effects: dict[str, Counter[str]] = {}
        self.replies: dict[str, set[str | None]] = {}
        self.children: dict[str, set[str]] = {}
        unit = subject.unit

        async def effect(run: str, name: str) -> str:
            self.effects.setdefault(run, Counter())[name] += 1
            return name

        @function("c06-child")
        async def child(ctx: Context[str]) -> str:
            self.children.setdefault(ctx.input, set()).add(ctx.run_id)
            await ctx.step.run("inner", effect, ctx.input, "inner")
            return "child"

        @function("c06-answer", triggers=["c06/question"])
        async def answer(ctx: Context[str]) -> None:
            self.replies.setdefault(ctx.input, set()).add(ctx.event.id)
            await ctx.step.send_event("reply", Event("c06/answer", {"run": ctx.input, "text": "yes"}))

        @function("c06-everything")
        async def everything(ctx: Context[None]) -> list[Any]:
            step, run = ctx.step, ctx.run_id
            found = [await step.run("first", effect, run, "first")]
            found += await step.gather(
                lambda: step.run("left", effect, run, "left"), lambda: step.invoke("call", child, run)
            )
            await step.sleep("nap", unit / 10)
            reply, _ = await step.gather(
                lambda: step.wait_for_event("reply", "c06/answer", match={"run": run}),
                lambda: step.send_event("ask", Event("c06/question", run)),
            )
            assert reply is not None
            return [*found, reply.data["text"], await step.run("last", effect, run, "last")]

        self.functions = (everything, child, answer)

    def check(self, run: str, result: Any, crashes: int) -> None:
        assert result == ["first", "left", "child", "yes", "last"]
        effects = self.effects[run]
        assert set(effects) == {"first", "left", "inner", "last"}, "no effect is lost"
        assert effects.total() <= 4 + crashes * 2, f"too many executions: {effects}"
        assert len(self.replies[run]) == 1, "the question is one event, whatever crashes"
        assert len(self.children[run]) == 1


@clause
async def test_c06_a_crash_at_any_point_changes_nothing(subject: Subject) -> None:
    world = _World(subject)
    passed = Counter[str]()
    number = 0
    while True:
        point = await subject.crash(*world.functions, where=nth(number), number=number)
        result, history = await subject.run(*world.functions, number=number)
        world.check(subject.run_id(number), result, 1)
        assert history.status == "completed"
        assert len(set(keys(history))) == len(keys(history)) == 7
        if point is None:
            break
        passed[point.name] += 1
        number += 1
    assert {"before_body", "after_effect", "after_commit"} <= set(passed), "the backend passes the points of a step"


@clause
async def test_c06_a_crash_during_recovery_changes_nothing(subject: Subject) -> None:
    world = _World(subject)
    number = 0
    while await subject.crash(*world.functions, where=nth(number), number=number):
        for again in (number // 2, 0):
            await subject.crash(*world.functions, where=nth(again), number=number)
        result, _ = await subject.run(*world.functions, number=number)
        world.check(subject.run_id(number), result, 3)
        number += 3


@clause
async def test_c06_a_run_goes_on_by_itself(subject: Subject) -> None:
    done: list[str] = []

    async def body() -> None:
        done.append("b")

    @function("alone")
    async def alone(ctx: Context[None]) -> str:
        await ctx.step.run("a", _echo, 1)
        await ctx.step.run("b", body)
        return "ended"

    assert await subject.crash(alone, where=at("after_commit", "a"))
    async with subject.open([alone]) as backend:
        await subject.until(lambda: bool(done))
        assert await (await backend.run(subject.run_id())).result() == "ended"


@clause
async def test_c06_an_orderly_stop_loses_nothing(subject: Subject) -> None:
    bodies: list[str] = []
    begun = asyncio.Event()

    async def slow(name: str) -> str:
        begun.set()
        await asyncio.sleep(0.01)
        bodies.append(name)
        return name

    @function("stopped")
    async def stopped(ctx: Context[None]) -> list[str]:
        return [await ctx.step.run(name, slow, name) for name in ("a", "b")]

    async with subject.open([stopped]) as backend:
        await backend.start(stopped, run_id=subject.run_id())
        await begun.wait()
    assert bodies == ["a"], "a body that runs is let end, and no further one begins"
    result, _ = await subject.run(stopped)
    assert result == ["a", "b"]
    assert bodies == ["a", "b"]


@clause
async def test_c08_a_worker_that_lost_its_run_cannot_write(subject: Subject) -> None:
    bodies: list[str] = []
    begun, pause = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        me = "second" if bodies else "first"
        bodies.append(me)
        if me == "first":
            begun.set()
            await pause.wait()
        return me

    @function("fenced")
    async def fenced(ctx: Context[None]) -> list[str]:
        value = await ctx.step.run("work", work)
        return [value, await ctx.step.run("after", _echo, "after")]

    async with subject.open([fenced]) as stale:
        await stale.start(fenced, run_id=subject.run_id())
        await begun.wait()
        await subject.expire(stale)
        async with subject.open([fenced]) as owner:
            run = await owner.run(subject.run_id())
            assert await run.result() == ["second", "after"]
            before = await run.history()
            pause.set()
    async with subject.open([]) as backend:
        history = await (await backend.run(subject.run_id())).history()
    assert history == before, "what the stale worker wrote late was refused"
    assert bodies == ["first", "second"]


@clause
async def test_c08_two_workers_cannot_mix_their_records(subject: Subject) -> None:
    bodies: list[str] = []
    begun, pause, taken, rest = (asyncio.Event() for _ in range(4))

    async def work() -> str:
        bodies.append("first" if not bodies else "second")
        if len(bodies) == 1:
            begun.set()
            await pause.wait()
            return "first"
        taken.set()
        await rest.wait()
        return "second"

    @function("mixed")
    async def mixed(ctx: Context[None]) -> list[str]:
        return [await ctx.step.run("work", work), await ctx.step.run("more", _echo, "more")]

    async with subject.open([mixed]) as stale:
        await stale.start(mixed, run_id=subject.run_id())
        await begun.wait()
        await subject.expire(stale)
        async with subject.open([mixed]) as owner:
            await taken.wait()
            pause.set()  # the stale worker commits first, while the owner's body still runs
            await asyncio.sleep(0.05)
            rest.set()
            run = await owner.run(subject.run_id())
            assert await run.result() == ["second", "more"]
            history = await run.history()
    assert [record.value for record in history.steps()] == ["second", "more"]
    assert [record.seq for record in history] == list(range(len(history)))


class _Pause:
    """A worker that stops right before the body of ``work``, once, until it is told to go on."""

    def __init__(self) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    def __call__(self, point: Point) -> Awaitable[Any] | None:
        if (point.name, point.key) != ("before_body", "work") or self.reached.is_set():
            return None
        self.reached.set()
        return self.go_on.wait()


@clause
async def test_c08_a_worker_that_wakes_after_its_lease_begins_no_body(subject: Subject) -> None:
    bodies: list[str] = []
    pause = _Pause()

    async def work() -> str:
        bodies.append("stale" if pause.go_on.is_set() else "owner")
        return "done"

    @function("woken")
    async def woken(ctx: Context[None]) -> str:
        return await ctx.step.run("work", work)

    async with subject.open([woken]) as stale:
        stale.probe = pause
        await stale.start(woken, run_id=subject.run_id())
        await pause.reached.wait()
        await subject.expire(stale)
        async with subject.open([woken]) as owner:
            assert await (await owner.run(subject.run_id())).result() == "done"
            pause.go_on.set()
            await asyncio.sleep(0.05)
    assert bodies == ["owner"]


@clause
async def test_c08_a_worker_that_wakes_goes_on_with_a_run_that_is_still_its_own(subject: Subject) -> None:
    if subject.unit < 60:
        raise RefusedError("where time is real, a lease ends when another worker has taken the run")
    bodies: list[str] = []
    pause = _Pause()

    async def work() -> str:
        bodies.append("body")
        return "done"

    @function("woken")
    async def woken(ctx: Context[None]) -> str:
        return await ctx.step.run("work", work)

    async with subject.open([woken]) as backend:
        backend.probe = pause
        run = await backend.start(woken, run_id=subject.run_id())
        await pause.reached.wait()
        await subject.expire(backend)
        pause.go_on.set()
        assert await run.result() == "done"
    assert bodies == ["body"]


@clause
async def test_c09_changed_code_fails_and_names_the_step(subject: Subject) -> None:
    for number, change in enumerate(("gone", "renamed", "kind", "input", "swapped", "inserted", "ended", "branches")):
        effects: list[str] = []
        old, new = _program("", effects), _program(change, effects)
        assert await subject.crash(old, number=number, where=at("after_commit", "b"))
        assert effects == ["a", "b"]
        error, history = await subject.fail(new, number=number)
        assert isinstance(error, InvokeError)
        assert error.error_type == NonDeterminismError.__name__, f"{change}: {error}"
        assert effects == ["a", "b"], f"{change}: it must be noticed before any new effect"
        assert history.status == "failed"
        assert history[-1].error["step"] in ("a", "b", "gather")
        assert history[-1].error["recorded"]
        assert history[-1].error["asked"]


def _program(change: str, effects: list[str]) -> Function[None, None]:
    async def body(name: str) -> None:
        effects.append(name)

    @function("changing")
    async def changing(ctx: Context[None]) -> None:
        step = ctx.step
        names = {"gone": "bc", "renamed": "axc", "swapped": "bac", "inserted": "axbc", "ended": "a"}.get(change, "abc")
        if change == "branches":
            await step.gather(lambda: step.run("a", body, "a"))
        for name in names:
            if change == "kind" and name == "b":
                await step.sleep(name, 0)
            elif change == "input" and name == "b":
                await step.run(name, body, "another")
            else:
                await step.run(name, body, name)

    return changing


@clause
async def test_c09_catching_the_error_does_not_hide_it(subject: Subject) -> None:
    @function("hidden")
    async def before(ctx: Context[None]) -> str:
        return await ctx.step.run("old", _echo, "old")

    @function("hidden")
    async def after(ctx: Context[None]) -> str:
        try:
            return await ctx.step.run("new", _echo, "new")
        except Exception:
            return "hidden"

    assert await subject.crash(before, where=at("after_commit", "old"))
    error, _ = await subject.fail(after)
    assert isinstance(error, InvokeError)
    assert error.error_type == NonDeterminismError.__name__


@clause
async def test_c09_a_step_that_failed_once_must_be_asked_for_again(subject: Subject) -> None:
    async def down() -> None:
        raise ConnectionError("down")

    @function("retrying", retries=5)
    async def before(ctx: Context[None]) -> None:
        await ctx.step.run("down", down)

    @function("retrying", retries=5)
    async def after(ctx: Context[None]) -> None:
        await ctx.step.run("up", _echo, 1)

    assert await subject.crash(before, where=at("before_body", "down", occurrence=1))
    error, _ = await subject.fail(after)
    assert isinstance(error, InvokeError)
    assert error.error_type == NonDeterminismError.__name__
    async with subject.open([after]) as backend:
        assert (await backend.run(subject.run_id())).status is RunStatus.FAILED
