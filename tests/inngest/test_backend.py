"""What the contract's suite does not ask: how runs look on Inngest, and what Inngest would do wrong by itself."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from durably.backends.inngest import InngestBackend
from durably.backends.inngest.steps import whole_seconds
from durably.core import (
    Context,
    Event,
    FunctionRef,
    InvokeError,
    NonDeterminismError,
    NonRetriableError,
    RetryAfterError,
    RunCancelledError,
    function,
)
from durably.core.errors import PayloadTooLargeError, RunExistsError
from durably.testing.inngest import InngestEngine
from tests.inngest.conftest import OpenInngest


async def _echo(value: Any) -> Any:
    return value


@pytest.mark.asyncio
async def test_steps_are_shown_by_their_names_and_hashed_by_their_keys(
    engine: InngestEngine, open_inngest: OpenInngest
) -> None:
    @function("agent-like")
    async def agent_like(ctx: Context[None]) -> list[int]:
        await ctx.step.run("think", _echo, 1)
        found = await ctx.step.gather(*[lambda n=n: ctx.step.run("tool-search", _echo, n) for n in range(2)])
        await ctx.step.run("think", _echo, 2)
        return [*found]

    async with open_inngest(agent_like) as backend:
        assert await backend.invoke(agent_like) == [0, 1]
    (run,) = engine.runs.values()
    assert sorted(name for _, name, _, _ in run.trace) == ["think", "think", "tool-search", "tool-search"]
    assert len(set(run.stack)) == 4
    assert len(engine.calls) == 6, "a plan of two, two branches, and a call for each step or end"


@pytest.mark.asyncio
async def test_ids_reused_across_branches_do_not_swap(open_inngest: OpenInngest) -> None:
    bodies: list[str] = []

    async def body(name: str) -> str:
        bodies.append(name)
        return name

    @function("branches")
    async def branches(ctx: Context[None]) -> list[Any]:
        async def two() -> list[str]:
            return [await ctx.step.run("y", body, "two-y"), await ctx.step.run("x", body, "two-x")]

        return [*await ctx.step.gather(two, lambda: ctx.step.run("x", body, "single-x"))]

    async with open_inngest(branches) as backend:
        assert await backend.invoke(branches) == [["two-y", "two-x"], "single-x"]
    assert sorted(bodies) == ["single-x", "two-x", "two-y"]


@pytest.mark.asyncio
async def test_a_parallel_step_that_was_renamed_fails_the_run(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    renamed = False

    @function("renaming")
    async def renaming(ctx: Context[None]) -> list[int]:
        name = "new" if renamed else "old"
        return [*await ctx.step.gather(*[lambda n=n: ctx.step.run(f"{name}-{n}", _echo, n) for n in range(2)])]

    async with open_inngest(renaming) as backend:
        engine.faults.refuse = lambda call: call.step != "step" and not renamed
        run = await backend.start(renaming)
        await engine.rest()
        assert len(engine.faults.hit) == 2
        renamed = True
        with pytest.raises(InvokeError) as caught:
            await run.result()
    assert caught.value.error_type == NonDeterminismError.__name__


@pytest.mark.parametrize("error", [NonRetriableError("no"), RetryAfterError("later", delay=3)])
@pytest.mark.asyncio
async def test_a_caught_failure_is_kept_and_its_body_not_run_again(open_inngest: OpenInngest, error: Exception) -> None:
    bodies: list[int] = []

    async def fail() -> None:
        bodies.append(1)
        raise error

    @function("catching", retries=0)
    async def catching(ctx: Context[None]) -> str:
        kept = ""
        try:
            await ctx.step.run("fail", fail)
        except Exception as caught:
            kept = type(caught).__name__
        await ctx.step.run("more", _echo, 1)
        return kept

    async with open_inngest(catching) as backend:
        assert await backend.invoke(catching) == "StepError"
    assert len(bodies) == 1


@pytest.mark.asyncio
async def test_asyncio_gather_over_steps_is_refused(open_inngest: OpenInngest) -> None:
    bodies: list[int] = []

    async def body(number: int) -> None:
        bodies.append(number)

    @function("wrong", retries=0)
    async def wrong(ctx: Context[None]) -> None:
        await asyncio.gather(*[ctx.step.run("work", body, n) for n in range(3)])

    async with open_inngest(wrong) as backend:
        with pytest.raises(InvokeError, match=r"step\.gather"):
            await backend.invoke(wrong)
    assert not bodies


@pytest.mark.asyncio
async def test_a_childs_input_is_what_its_parent_gave(open_inngest: OpenInngest) -> None:
    @function("child")
    async def child(ctx: Context[dict[str, Any]]) -> Any:
        return [ctx.input, ctx.event.data]

    @function("parent")
    async def parent(ctx: Context[None]) -> Any:
        return await ctx.step.invoke("call", child, {"order": 7})

    async with open_inngest(parent, child) as backend:
        assert await backend.invoke(parent) == [{"order": 7}] * 2


@pytest.mark.asyncio
async def test_sub_second_sleeps_last_their_time(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    woken: list[float] = []

    @function("napping")
    async def napping(ctx: Context[None]) -> None:
        await ctx.step.sleep("nap", 2.4)  # Inngest would end it after 2 seconds
        woken.append(engine.now())

    async with open_inngest(napping) as backend:
        start = engine.now()
        await backend.invoke(napping)
    assert 2.4 <= woken[0] - start < 2.9


def test_timeouts_are_rounded_up_to_whole_seconds() -> None:
    assert [whole_seconds(each) for each in (None, 0, 0.2, 1, 1.01)] == [
        None,
        *(timedelta(seconds=each) for each in (1, 1, 1, 2)),
    ]


@pytest.mark.asyncio
async def test_branches_go_on_while_another_waits_for_them(open_inngest: OpenInngest) -> None:
    @function("asking")
    async def asking(ctx: Context[None]) -> Any:
        async def answer() -> None:
            await ctx.step.run("think", _echo, 1)
            await ctx.step.send_event("tell", Event("asking/answer", {"text": "yes"}))

        event, _ = await ctx.step.gather(lambda: ctx.step.wait_for_event("reply", "asking/answer"), answer)
        return await ctx.step.run("last", _echo, event and event.data)

    async with open_inngest(asking) as backend:
        assert await backend.invoke(asking) == {"text": "yes"}


@pytest.mark.asyncio
async def test_values_over_inngests_limit_fail_catchably(open_inngest: OpenInngest) -> None:
    @function("large", retries=0)
    async def large(ctx: Context[None]) -> str:
        try:
            await ctx.step.run("work", _echo_large)
        except PayloadTooLargeError as error:
            return error.step
        return "kept"

    async with open_inngest(large) as backend:
        assert await backend.invoke(large) == "work"


async def _echo_large() -> str:
    return "x" * (5 * 2**20)


@pytest.mark.asyncio
async def test_a_state_over_inngests_limit_fails_catchably(open_inngest: OpenInngest) -> None:
    async def megabytes() -> str:
        return "x" * (3 * 2**20)

    @function("piling", retries=0)
    async def piling(ctx: Context[None]) -> int:
        for count in range(12):
            try:
                await ctx.step.run("pile", megabytes)
            except PayloadTooLargeError:
                return count
        return -1

    async with open_inngest(piling) as backend:
        assert await backend.invoke(piling) == 10


@pytest.mark.asyncio
async def test_numbers_survive_a_server_to_which_they_are_floats(
    engine: InngestEngine, open_inngest: OpenInngest
) -> None:
    values = [2**60 + 1, 1.0, 1e300, -0.0]
    heard: list[str] = []

    @function("child")
    async def child(ctx: Context[Any]) -> Any:
        return ctx.input

    @function("listener", triggers=["numbers/told"])
    async def listener(ctx: Context[Any]) -> None:
        heard.append(repr(ctx.input))

    @function("numbers")
    async def numbers(ctx: Context[Any]) -> Any:
        made = await ctx.step.run("make", _echo, ctx.input)
        await ctx.step.send_event("tell", Event("numbers/told", made))
        return await ctx.step.invoke("call", child, made)

    async with open_inngest(numbers, child, listener) as backend:
        run = await backend.start(numbers, values)
        assert repr(await run.result()) == repr(values)
        await engine.rest()
    assert heard == [repr(values)]
    kept = engine.runs[next(iter(engine.runs))].trace[0][3]["data"]
    assert [type(value) for name, value in kept.items() if name.startswith("make/")] == [str], "as text"


@pytest.mark.asyncio
async def test_a_run_is_found_by_another_process_under_its_id(open_inngest: OpenInngest) -> None:
    @function("known")
    async def known(ctx: Context[int]) -> int:
        return await ctx.step.run("work", _echo, ctx.input + 1)

    async with open_inngest(known) as backend:
        assert await backend.invoke(known, 1, run_id="order-7") == 2
    async with open_inngest(known) as other:
        run = await other.run("order-7")
        assert await run.result() == 2
        assert [record.key for record in (await run.history()).steps()] == ["work"]
        assert (await other.start(known, 1, run_id="order-7")).status.final, "attached to the first"
        with pytest.raises(RunExistsError, match="started with another input"):
            await other.start(known, 5, run_id="order-7")


@pytest.mark.asyncio
async def test_functions_of_other_apps(engine: InngestEngine) -> None:
    """Two apps may have functions of one name: who starts one says in which app."""

    def serving(app_id: str) -> InngestBackend:
        @function("where")
        async def where(ctx: Context[None]) -> str:
            return app_id

        client = engine.client(app_id)
        return InngestBackend(client, [where], serve=engine.serve, now=engine.now, poll=0.001, grace=0.5)

    where: FunctionRef[None, str] = FunctionRef("where", input_type=type(None), output_type=str)

    @function("asking")
    async def asking(ctx: Context[None]) -> str:
        return await ctx.step.invoke("ask", where)

    async with serving("one") as one, serving("two"):
        assert await one.invoke(where) == "one"
        assert len(engine.runs) == 1, "only there"
        outside = InngestBackend(
            engine.client("three"), [asking], apps={"where": "two"}, serve=engine.serve, now=engine.now, poll=0.001
        )
        async with outside:
            assert await outside.invoke(where) == "two"
            assert await outside.invoke(asking) == "two"


@pytest.mark.asyncio
async def test_a_run_that_inngest_itself_failed_says_so(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    @function("unreachable")
    async def unreachable(ctx: Context[None]) -> None: ...

    async with open_inngest(unreachable) as backend:
        engine.faults.refuse = lambda call: True
        with pytest.raises(InvokeError, match="Unable to reach SDK URL"):
            await backend.invoke(unreachable)
    assert not engine.calls
    assert len(engine.faults.hit) == 21


@pytest.mark.asyncio
async def test_a_cancelled_child_is_told_as_on_every_engine(engine: InngestEngine, open_inngest: OpenInngest) -> None:
    @function("child")
    async def child(ctx: Context[None]) -> None:
        await ctx.step.sleep("nap", 3600)

    @function("parent")
    async def parent(ctx: Context[None]) -> tuple[str, str, str]:
        try:
            await ctx.step.invoke("call", child)
        except RunCancelledError as error:
            return error.step, error.error_type, error.message
        return "", "", ""

    async with open_inngest(parent, child) as backend:
        run = await backend.start(parent)
        await engine.rest()
        (called,) = await backend.runs(function=child)
        await called.cancel()
        assert await run.result() == ("call", "RunCancelledError", "the run was cancelled")


@pytest.mark.asyncio
async def test_a_sleep_of_years_is_slept_in_parts_that_inngest_takes(
    engine: InngestEngine, open_inngest: OpenInngest
) -> None:
    year = 365 * 86400

    @function("patient")
    async def patient(ctx: Context[None]) -> None:
        await ctx.step.sleep("years", 3 * year)

    async with open_inngest(patient) as backend:
        start = engine.now()
        await backend.invoke(patient)
        assert engine.now() >= start + 3 * year
    (run,) = engine.runs.values()
    parts = [name for _, name, operation, _ in run.trace if operation == "Sleep"]
    assert len(parts) == 4, "a year at most is slept at once"
