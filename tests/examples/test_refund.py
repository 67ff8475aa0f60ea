"""The refund: at most one, never without a yes, whatever people and machines do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.core import Agent, ApprovalNotPendingError, Context, Event, Function, approve, function, reject
from durably.testing import crash_matrix
from examples import refund
from examples.refund import Bank, Refund, build, pending, script

pytestmark = pytest.mark.asyncio

PAID = [Refund("7", 20.0)]


@dataclass
class Paid:
    """Reads what was paid after each crash: what was expected, and nothing else was ever asked for without a yes."""

    expected: list[float]

    def __call__(self, bank: Bank) -> list[float]:
        assert amounts(bank) == self.expected
        assert bool(bank.calls) == bool(self.expected)
        return self.expected


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


Person = Callable[[str], list[Event]]

APPROVES: Person = lambda asked: [approve(asked, by="Zoe")]  # noqa: E731

PEOPLE: dict[str, tuple[Person, list[float]]] = {
    "approves": (APPROVES, [20.0]),
    "approves twice": (lambda asked: [approve(asked, by="Zoe"), _again(approve(asked, by="Ann"))], [20.0]),
    "approves less": (lambda asked: [approve(asked, arguments={"order_id": "7", "amount": 15.0})], [15.0]),
    "denies": (lambda asked: [reject(asked, "it was delivered")], []),
    "says nothing": (lambda asked: [], []),
}
"""What a person may say to the request, and what is paid then."""


def _again(answer: Event) -> Event:
    return answer.model_copy(update={"id": f"{answer.id}-again"})


def zoe(person: Person) -> Function[Any, None]:
    """The person, as a function that hears of the request."""

    @function("zoe", triggers=["durably/approval.requested"])
    async def answers(ctx: Context[Any]) -> None:
        said = person(ctx.input["approval"])
        if said:
            await ctx.step.send_event("answer", *said)

    return answers


def fresh(outages: int = 0, patience: str = "2 days") -> tuple[Agent, Bank]:
    bank = Bank(outages=outages)
    return build(bank, script(), patience=patience), bank


def amounts(bank: Bank) -> list[float]:
    return [each.amount for each in bank.paid.values()]


@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_no_crash_pays_twice_or_without_a_yes(backend: str, person: str) -> None:
    says, expected = PEOPLE[person]
    report = await crash_matrix(fresh, "Money!", backend=backend, functions=[zoe(says)], state=Paid(expected))
    assert report.ok, report
    assert not report.error, report


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
async def test_no_crash_pays_twice_or_never_while_the_bank_is_out(backend: str) -> None:
    report = await crash_matrix(
        lambda: fresh(outages=2), "Money!", backend=backend, functions=[zoe(APPROVES)], state=Paid([20.0])
    )
    assert report.ok, report
    assert not report.error, report


async def test_the_program_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await refund.main(tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        "refund {'order_id': '7', 'amount': 20.0}?",
        'Your refund: A person changed the arguments: refund was run with {"order_id": "7", "amount": 15.0}',
        "15.00 EUR for order 7 are on their way",
        "paid: [15.0]",
    ]
