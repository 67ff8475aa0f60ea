"""C26: runs that are taken up again, and runs that are forked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from durably.core import (
    Backend,
    Context,
    Event,
    Function,
    InvokeError,
    RunStatus,
    StepError,
    function,
)
from durably.core.errors import RunNotFailedError, StepNotFoundError
from durably.core.history import History
from durably.core.repair import forked_from
from durably.core.retry import RetryPolicy
from durably.core.steps import Point
from durably.testing.conformance.effects import Ledger
from durably.testing.conformance.subject import Kill, Subject, Where, keys, nth
from durably.testing.conformance.suite import clause

SOON = RetryPolicy(initial=0.01, jitter=0)


Act = Callable[[Backend], Awaitable[Any]]


async def _crash(subject: Subject, functions: Sequence[Function[Any, Any]], act: Act, where: Where) -> Point | None:
    """Do something with a backend that crashes at the first point that fits; ``None`` if it was not passed."""
    fired: list[Point] = []

    def probe(point: Point) -> None:
        if not fired and where(point):
            fired.append(point)
            raise Kill

    async with subject.open(functions) as backend:
        backend.probe = probe
        try:
            await act(backend)
        except Kill:
            assert fired
    return fired[0] if fired else None


# -- retry


def _order(ledger: Ledger, **options: Any) -> Function[None, list[str]]:
    @function("order", retry_policy=SOON, **options)
    async def order(ctx: Context[None]) -> list[str]:
        return [await ctx.step.run(name, ledger.effect, name) for name in "abc"]

    return order


@clause
async def test_c26_a_failed_run_is_taken_up_again_with_the_code_of_now(subject: Subject) -> None:
    ledger = Ledger()
    ledger.broken.add("b")
    error, before = await subject.fail(_order(ledger, retries=1))
    assert isinstance(error, InvokeError)
    assert ledger.counts == {"a": 1, "b": 2}
    ledger.broken.clear()
    async with subject.open([_order(ledger, retries=1)]) as backend:
        run = await (await backend.run(subject.run_id())).retry()
        assert not run.status.final
        assert await run.result() == ["a", "b", "c"]
        history = await run.history()
    assert ledger.counts == {"a": 1, "b": 3, "c": 1}, "what was committed is not run again"
    ledger.check_attempts()
    assert history.records[: len(before)] == before.records, "records are only added"
    assert history[len(before)].status == "resumed"
    assert [record.status for record in history if record.key == "b" and record.final] == ["failed", "completed"]
    assert history.status == "completed"


@clause
async def test_c26_a_retried_step_has_a_fresh_set_of_attempts(subject: Subject) -> None:
    ledger = Ledger()
    ledger.broken.add("b")
    order = _order(ledger, retries=2)
    await subject.fail(order)
    for times in (2, 3):
        async with subject.open([order]) as backend:
            run = await (await backend.run(subject.run_id())).retry()
            try:
                raise AssertionError(f"it had to fail again, and returned {await run.result()!r}")
            except InvokeError as error:
                assert "b is down" in str(error)
            assert run.status is RunStatus.FAILED
            history = await run.history()
        assert ledger.counts == {"a": 1, "b": 3 * times}
        assert history[-1].error["attempts"] == 3
    ledger.check_attempts()


@clause
async def test_c26_a_run_is_retried_at_once_where_it_failed(subject: Subject) -> None:
    ledger = Ledger()
    ledger.broken.add("b")
    order = _order(ledger, retries=0)
    async with subject.open([order]) as backend:
        run = await backend.start(order, run_id=subject.run_id())
        for _ in range(2):
            await run.ended()
            assert run.status is RunStatus.FAILED
            await run.retry()
        await run.ended()
        ledger.broken.clear()
        assert await (await run.retry()).result() == ["a", "b", "c"]
    assert ledger.counts == {"a": 1, "b": 4, "c": 1}


@clause
async def test_c26_a_retried_function_has_a_fresh_set_of_attempts(subject: Subject) -> None:
    ledger = Ledger()
    tries: list[int] = []

    @function("buggy", retries=1, retry_policy=SOON)
    async def buggy(ctx: Context[None]) -> str:
        value = await ctx.step.run("a", ledger.effect, "a")
        tries.append(ctx.attempt)
        if len(set(tries)) < 3 and len(tries) < 5:
            raise ValueError("a bug")
        return value

    await subject.fail(buggy)
    begun = len(tries)
    assert set(tries) == {1, 2}
    async with subject.open([buggy]) as backend:
        run = await (await backend.run(subject.run_id())).retry()
        await subject.until_ended(run)
    assert tries[begun] == 1
    assert ledger.counts == {"a": 1}


@clause
async def test_c26_only_a_failed_run_is_retried(subject: Subject) -> None:
    ledger = Ledger()

    @function("waits")
    async def waits(ctx: Context[None]) -> None:
        await ctx.step.sleep("nap", 10 * subject.unit)

    order = _order(ledger)
    async with subject.open([order, waits]) as backend:
        done = await backend.start(order)
        await done.result()
        live = await backend.start(waits)
        for run, status in ((done, "completed"), (live, "")):
            try:
                await run.retry()
            except RunNotFailedError as error:
                assert status in error.status
                assert run.id == error.run_id
            else:
                raise AssertionError(f"a run that is {run.status} was retried")
        await live.cancel()
        try:
            await live.retry()
        except RunNotFailedError as error:
            assert error.status == "cancelled"
        else:
            raise AssertionError("a cancelled run was retried")
        assert keys(await done.history()) == ["a", "b", "c"]


@clause
async def test_c26_a_failed_child_is_retried_with_its_parent(subject: Subject) -> None:
    ledger = Ledger()
    ledger.broken.add("b")
    order = _order(ledger, retries=0)

    @function("parent", retries=0)
    async def parent(ctx: Context[None]) -> list[str]:
        first = await ctx.step.run("first", ledger.effect, "first")
        return [first, *await ctx.step.invoke("call", order)]

    await subject.fail(parent, order)
    ledger.broken.clear()
    async with subject.open([parent, order]) as backend:
        run = await (await backend.run(subject.run_id())).retry()
        assert await run.result() == ["first", "a", "b", "c"]
    assert ledger.counts == {"first": 1, "a": 1, "b": 2, "c": 1}
    ledger.check_attempts()


@clause
async def test_c26_a_retry_takes_up_failed_branches_and_no_others(subject: Subject) -> None:
    ledger = Ledger()
    ledger.broken |= {"caught", "left"}

    @function("branches", retries=0)
    async def branches(ctx: Context[None]) -> list[str]:
        step = ctx.step
        try:
            await step.run("caught", ledger.effect, "caught", retries=0)
        except StepError:
            await step.run("instead", ledger.effect, "instead")

        async def left() -> str:
            await step.run("before", ledger.effect, "before")
            return await step.run("left", ledger.effect, "left", retries=0)

        return list(await step.gather(left, lambda: step.run("right", ledger.effect, "right")))

    await subject.fail(branches)
    assert ledger.counts == dict.fromkeys(["caught", "instead", "before", "left", "right"], 1)
    ledger.broken.clear()
    async with subject.open([branches]) as backend:
        run = await (await backend.run(subject.run_id())).retry()
        assert await run.result() == ["left", "right"]
    assert ledger.counts == {"caught": 1, "instead": 1, "before": 1, "left": 2, "right": 1}


@clause
async def test_c26_a_crash_at_any_point_of_a_retry_changes_nothing(subject: Subject) -> None:
    number, point = 0, True
    while point:
        ledger = Ledger()
        ledger.broken.add("b")
        order = _order(ledger, retries=0)
        await subject.fail(order, number=number)
        ledger.broken.clear()

        async def go_on(backend: Backend, number: int = number) -> Any:
            run = await backend.run(subject.run_id(number))
            if run.status is RunStatus.FAILED:
                await run.retry()
            return await run.result(), await run.history()

        point = bool(await _crash(subject, [order], go_on, nth(number)))
        async with subject.open([order]) as backend:
            result, history = await go_on(backend)
        assert result == ["a", "b", "c"]
        assert ledger.counts["a"] == 1
        assert ledger.counts.total() <= 5
        ledger.check_attempts()
        assert Counter(record.status for record in history if not record.key)["resumed"] == 1
        number += 1
    assert number > 5


# -- fork


@clause
async def test_c26_a_fork_begins_with_what_was_committed(subject: Subject) -> None:
    ledger = Ledger()
    order = _order(ledger)
    async with subject.open([order]) as backend:
        run = await backend.start(order, run_id=subject.run_id())
        await run.result()
        before = await run.history()
    old = {name: key for name, key, _ in ledger.seen}
    ledger.seen.clear()

    @function("order")
    async def now(ctx: Context[None]) -> list[str]:
        return [await ctx.step.run(name, ledger.effect, name) for name in "abxc"]

    async with subject.open([now]) as backend:
        run = await backend.run(subject.run_id())
        fork = await run.fork(after="b", run_id=subject.run_id(1))
        assert fork.id == subject.run_id(1)
        assert await fork.result() == ["a", "b", "x", "c"], "it goes on with the code of now"
        history = await fork.history()
        assert await run.history() == before, "the run it comes from does not notice"
        another = await run.fork(after="a")
        assert another.id not in (run.id, fork.id)
        await another.result()
    assert ledger.counts == {"x": 2, "c": 2, "b": 1}
    assert all(key != old.get(name) for name, key, _ in ledger.seen), "effects of another run have other keys"
    assert keys(history) == ["a", "b", "x", "c"]
    origin = forked_from(history.records)
    assert origin is not None
    assert (origin.run_id, origin.after) == (subject.run_id(), "b")
    assert history.records[0].output == before.records[0].output


@clause
async def test_c26_a_fork_of_a_retried_run_has_each_step_once(subject: Subject) -> None:
    ledger = Ledger()
    ledger.broken.add("b")
    order = _order(ledger, retries=1)
    await subject.fail(order)
    ledger.broken.clear()
    async with subject.open([order]) as backend:
        run = await (await backend.run(subject.run_id())).retry()
        await run.result()
        fork = await run.fork(after="b", run_id=subject.run_id(1))
        assert await fork.result() == ["a", "b", "c"]
        history = await fork.history()
    assert keys(history) == ["a", "b", "c"], "nothing is left of the failure that was taken up again"
    assert ledger.counts == {"a": 1, "b": 3, "c": 2}


@clause
async def test_c26_a_fork_knows_the_steps_that_were_given_the_id_of_the_run(subject: Subject) -> None:
    ledger = Ledger()

    @function("names-itself")
    async def names_itself(ctx: Context[None]) -> list[str]:
        told = await ctx.step.run("tell", ledger.effect, f"run {ctx.run_id}")
        await ctx.step.run("mark", ledger.effect, "mark")
        return [told, await ctx.step.run("last", ledger.effect, f"again {ctx.run_id}")]

    async with subject.open([names_itself]) as backend:
        run = await backend.start(names_itself, run_id=subject.run_id())
        await run.result()
        fork = await run.fork(after="mark", run_id=subject.run_id(1))
        assert await fork.result() == [f"run {run.id}", f"again {fork.id}"], "what was committed stays as it was said"
    assert ledger.counts == {f"run {run.id}": 1, "mark": 1, f"again {run.id}": 1, f"again {fork.id}": 1}


@clause
async def test_c26_a_fork_needs_a_step_that_has_ended(subject: Subject) -> None:
    ledger = Ledger()

    @function("charges")
    async def charges(ctx: Context[None]) -> None:
        await ctx.step.run("charge-card", ledger.effect, "charge")
        await ctx.step.sleep("long-rest", 100 * subject.unit)

    async with subject.open([charges]) as backend:
        run = await backend.start(charges)
        while "charge-card" not in keys(await run.history()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for asked in ("charge-cart", "long-rest"):
            try:
                await run.fork(after=asked)
            except StepNotFoundError as error:
                assert error.near == ["charge-card"]
                assert "'charge-card'" in str(error)
            else:
                raise AssertionError(f"forked after {asked!r}")
        await run.cancel()


@clause
async def test_c26_a_fork_drops_what_had_only_begun(subject: Subject) -> None:
    ledger = Ledger()

    @function("inner")
    async def inner(ctx: Context[str]) -> str:
        return await ctx.step.run("work", ledger.effect, ctx.input)

    @function("outer")
    async def outer(ctx: Context[None]) -> list[Any]:
        step = ctx.step
        child = await step.invoke("call", inner, "child")

        async def waits() -> str:
            await step.run("ask", ledger.effect, "ask")
            event = await step.wait_for_event("go", "c26/go", match={"token": subject.token})
            return str(event.data["text"]) if event else "nothing"

        async def works() -> str:
            await step.run("long", ledger.effect, "long")
            return await step.run("mark", ledger.effect, "mark")

        return [child, *await step.gather(waits, works)]

    async with subject.open([outer, inner]) as backend:
        run = await backend.start(outer)
        while len(keys(await run.history())) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await backend.send(Event("c26/go", {"token": subject.token, "text": "one"}))
        assert await run.result() == ["child", "one", "mark"]
        before = ledger.counts
        fork = await run.fork(after="gather[1]/mark")
        while not any(record.kind == "wait_for_event" for record in await fork.history()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await backend.send(Event("c26/go", {"token": subject.token, "text": "two"}))
        assert await fork.result() == ["child", "two", "mark"], "it waits anew, for what comes now"
    assert ledger.counts == before, "no step, and no child, of the beginning runs again"


@clause
async def test_c26_a_crash_at_any_point_of_a_fork_changes_nothing(subject: Subject) -> None:
    ledger = Ledger()
    order = _order(ledger)
    await subject.run(order, number=1000)
    number, point = 0, True
    while point:
        ledger.seen.clear()

        async def go_on(backend: Backend, number: int = number) -> tuple[Any, History]:
            fork = await (await backend.run(subject.run_id(1000))).fork(after="b", run_id=subject.run_id(number))
            return await fork.result(), await fork.history()

        point = bool(await _crash(subject, [order], go_on, nth(number)))
        async with subject.open([order]) as backend:
            result, history = await go_on(backend)  # the same fork again: it is found
        assert result == ["a", "b", "c"]
        assert keys(history) == ["a", "b", "c"]
        assert set(ledger.counts) == {"c"}
        assert ledger.counts["c"] <= 2
        ledger.check_attempts()
        number += 1
    assert number > 3
