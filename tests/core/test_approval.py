"""A person's yes or no before a tool runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.replay.clock import VirtualClock
from durably.core import (
    APPROVAL_GIVEN,
    APPROVAL_REQUESTED,
    Agent,
    AgentResult,
    ApprovalRequest,
    Context,
    DefinitionError,
    Event,
    Function,
    RunCancelledError,
    RunStatus,
    approve,
    current_step,
    function,
    reject,
    tool,
)
from durably.core.messages import ToolResultMessage
from durably.core.steps import Point
from durably.testing import ScriptedModel, call, crash_matrix
from tests.conftest import Open

pytestmark = pytest.mark.asyncio


class World:
    """An agent that asks before it pays, whoever is asked, and what was paid."""

    def __init__(self, *, timeout: float | None = None, calls: int = 1) -> None:
        self.paid: list[int] = []
        self.asked: list[ApprovalRequest] = []

        @tool(requires_approval=True, approval_timeout=timeout)
        async def pay(amount: int) -> str:
            """Pay."""
            self.paid.append(amount)
            return f"paid {amount}"

        asks: Any = [call("pay", amount=number) for number in range(1, calls + 1)]
        self.agent = Agent("clerk", model=ScriptedModel(asks, "done"), instructions="Pay.", tools=[pay])

        @function("desk", triggers=[APPROVAL_REQUESTED])
        async def desk(ctx: Context[ApprovalRequest]) -> None:
            self.asked.append(ctx.input)

        self.desk = desk

    @property
    def functions(self) -> list[Function[Any, Any]]:
        return [self.agent, self.desk]


def answers(result: AgentResult) -> list[tuple[str, bool]]:
    return [(str(m.content), m.is_error) for m in result.messages if isinstance(m, ToolResultMessage)]


@pytest.mark.parametrize(
    ("decide", "paid", "answer"),
    [
        (approve, [1], ("paid 1", False)),
        (reject, [], ("pay was not run: a person refused it", True)),
        (lambda id: reject(id, "too much"), [], ("pay was not run: a person refused it: too much", True)),
        (
            lambda id: Event(APPROVAL_GIVEN, {"approval": id, "approved": "yes"}),
            [],
            ("pay was not run: it needs a person's approval, and the answer could not be read", True),
        ),
    ],
)
async def test_a_person_decides(
    open_backend: Open, decide: Callable[[str], Event], paid: list[int], answer: tuple[str, bool]
) -> None:
    world = World()
    async with open_backend(world.functions) as backend:
        run = await backend.start(world.agent, "pay 1")
        await backend.drain()  # type: ignore[attr-defined]
        assert world.paid == []
        (request,) = world.asked
        assert (request.run_id, request.tool, request.arguments) == (run.id, "pay", {"amount": 1})
        await backend.send(decide(request.approval))
        result = await run.result()
    assert (world.paid, answers(result)) == (paid, [answer])


async def test_several_calls_are_decided_one_by_one(open_backend: Open) -> None:
    world = World(calls=3)
    async with open_backend(world.functions) as backend:
        run = await backend.start(world.agent, "pay 1, 2 and 3")
        await backend.drain()  # type: ignore[attr-defined]
        by_amount = {request.arguments["amount"]: request.approval for request in world.asked}
        assert len(set(by_amount.values())) == 3
        await backend.send(approve(by_amount[3]), reject(by_amount[2]), approve(by_amount[1]))
        result = await run.result()
    assert sorted(world.paid) == [1, 3]
    assert [error for _, error in answers(result)] == [False, True, False]


@pytest.mark.parametrize("first", [approve, reject])
async def test_of_several_answers_the_first_counts(open_backend: Open, first: Callable[[str], Event]) -> None:
    world = World()
    async with open_backend(world.functions) as backend:
        run = await backend.start(world.agent, "pay 1")
        await backend.drain()  # type: ignore[attr-defined]
        approval = world.asked[0].approval
        await backend.send(first(approval))
        await backend.send(reject(approval) if first is approve else approve(approval))
        await backend.send(first(approval))
        await run.result()
    assert world.paid == ([1] if first is approve else [])


async def test_no_answer_in_time_is_a_no_and_a_late_one_changes_nothing() -> None:
    world, clock = World(timeout=3600), VirtualClock()
    async with MemoryBackend(world.functions, clock=clock) as backend:
        began = clock.now()
        run = await backend.start(world.agent, "pay 1")
        result = await run.result()
        assert clock.now() - began == pytest.approx(3600)
        assert world.asked[0].timeout == 3600
        await backend.send(approve(world.asked[0].approval))
        await backend.drain()
        assert world.paid == []
        assert answers(result) == [("pay was not run: it needs a person's approval, and nobody answered in time", True)]


async def test_it_waits_over_restarts_and_an_answer_given_meanwhile_is_not_lost(tmp_path: Path) -> None:
    world = World()

    def open_one(*functions: Function[Any, Any]) -> SQLiteBackend:
        return SQLiteBackend(tmp_path / "runs.db", functions or world.functions)

    async with open_one() as backend:
        await backend.start(world.agent, "pay 1", run_id="r")
        await backend.drain()
    for _ in range(3):
        async with open_one() as backend:
            await backend.drain()
    assert len(world.asked) == 1
    async with open_one(world.desk) as without_agent:
        await without_agent.send(approve(world.asked[0].approval))
    assert world.paid == []
    async with open_one() as backend:
        await (await backend.run("r")).result()
    assert world.paid == [1]


@pytest.mark.parametrize("when", ["before", "after the answer", "in the tool", "after the commit"])
async def test_a_run_is_committed_or_cancelled_never_both(open_backend: Open, when: str) -> None:
    world = World()
    async with open_backend(world.functions) as backend:
        run = await backend.start(world.agent, "pay 1")
        await backend.drain()  # type: ignore[attr-defined]
        places = {
            "after the answer": ("after_commit", "gather[0]/approve-pay"),
            "in the tool": ("after_effect", "tool-pay"),
        }

        async def cancel(point: Point) -> None:
            if (point.name, point.key) == places.get(when):
                await run.cancel()

        backend.probe = cancel
        if when == "before":
            await run.cancel()
        await backend.send(approve(world.asked[0].approval))
        if when == "after the commit":
            await run.result()
            await run.cancel()
        await backend.drain()  # type: ignore[attr-defined]
        done = when == "after the commit"
        assert (await backend.run(run.id)).status is (RunStatus.COMPLETED if done else RunStatus.CANCELLED)
        assert world.paid == ([1] if when in ("in the tool", "after the commit") else [])
        records = (await run.history()).records
        assert [record.status for record in records if record.kind == "run"][1:] == [
            "completed" if done else "cancelled"
        ]
        if not done:
            with pytest.raises(RunCancelledError):
                await run.result()


async def test_a_crash_anywhere_loses_no_answer_and_pays_once() -> None:
    paid: set[str] = set()

    @tool(requires_approval=True)
    async def pay(amount: int) -> str:
        """Pay."""
        paid.add(current_step().idempotency_key)
        return f"paid {amount}"

    @function("desk", triggers=[APPROVAL_REQUESTED])
    async def desk(ctx: Context[ApprovalRequest]) -> None:
        await ctx.step.send_event("answer", approve(ctx.input.approval))

    def fresh() -> tuple[Agent, set[str]]:
        paid.clear()
        model = ScriptedModel(call("pay", amount=1), "done")
        return Agent("clerk", model=model, instructions="", tools=[pay]), paid

    report = await crash_matrix(fresh, "pay 1", functions=[desk], state=len)
    assert report.ok, report
    assert report.counts["recovered"] > 20
    keys = {step.key for step in report.steps}
    assert {"request-pay", "gather[0]/approve-pay", "gather[1]/ask-pay", "tool-pay"} <= keys


async def test_a_timeout_without_approval_is_a_mistake() -> None:
    with pytest.raises(DefinitionError, match="requires_approval=True"):

        @tool(approval_timeout=3)
        async def pay() -> None: ...
