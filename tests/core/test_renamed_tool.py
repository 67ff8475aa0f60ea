"""A tool is renamed while a call of it waits for a person: the run fails, waits for its code, or knows both names."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from durably.backends import MemoryBackend
from durably.core import (
    Agent,
    AgentResult,
    Context,
    Function,
    InvokeError,
    RunStatus,
    Tool,
    create_agent_loop,
    function,
    tool,
)
from durably.testing import ScriptedModel, call

pytestmark = pytest.mark.asyncio

paid: list[str] = []


def refund_tool(name: str) -> Tool:
    @tool(name=name, requires_approval=True)
    def pay(order: str) -> str:
        paid.append(order)
        return f"paid back {order}"

    return pay


def desk(name: str, on_code_change: Literal["fail", "wait"] = "fail") -> Agent:
    model = ScriptedModel(call("refund", order="7"), "Done.")
    return Agent(
        "desk", model=model, instructions="Help.", tools=[refund_tool(name)], retries=0, on_code_change=on_code_change
    )


async def asked(served: Function[Any, Any]) -> MemoryBackend:
    """A run that waits for a yes to a refund."""
    paid.clear()
    backend = MemoryBackend([served])
    async with backend:
        await backend.start(served, "My vase broke.", run_id="r")
        await backend.drain()
        (pending,) = await backend.approvals()
        assert pending.tool == "refund"
    return backend


async def test_the_run_fails_and_says_which_step_no_longer_fits() -> None:
    before = await asked(desk("refund"))
    async with MemoryBackend([desk("pay_back")], journal=before.journal) as renamed:
        with pytest.raises(InvokeError, match="request-refund"):
            await (await renamed.run("r")).result()
    assert paid == []


async def test_the_run_waits_for_its_code_and_goes_on_after_the_rollback() -> None:
    old = desk("refund", "wait")
    before = await asked(old)
    async with MemoryBackend([desk("pay_back", "wait")], journal=before.journal) as renamed:
        await renamed.drain()
        run = await renamed.run("r")
        assert run.status is RunStatus.STUCK
    async with MemoryBackend([old], journal=before.journal) as rolled_back:
        await rolled_back.drain()
        (pending,) = await rolled_back.approvals()
        await rolled_back.approve(pending.id, by="ann")
        assert (await (await rolled_back.run("r")).result()).text == "Done."
    assert paid == ["7"]


async def test_a_patch_lets_runs_of_before_keep_the_old_name() -> None:
    def answer(names: list[str]) -> Function[str, AgentResult]:
        @function("answer", retries=0)
        async def run_desk(ctx: Context[str]) -> AgentResult:
            name = names[-1] if len(names) > 1 and ctx.patched("rename-refund") else names[0]
            model = ScriptedModel(call(name, order="7"), "Done.")
            agent = Agent("desk", model=model, instructions="Help.", tools=[refund_tool(name)])
            return await create_agent_loop(agent, ctx.input)(ctx.step, ctx.logger)

        return run_desk

    before = await asked(answer(["refund"]))
    now = answer(["refund", "pay_back"])
    async with MemoryBackend([now], journal=before.journal) as patched:
        await patched.start(now, "My cup broke.", run_id="new")
        await patched.drain()
        pending = {each.run_id: each for each in await patched.approvals()}
        assert {run: each.tool for run, each in pending.items()} == {"r": "refund", "new": "pay_back"}
        for each in pending.values():
            await patched.approve(each.id, by="ann")
        for run_id in ("r", "new"):
            assert (await (await patched.run(run_id)).result()).text == "Done."
    assert paid == ["7", "7"]
