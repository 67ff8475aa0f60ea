"""C26: code that changes under live runs: runs that wait until it fits, and patches."""

from __future__ import annotations

import asyncio
from typing import Any

from durably.core import (
    Backend,
    Context,
    Function,
    InvokeError,
    NonDeterminismError,
    RunStatus,
    function,
)
from durably.testing.conformance.effects import Ledger, until_stuck
from durably.testing.conformance.subject import Subject, at, keys, nth
from durably.testing.conformance.suite import clause

# -- code that does not fit


def _deployed(ledger: Ledger, names: str, entered: list[str] | None = None, **options: Any) -> Function[None, str]:
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
    ledger = Ledger()
    entered: list[str] = []
    good = _deployed(ledger, "abc", on_code_change="wait")
    bad = _deployed(ledger, "axc", entered, on_code_change="wait")
    assert await subject.crash(good, where=at("after_commit", "b"))
    for _ in range(2):
        async with subject.open([bad]) as backend:
            run = await until_stuck(await backend.run(subject.run_id()))
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
    ledger = Ledger()
    good, bad = (_deployed(ledger, names, on_code_change="wait") for names in ("abc", "xbc"))
    assert await subject.crash(good, where=at("after_commit", "b"))
    async with subject.open([bad]) as backend:
        run = await until_stuck(await backend.run(subject.run_id()))
        while not (found := await backend.runs(status=RunStatus.STUCK, function=bad)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # some engines list what they have with a delay
        assert [each.id for each in found] == [run.id]
        assert not await backend.runs(status=RunStatus.RUNNING, function=bad)
        await run.cancel()
        await subject.until_ended(run)
        assert run.status is RunStatus.CANCELLED


@clause
async def test_c26_what_does_not_fit_can_be_retried_after_a_rollback(subject: Subject) -> None:
    ledger = Ledger()
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


def _patch(ledger: Ledger, patched: bool | None) -> Function[None, list[str]]:
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
    ledger = Ledger()
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
        ledger = Ledger()
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
    ledger = Ledger()
    assert await subject.crash(_patch(ledger, True), where=at("after_commit", "c"))
    result, _ = await subject.run(_patch(ledger, None))
    assert result == NEW
    assert ledger.counts == {"a": 1, "new": 1, "c": 1, "end": 1}


@clause
async def test_c26_each_branch_goes_by_a_patch_unless_it_was_past_it(subject: Subject) -> None:
    ledger = Ledger()

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
