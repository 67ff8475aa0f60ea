"""An approval with changed arguments on Temporal, whose worker crashes at some of the points of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.service import RPCError

from durably.backends.temporal import TemporalBackend
from durably.backends.temporal.hub_names import hub_of_match
from durably.core import (
    APPROVAL_GIVEN,
    APPROVAL_REQUESTED,
    Agent,
    ApprovalRequest,
    Context,
    Function,
    approve,
    function,
    tool,
)
from durably.testing import ScriptedModel, call, crash_matrix
from durably.testing.crash.engines import Store
from tests.temporal.conftest import OpenTemporal

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(180)]

paid: list[int] = []


def much(amount: int) -> bool:
    return amount > 100


@tool(requires_approval=much)
async def pay(amount: int) -> str:
    """Pay."""
    paid.append(amount)
    return f"paid {amount}"


SCRIPT = ScriptedModel(call("pay", amount=1), call("pay", amount=1000), "done")
clerk = Agent("clerk", model=SCRIPT, instructions="", tools=[pay])


@function("answering", triggers=[APPROVAL_REQUESTED])
async def answering(ctx: Context[ApprovalRequest]) -> None:
    event = approve(ctx.input.approval, by="Zoe", arguments={"amount": 50})
    await ctx.step.send_event("answer", event)


@tool(requires_approval=True, approval_timeout=0.3)
async def hurry(amount: int) -> str:
    """Pay at once."""
    raise AssertionError("nobody has allowed it")


hasty = Agent("hasty", model=ScriptedModel(call("hurry", amount=1), "given up"), instructions="", tools=[hurry])


async def test_an_answer_reaches_its_run_without_a_hub(open_temporal: OpenTemporal) -> None:
    async with open_temporal(clerk, hasty) as backend:
        run = await backend.start(clerk, "pay")
        while not (asked := await backend.approvals()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await backend.approve(asked[0].id, by="Zoe", arguments={"amount": 60})
        assert (await run.result()).text == "done"
        late = await backend.start(hasty, "pay")
        assert (await late.result()).text == "given up"
        waits = {
            each.id: [step for step in await each.history() if step.kind == "wait_for_event"] for each in (run, late)
        }
        hub = hub_of_match(backend.task_queue, APPROVAL_GIVEN, {"approval": asked[0].id})
        with pytest.raises(RPCError, match="not found"):
            await backend.client.get_workflow_handle(hub).describe()
    [_, answered], [_, missed] = waits[run.id], waits[late.id]
    assert answered.value["data"]["by"] == "Zoe"
    assert missed.value is None


POINTS = (
    "clerk::request-pay:1/after_effect",
    "clerk::request-pay:1/after_commit",
    "clerk::gather[0]/approve-pay/registered",
    "clerk::gather[1]/ask-pay/after_send",
    "clerk::gather[0]/approve-pay/after_commit",
    "clerk::tool-pay:1/before_body",
    "clerk::tool-pay:1/after_effect",
)


async def test_the_tool_runs_with_what_a_person_wrote_wherever_a_worker_crashes(client: Client) -> None:
    def temporal(functions: Sequence[Function[Any, Any]], store: Store) -> TemporalBackend:
        return TemporalBackend(
            client,
            task_queue=f"approvals-{store.id}",
            functions=functions,
            heartbeat=timedelta(seconds=1),
            drain=timedelta(seconds=0.2),
            worker_options={"sticky_queue_schedule_to_start_timeout": timedelta(seconds=1)},
        )

    paid.clear()
    report = await crash_matrix(clerk, "pay", backend=temporal, functions=[answering], points=POINTS)
    assert report.ok, report
    assert set(paid) == {1, 50}
