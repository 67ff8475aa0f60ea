"""What is Temporal's own: which bodies any worker can run, what is refused, and what its pages show."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr
from temporalio.client import WorkflowExecutionStatus

from durably.core import (
    Agent,
    Context,
    InvokeError,
    RetryPolicy,
    Run,
    RunNotFoundError,
    StepError,
    current_step,
    function,
)
from durably.core.errors import PayloadTooLargeError
from durably.core.run_view import RunStatus
from durably.testing import ScriptedModel
from tests.temporal.conftest import OpenTemporal

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(180)]


class Order(BaseModel):
    id: str
    paid: bool = False


class Shop:
    """Stands for a client that is given to the backend by name."""

    async def pay(self, order: Order) -> Order:
        return order.model_copy(update={"paid": True})


async def find(order_id: str) -> Order:
    return Order(id=order_id)


async def untyped(order, note):  # type: ignore[no-untyped-def]
    return note


def flaky() -> int:
    if current_step().attempt < 3:
        raise ConnectionError("not yet")
    return current_step().attempt


async def big(text: str) -> int:
    return len(text)


async def scheduled(run: Run[Any]) -> dict[str, str]:
    """The activity types of a run, by step key."""
    history = await run._engine.client.get_workflow_handle(run.id).fetch_history()  # type: ignore[attr-defined]
    found = [each.activity_task_scheduled_event_attributes for each in history.events]
    return {each.activity_id: each.activity_type.name for each in found if each.activity_id}


async def test_bodies_with_a_name_are_activities_named_after_their_step(open_temporal: OpenTemporal) -> None:
    @function("shop")
    async def shop(ctx: Context[str]) -> Order:
        order = await ctx.step.run("find", find, ctx.input)
        paid = await ctx.step.run("pay", ctx.resources["shop"].pay, order)
        await ctx.step.gather(lambda: ctx.step.run("find", find, "8"), lambda: ctx.step.run("find", find, "9"))
        return await ctx.step.run("closure", lambda: paid, output_type=Order)

    async with open_temporal(shop, resources={"shop": Shop()}) as backend:
        run = await backend.start(shop, "7")
        assert await run.result() == Order(id="7", paid=True)
        named = {key: name for key, name in (await scheduled(run)).items() if not key.startswith("durably:")}
        assert named == {"find": "find", "pay": "pay", "gather[0]/find": "find", "gather[1]/find": "find"}
        assert (await run.history()).steps()[-1].key == "closure"


async def test_a_model_for_a_parameter_without_a_hint_is_refused(open_temporal: OpenTemporal) -> None:
    @function("bare", retries=0)
    async def bare(ctx: Context[None]) -> Any:
        return await ctx.step.run("untyped", untyped, Order(id="7"), "note")

    async with open_temporal(bare) as backend:
        with pytest.raises(InvokeError, match="annotate the parameter") as caught:
            await backend.invoke(bare)
    assert caught.value.error_type == "SerializationError"


async def test_large_arguments_do_not_enter_the_history(open_temporal: OpenTemporal) -> None:
    @function("large")
    async def large(ctx: Context[None]) -> int:
        return await ctx.step.run("big", big, "x" * 3_000_000)

    async with open_temporal(large) as backend:
        run = await backend.start(large)
        assert await run.result() == 3_000_000
        found = await backend.client.get_workflow_handle(run.id).describe()
        assert found.raw_description.workflow_execution_info.history_size_bytes < 20_000


async def test_a_secret_argument_reaches_the_body_and_not_the_history(open_temporal: OpenTemporal) -> None:
    @function("secret")
    async def secret(ctx: Context[None]) -> int:
        return await ctx.step.run("big", big, "the key is hunter2hunter2")

    async with open_temporal(secret, resources={"key": SecretStr("hunter2hunter2")}) as backend:
        run = await backend.start(secret)
        assert await run.result() == 25
        history = await backend.client.get_workflow_handle(run.id).fetch_history()
        payloads = b"".join(each.SerializeToString() for each in history.events)
        assert b"hunter2" not in payloads


async def test_a_step_is_retried_by_our_rules(open_temporal: OpenTemporal) -> None:
    @function("patient", retry_policy=RetryPolicy(initial=0.01))
    async def patient(ctx: Context[None]) -> list[Any]:
        try:
            await ctx.step.run("once", flaky, retries=1)
        except StepError as error:
            return [error.attempts, error.error_type, await ctx.step.run("flaky", flaky)]
        return []

    async with open_temporal(patient) as backend:
        run = await backend.start(patient)
        assert await run.result() == [2, "ConnectionError", 3]
        assert {record.key: record.attempt for record in (await run.history()).steps()} == {"once": 2, "flaky": 3}


async def test_an_input_that_is_too_large_is_refused_at_once(open_temporal: OpenTemporal) -> None:
    @function("gulp")
    async def gulp(ctx: Context[str]) -> None: ...

    async with open_temporal(gulp) as backend:
        with pytest.raises(PayloadTooLargeError):
            await backend.start(gulp, "x" * 3_000_000)


async def test_a_backend_without_functions_starts_runs_and_looks_at_them(open_temporal: OpenTemporal) -> None:
    agent = Agent("remote", model=ScriptedModel("Here."), instructions="Answer.")
    async with open_temporal() as caller:
        with pytest.raises(RunNotFoundError):
            await caller.run("there-is-none")
        run = await caller.start("remote", {"message": "Where?"})
        assert run.status is RunStatus.RUNNING
        async with open_temporal(agent):
            assert (await run.result())["text"] == "Here."
        assert (await run.refresh()).status is RunStatus.COMPLETED
        assert [each.id for each in await caller.runs(function="remote")] == [run.id]


async def test_temporal_shows_how_a_run_ended(open_temporal: OpenTemporal) -> None:
    @function("failing", retries=0)
    async def failing(ctx: Context[None]) -> None:
        raise ValueError("no good")

    @function("waiting")
    async def waiting(ctx: Context[None]) -> None:
        await ctx.step.wait_for_event("wait", "never/sent")

    async with open_temporal(failing, waiting) as backend:
        failed, cancelled = await backend.start(failing), await backend.start(waiting)
        with pytest.raises(InvokeError, match="ValueError: no good"):
            await failed.result()
        await cancelled.cancel()
        found = [await backend.client.get_workflow_handle(run.id).describe() for run in (failed, cancelled)]
        assert [each.status for each in found] == [WorkflowExecutionStatus.FAILED, WorkflowExecutionStatus.CANCELED]
        assert [run.status for run in await backend.runs()] == [RunStatus.CANCELLED, RunStatus.FAILED]


async def test_a_body_that_ignores_its_cancellation_holds_nothing_up(open_temporal: OpenTemporal) -> None:
    @function("stubborn")
    async def stubborn(ctx: Context[None]) -> None:
        await ctx.step.run("dig", dig)

    async with open_temporal(stubborn) as backend:
        run = await backend.start(stubborn)
        await _DIGGING.wait()
        await run.cancel()
        assert run.status is RunStatus.CANCELLED


_DIGGING = asyncio.Event()


async def dig() -> None:
    _DIGGING.set()
    await asyncio.sleep(20)


async def test_a_body_that_outlives_its_heartbeats_runs_once(open_temporal: OpenTemporal) -> None:
    @function("slow")
    async def slow(ctx: Context[None]) -> int:
        return await ctx.step.run("doze", doze)

    async with open_temporal(slow, heartbeat=timedelta(seconds=1)) as backend:
        assert await backend.invoke(slow) == 1


async def doze() -> int:
    await asyncio.sleep(2.5)
    return current_step().attempt
