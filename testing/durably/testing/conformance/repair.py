"""C26: runs that are taken up again, forked, or wait for code that fits; code that changes under live runs."""

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
    NonDeterminismError,
    Run,
    RunStatus,
    StepError,
    current_step,
    function,
)
from durably.core.errors import RunNotFailedError, StepNotFoundError
from durably.core.history import History
from durably.core.repair import forked_from
from durably.core.retry import RetryPolicy
from durably.core.steps import Point
from durably.testing.conformance.subject import Kill, Subject, Where, at, keys, nth
from durably.testing.conformance.suite import clause

SOON = RetryPolicy(initial=0.01, jitter=0)


class _Ledger:
    """What bodies did: each execution by the name of its effect, with its key and its attempt."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, int]] = []
        self.broken: set[str] = set()

    async def effect(self, name: str) -> str:
        step = current_step()
        self.seen.append((name, step.idempotency_key, step.attempt))
        if name in self.broken:
            raise ConnectionError(f"{name} is down")
        return name

    @property
    def counts(self) -> Counter[str]:
        return Counter(name for name, *_ in self.seen)

    def check_attempts(self) -> None:
        """No two executions of a step saw the same number, and all saw the same key."""
        assert len({(key, attempt) for _, key, attempt in self.seen}) == len(self.seen)
        assert len({(name, key) for name, key, _ in self.seen}) == len(self.counts)


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


async def _until(run: Run[Any], condition: Callable[[Run[Any]], bool]) -> Run[Any]:
    while not condition(run):
        await asyncio.sleep(0.01)
        await run.refresh()
    return run


async def _until_stuck(run: Run[Any]) -> Run[Any]:
    return await _until(run, lambda run: run.status is RunStatus.STUCK)


# -- retry


def _order(ledger: _Ledger, **options: Any) -> Function[None, list[str]]:
    @function("order", retry_policy=SOON, **options)
    async def order(ctx: Context[None]) -> list[str]:
        return [await ctx.step.run(name, ledger.effect, name) for name in "abc"]

    return order


@clause
async def test_c26_a_failed_run_is_taken_up_again_with_the_code_of_now(subject: Subject) -> None:
    ledger = _Ledger()
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
    ledger = _Ledger()
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
    ledger = _Ledger()
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
    ledger = _Ledger()
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
    ledger = _Ledger()

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
    ledger = _Ledger()
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
    ledger = _Ledger()
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
        ledger = _Ledger()
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
    ledger = _Ledger()
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
    ledger = _Ledger()
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
    ledger = _Ledger()

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
    ledger = _Ledger()

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
    ledger = _Ledger()

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
    ledger = _Ledger()
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


# -- code that does not fit


def _deployed(ledger: _Ledger, names: str, entered: list[str] | None = None, **options: Any) -> Function[None, str]:
    @function("deployed", **options)
    async def deployed(ctx: Context[None]) -> str:
        if entered is not None:
            entered.append(names)
        for name in names:
            await ctx.step.run(name, ledger.effect, name)
        return names

    return deployed


@clause
async def test_c26_a_run_waits_until_code_that_fits_is_back(subject: Subject) -> None:
    ledger = _Ledger()
    entered: list[str] = []
    good = _deployed(ledger, "abc", on_code_change="wait")
    bad = _deployed(ledger, "axc", entered, on_code_change="wait")
    assert await subject.crash(good, where=at("after_commit", "b"))
    for _ in range(2):
        async with subject.open([bad]) as backend:
            run = await _until_stuck(await backend.run(subject.run_id()))
            assert run.view.stuck is not None
            assert run.view.stuck.step == "b"
            assert "'x'" in run.view.stuck.message
            assert 0 < run.view.stuck.since <= subject.now(backend) + 1
            assert run.view.error is None
            assert await backend.invoke(_other(backend, bad)) == "axc", "new runs are not held up"
    assert ledger.counts["b"] == 1
    assert len(entered) < 20, "it is not tried over and over"
    async with subject.open([good]) as backend:
        run = await backend.run(subject.run_id())
        assert await run.result() == "abc"
        assert keys(await run.history()) == ["a", "b", "c"]
        assert run.view.stuck is None
    assert ledger.counts["b"] == 1


def _other(backend: Backend, function: Function[Any, Any]) -> Function[Any, Any]:
    return backend.functions[function.id]


@clause
async def test_c26_a_stuck_run_can_be_found_and_cancelled(subject: Subject) -> None:
    ledger = _Ledger()
    good, bad = (_deployed(ledger, names, on_code_change="wait") for names in ("abc", "xbc"))
    assert await subject.crash(good, where=at("after_commit", "b"))
    async with subject.open([bad]) as backend:
        run = await _until_stuck(await backend.run(subject.run_id()))
        while not (found := await backend.runs(status=RunStatus.STUCK, function=bad)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # some engines list what they have with a delay
        assert [each.id for each in found] == [run.id]
        assert not await backend.runs(status=RunStatus.RUNNING, function=bad)
        await run.cancel()
        await subject.until_ended(run)
        assert run.status is RunStatus.CANCELLED


@clause
async def test_c26_what_does_not_fit_can_be_retried_after_a_rollback(subject: Subject) -> None:
    ledger = _Ledger()
    good, bad = _deployed(ledger, "abc"), _deployed(ledger, "axc")
    assert await subject.crash(good, where=at("after_commit", "b"))
    error, _ = await subject.fail(bad)
    assert isinstance(error, InvokeError)
    assert error.error_type == NonDeterminismError.__name__
    async with subject.open([good]) as backend:
        run = await (await backend.run(subject.run_id())).retry()
        assert await run.result() == "abc"
    assert ledger.counts == {"a": 1, "b": 1, "c": 1}


# -- patched


def _patch(ledger: _Ledger, patched: bool | None) -> Function[None, list[str]]:
    """The code of before the patch, with it (``True``), and once the old way is taken out (``None``)."""

    @function("patching")
    async def patching(ctx: Context[None]) -> list[str]:
        step = ctx.step
        done = [await step.run("a", ledger.effect, "a")]
        new = patched is None or (patched and ctx.patched("new-b"))
        done.append(await step.run("new" if new else "old", ledger.effect, "new" if new else "old"))
        done.append(await step.run("c", ledger.effect, "c"))
        again = patched is None or (patched and ctx.patched("new-b"))
        done.append(await step.run("end-new" if again else "end-old", ledger.effect, "end"))
        return done

    return patching


OLD, NEW = ["a", "old", "c", "end"], ["a", "new", "c", "end"]


@clause
async def test_c26_a_patch_holds_for_new_runs_and_not_for_those_that_are_past_it(subject: Subject) -> None:
    ledger = _Ledger()
    before, after = _patch(ledger, False), _patch(ledger, True)
    for number, place in enumerate(("a", "old", "c")):
        assert await subject.crash(before, number=number, where=at("after_commit", place))
        result, history = await subject.run(after, number=number)
        assert result == (NEW if place == "a" else OLD), "the answer is one for all places of a run"
        assert keys(history)[-1] == ("end-new" if place == "a" else "end-old")
    result, _ = await subject.run(after, number=3)
    assert result == NEW
    result, _ = await subject.run(_patch(ledger, None), number=4)
    assert result == NEW


@clause
async def test_c26_a_patch_is_answered_alike_after_a_crash_at_any_point(subject: Subject) -> None:
    number, point = 0, True
    while point:
        ledger = _Ledger()
        old = number * 2 + 1
        assert await subject.crash(_patch(ledger, False), number=old, where=at("after_commit", "old"))
        await subject.crash(_patch(ledger, True), number=old, where=nth(number))
        point = bool(await subject.crash(_patch(ledger, True), number=old + 1, where=nth(number)))
        for which, expected in ((old, OLD), (old + 1, NEW)):
            result, history = await subject.run(_patch(ledger, True), number=which)
            assert result == expected
            assert history.status == "completed"
            patches = [record for record in history if record.kind == "patch"]
            assert len(patches) <= 1, "it is answered once"
        number += 1


@clause
async def test_c26_a_patch_can_be_taken_out_while_patched_runs_are_live(subject: Subject) -> None:
    ledger = _Ledger()
    assert await subject.crash(_patch(ledger, True), where=at("after_commit", "c"))
    result, _ = await subject.run(_patch(ledger, None))
    assert result == NEW
    assert ledger.counts == {"a": 1, "new": 1, "c": 1, "end": 1}


@clause
async def test_c26_each_branch_goes_by_a_patch_unless_it_was_past_it(subject: Subject) -> None:
    ledger = _Ledger()

    def branchy(patched: bool) -> Function[None, list[str]]:
        @function("branchy")
        async def branchy(ctx: Context[None]) -> list[str]:
            async def branch(name: str) -> str:
                new = patched and ctx.patched("both")
                await ctx.step.run("new" if new else "old", ledger.effect, name)
                if name == "right":
                    await ctx.step.sleep("rest", subject.unit / 10)
                await ctx.step.run("more", ledger.effect, f"{name} more")
                return f"{name} {'new' if new else 'old'}"

            await ctx.step.run("first", ledger.effect, "first")
            return list(await ctx.step.gather(lambda: branch("left"), lambda: branch("right")))

        return branchy

    assert await subject.crash(branchy(False), where=at("after_commit", "gather[1]/old"))
    result, _ = await subject.run(branchy(True))
    assert result[1] == "right old"
    number = 1
    while await subject.crash(branchy(True), number=number, where=nth(number - 1)):
        result, history = await subject.run(branchy(True), number=number)
        assert result == ["left new", "right new"], "whatever crashes, a new run goes by the patch"
        assert history.status == "completed"
        number += 1
