"""The refund: at most one, never without a yes, whatever people and machines do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.core import Agent, ApprovalNotPendingError, Context, approve, function
from durably.testing import crash_matrix
from examples import refund
from examples.refund import Bank, Refund, build, pending, script

pytestmark = pytest.mark.asyncio

PAID = [Refund("7", 20.0)]


def told(result: Any) -> str:
    (answer,) = [each.content for each in result.messages if each.role == "tool" and each.name == "refund"]
    return str(answer)


async def decide(bank: Bank, decision: Any) -> str:
    """Run the agent, with a person who decides; what the model is told of the refund."""
    agent = build(bank, script())
    async with MemoryBackend([agent]) as backend:
        run = await backend.start(agent, "I want my money back.")
        if decision is not None:
            await decision(backend, await pending(backend, run.id))
        return told(await run.result())


async def test_approved_while_the_bank_is_out() -> None:
    bank = Bank(outages=3)

    async def yes(backend: Any, asked: Any) -> None:
        await backend.approve(asked, by="Zoe")

    assert await decide(bank, yes) == "20.00 EUR for order 7 are on their way"
    assert list(bank.paid.values()) == PAID
    assert bank.calls == 4


async def test_approved_while_no_worker_is_up(tmp_path: Path) -> None:
    bank = Bank()
    agent = build(bank, script())
    async with SQLiteBackend(tmp_path / "runs.db", [agent]) as backend:
        run = await backend.start(agent, "I want my money back.", run_id="r")
        asked = await pending(backend, run.id)
    async with SQLiteBackend(tmp_path / "runs.db") as client:
        await client.approve(asked.id, by="Zoe")
    assert bank.paid == {}
    async with SQLiteBackend(tmp_path / "runs.db", [agent]) as backend:
        await (await backend.run("r")).result()
    assert list(bank.paid.values()) == PAID


async def test_approved_twice() -> None:
    bank = Bank()

    async def twice(backend: Any, asked: Any) -> None:
        await backend.approve(asked, by="Zoe")
        with pytest.raises(ApprovalNotPendingError, match="Zoe approved it"):
            await backend.approve(asked, by="Ann")
        await backend.send(approve(asked.id))  # as an event, which nobody checks

    await decide(bank, twice)
    assert list(bank.paid.values()) == PAID


async def test_approved_with_another_amount() -> None:
    bank = Bank()

    async def less(backend: Any, asked: Any) -> None:
        await backend.approve(asked, arguments={"order_id": "7", "amount": 15.0})

    assert "15.00 EUR for order 7" in await decide(bank, less)
    assert list(bank.paid.values()) == [Refund("7", 15.0)]


async def test_denied() -> None:
    bank = Bank()

    async def no(backend: Any, asked: Any) -> None:
        await backend.reject(asked, "it was delivered")

    assert await decide(bank, no) == "refund was not run: a person refused it: it was delivered"
    assert bank.calls == 0


async def test_nobody_answers() -> None:
    bank = Bank()
    assert "nobody answered in time" in await decide(bank, None)
    assert bank.calls == 0


@function("zoe", triggers=["durably/approval.requested"])
async def zoe(ctx: Context[Any]) -> None:
    await ctx.step.send_event("answer", approve(ctx.input["approval"], by="Zoe"))


def fresh() -> tuple[Agent, Bank]:
    bank = Bank()
    return build(bank, script()), bank


def amounts(bank: Bank) -> list[float]:
    return [each.amount for each in bank.paid.values()]


@pytest.mark.parametrize(("backend", "points"), [("memory", "*"), ("sqlite", ["after_effect", "child_started"])])
async def test_no_crash_pays_twice_or_never(backend: str, points: Any) -> None:
    report = await crash_matrix(fresh, "Money!", backend=backend, points=points, functions=[zoe], state=amounts)
    assert report.ok, report


async def test_the_program_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await refund.main(tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "refund {'order_id': '7', 'amount': 20.0}?",
        'Your refund: A person changed the arguments: refund was run with {"order_id": "7", "amount": 15.0}',
        "15.00 EUR for order 7 are on their way",
        "paid: [15.0]",
    ]
