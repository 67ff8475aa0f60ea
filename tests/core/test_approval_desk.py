"""What is pending can be listed and answered once, with the arguments that a person wants."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.replay.clock import VirtualClock
from durably.core import (
    Agent,
    AgentInput,
    ApprovalNotPendingError,
    Context,
    DefinitionError,
    Function,
    PendingApproval,
    SerializationError,
    approve,
    create_agent_loop,
    current_step,
    function,
    tool,
)
from durably.core.messages import ToolResultMessage
from durably.testing import ScriptedModel, call, crash_matrix
from tests.conftest import Open

pytestmark = pytest.mark.asyncio


class World:
    """A clerk that pays, and what was paid."""

    def __init__(self, *asks: Any, needed: Any = True, timeout: float | None = None) -> None:
        self.paid: list[tuple[str, int]] = []
        self.judged: list[int] = []

        @tool(requires_approval=needed, approval_timeout=timeout)
        async def pay(to: str, amount: int) -> str:
            """Pay."""
            self.paid.append((to, amount))
            return f"paid {amount} to {to}"

        self.agent = Agent("clerk", model=ScriptedModel(*asks, "done"), instructions="", tools=[pay])


def ann(amount: int) -> Any:
    return call("pay", to="Ann", amount=amount)


def answers(result: Any) -> list[tuple[Any, bool]]:
    return [(m.content, m.is_error) for m in result.messages if isinstance(m, ToolResultMessage)]


async def test_what_is_pending_is_listed_with_all_that_a_person_needs(open_backend: Open) -> None:
    world = World(ann(1), [ann(2), ann(3)], timeout=3600)
    async with open_backend([world.agent]) as backend:
        run = await backend.start(world.agent, "pay")
        (one,) = await _pending(backend, 1)
        assert (one.run_id, one.function, one.step, one.tool) == (run.id, "clerk", "request-pay", "pay")
        assert one.arguments == {"to": "Ann", "amount": 1}
        assert one.expires_at == pytest.approx(one.asked_at + 3600)
        assert one.asked_at <= backend.now()
        await backend.approve(one, by="Zoe")
        both = await _pending(backend, 2, run=run.id, function=world.agent, tool="pay")
        assert [each.arguments["amount"] for each in both if each.arguments] == [2, 3]
        assert await backend.approvals(limit=1) == both[:1]
        assert await backend.approvals(after=both[0]) == both[1:]
        assert await backend.approvals(tool="look") == await backend.approvals(function="other") == []
        await backend.reject(both[0].id, "too much", by="Zoe")
        await backend.approve(both[1].id)
        result = await run.result()
        assert await backend.approvals() == []
    assert world.paid == [("Ann", 1), ("Ann", 3)]
    assert [error for _, error in answers(result)] == [False, True, False]


async def _pending(backend: Any, number: int, **filters: Any) -> list[PendingApproval]:
    """Wait until so many are pending, while no virtual time passes."""
    for _ in range(10_000):
        found: list[PendingApproval] = await backend.approvals(**filters)
        if len(found) == number:
            return found
        await asyncio.sleep(0)
    raise AssertionError(f"not {number} pending")


async def _settled(backend: Any) -> None:
    await backend.drain()


async def test_the_tool_runs_with_what_a_person_wrote_and_the_model_is_told(open_backend: Open) -> None:
    world = World(ann(1000))
    async with open_backend([world.agent]) as backend:
        run = await backend.start(world.agent, "pay")
        await _settled(backend)
        (one,) = await backend.approvals()
        given = await backend.approve(one, by="Zoe", arguments={"to": "Ann", "amount": 10})
        assert (given.by, given.at is not None) == ("Zoe", True)
        result = await run.result()
        history = await run.history()
    assert world.paid == [("Ann", 10)]
    told = 'A person changed the arguments: pay was run with {"to": "Ann", "amount": 10}\npaid 10 to Ann'
    assert answers(result) == [(told, False)]
    waited = next(record for record in history.steps() if record.step_id == "approve-pay")
    decided = json.loads(waited.output or "")["data"]
    assert (decided["by"], decided["at"], decided["arguments"]) == ("Zoe", given.at, {"to": "Ann", "amount": 10})


@pytest.mark.parametrize(
    "arguments",
    [
        {"to": "Ann"},
        {"to": "Ann", "amount": "much"},
        {"to": "Ann", "amount": 1, "now": True},
        {"to": "A", "amount": {1}},
    ],
)
async def test_edited_arguments_that_do_not_fit_record_nothing(open_backend: Open, arguments: Any) -> None:
    world = World(ann(1))
    async with open_backend([world.agent]) as backend:
        run = await backend.start(world.agent, "pay")
        await _settled(backend)
        before = await run.history()
        (one,) = await backend.approvals()
        with pytest.raises(SerializationError):
            await backend.approve(one, arguments=arguments)
        assert await run.history() == before
        assert await backend.approvals() == [one]
        await backend.approve(one)
        await run.result()
    assert world.paid == [("Ann", 1)]


async def test_the_second_answer_is_told_who_was_first(open_backend: Open) -> None:
    world = World(ann(1))
    async with open_backend([world.agent]) as backend:
        run = await backend.start(world.agent, "pay")
        await _settled(backend)
        (one,) = await backend.approvals()
        first, second = await asyncio.gather(
            backend.approve(one, by="Ann"), backend.reject(one, "no", by="Bob"), return_exceptions=True
        )
        assert not isinstance(first, BaseException)
        for refused in (second, await _refused(backend, one)):
            assert isinstance(refused, ApprovalNotPendingError)
            assert (refused.by, refused.at) == ("Ann", first.at)
            assert "Ann approved it at" in str(refused)
        await run.result()
        assert (await _refused(backend, one)).by == "Ann"
    assert world.paid == [("Ann", 1)]


async def _refused(backend: Any, one: PendingApproval | str) -> ApprovalNotPendingError:
    with pytest.raises(ApprovalNotPendingError) as caught:
        await backend.reject(one, by="Bob")
    return caught.value


async def test_of_answers_from_two_processes_one_counts(tmp_path: Path) -> None:
    world = World(ann(1))
    path = tmp_path / "runs.db"
    async with SQLiteBackend(path, [world.agent]) as backend:
        run = await backend.start(world.agent, "pay", run_id="r")
        await backend.drain()
    async with SQLiteBackend(path, []) as one, SQLiteBackend(path, []) as other:
        (pending,) = await one.approvals()
        assert await other.approvals() == [pending]
        await one.approve(pending, by="Ann")
        assert await other.approvals() == [], "answered, though no worker has taken it up"
        assert (await _refused(other, pending)).by == "Ann"
        with pytest.raises(ApprovalNotPendingError):
            await other.approve(pending, arguments={"to": "Ann", "amount": 2})
    async with SQLiteBackend(path, [world.agent]) as backend:
        run = await backend.run("r")
        await run.result()
    assert world.paid == [("Ann", 1)]


async def test_answers_to_nothing_are_refused(open_backend: Open) -> None:
    world = World(ann(1), ann(2))
    async with open_backend([world.agent]) as backend:
        for unknown in ("nothing", "r::request-pay", "0" * 32):
            assert "no run asks this" in str(await _refused(backend, unknown))
        run = await backend.start(world.agent, "pay", run_id="r")
        await _settled(backend)
        (one,) = await backend.approvals()
        await run.cancel()
        assert await backend.approvals() == []
        assert "its run has ended (cancelled)" in str(await _refused(backend, one))
    assert world.paid == []


async def test_an_answer_after_the_time_is_up_is_refused() -> None:
    world, clock = World(ann(1), timeout=60), VirtualClock()
    async with MemoryBackend([world.agent], clock=clock) as backend:
        run = await backend.start(world.agent, "pay")
        (one,) = await _pending(backend, 1)
        await run.result()
        assert "nobody answered in time" in str(await _refused(backend, one))


async def test_edited_arguments_are_checked_where_the_tool_is_known(tmp_path: Path) -> None:
    world = World(ann(1))

    @function("desk")
    async def desk(ctx: Context[AgentInput]) -> str:
        return (await create_agent_loop(world.agent, ctx.input.message)(ctx.step, ctx.logger)).text

    async def pending(backend: SQLiteBackend) -> PendingApproval:
        await backend.drain()
        (one,) = await backend.approvals()
        return one

    path = tmp_path / "runs.db"
    async with SQLiteBackend(path, [desk]) as alone:
        await alone.start(desk, AgentInput(message="pay"), run_id="r")
        one = await pending(alone)
        with pytest.raises(SerializationError, match="Give it the agent that has the tool"):
            await alone.approve(one, arguments={"to": "Ann", "amount": 2})
    functions: list[Function[Any, Any]] = [desk, world.agent]
    async with SQLiteBackend(path, functions) as knowing:
        await knowing.approve(await pending(knowing), arguments={"to": "Ann", "amount": 2})
        await (await knowing.run("r")).result()
    assert world.paid == [("Ann", 2)]


async def test_a_function_of_the_arguments_says_who_is_asked_about(open_backend: Open) -> None:
    judged: list[int] = []

    def much(amount: int) -> bool:
        judged.append(amount)
        return amount > 100

    world = World(ann(1), ann(1000), needed=much)
    async with open_backend([world.agent]) as backend:
        run = await backend.start(world.agent, "pay")
        await _settled(backend)
        assert world.paid == [("Ann", 1)]
        (one,) = await backend.approvals()
        await backend.reject(one)
        result = await run.result()
        assert len(result.messages) == 6
    assert world.paid == [("Ann", 1)]
    assert judged == [1, 1000], "the verdict is taken once, and recorded"


async def test_a_verdict_that_cannot_be_had_is_no_yes(open_backend: Open) -> None:
    world = World(ann(1), needed=lambda amount: "perhaps")
    async with open_backend([world.agent]) as backend:
        result = await backend.invoke(world.agent, "pay")
    ((said, error),) = answers(result)
    assert error
    assert "must return True or False" in said
    assert world.paid == []


async def test_what_cannot_be_asked_is_refused_at_definition() -> None:
    async def slow(amount: int) -> bool:
        return True

    wrongs: tuple[Any, ...] = (slow, lambda price: True, lambda amount, *others: True)
    for wrong in wrongs:
        with pytest.raises(DefinitionError, match="requires_approval="):

            @tool(requires_approval=wrong)
            async def pay(amount: int) -> None: ...


async def test_a_crash_anywhere_pays_once_what_a_person_wrote() -> None:
    paid: set[tuple[str, int]] = set()

    @tool(requires_approval=lambda amount: amount > 100)
    async def pay(amount: int) -> str:
        """Pay."""
        paid.add((current_step().idempotency_key, amount))
        return f"paid {amount}"

    def fresh() -> tuple[Agent, set[tuple[str, int]]]:
        paid.clear()
        model = ScriptedModel(call("pay", amount=1), call("pay", amount=1000), "done")
        return Agent("clerk", model=model, instructions="", tools=[pay]), paid

    report = await crash_matrix(fresh, "pay", functions=[answering], state=lambda made: sorted(n for _, n in made))
    assert report.ok, report
    keys = {step.key for step in report.steps}
    assert {"request-pay", "tool-pay", "request-pay:1", "gather[0]/approve-pay", "tool-pay:1"} <= keys


@function("answering", triggers=["durably/approval.requested"])
async def answering(ctx: Context[Any]) -> None:
    event = approve(ctx.input["approval"], by="Zoe", arguments={"amount": 50})
    await ctx.step.send_event("answer", event)
