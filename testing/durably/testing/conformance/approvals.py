"""C31: what waits for a person can be listed, and is answered once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from durably.core import (
    Agent,
    ApprovalDecision,
    ApprovalNotPendingError,
    Backend,
    PendingApproval,
    SerializationError,
    current_step,
    tool,
    toolset,
)
from durably.core.messages import ToolResultMessage
from durably.testing.conformance.subject import Subject, at
from durably.testing.conformance.suite import clause
from durably.testing.models.scripted import ScriptedModel, call


class _Clerk:
    """An agent that asks before it pays much, what it paid, and about which amounts it thought."""

    def __init__(self, *amounts: int, listed: bool = False) -> None:
        self.paid: dict[str, int] = {}
        self.judged: list[int] = []

        def much(amount: int) -> bool:
            self.judged.append(amount)
            return amount > 100

        @tool(requires_approval=much)
        async def pay(amount: int) -> str:
            """Pay."""
            self.paid[current_step().idempotency_key] = amount
            return f"paid {amount}"

        script: list[Any] = [call("pay", amount=amount) for amount in amounts]
        tools = [toolset(lambda: [pay], name="desk")] if listed else [pay]
        self.agent = Agent("c31-clerk", model=ScriptedModel(*script, "done"), instructions="", tools=tools)

    @property
    def amounts(self) -> list[int]:
        return list(self.paid.values())


async def _pending(backend: Backend, run_id: str, subject: Subject) -> PendingApproval:
    while True:
        found = await backend.approvals(run=run_id)
        if found:
            assert len(found) == 1
            return found[0]
        await asyncio.sleep(min(subject.unit / 100, 0.01))


def _told(messages: Any) -> list[str]:
    return [str(each.content) for each in messages if isinstance(each, ToolResultMessage)]


@asynccontextmanager
async def _still(subject: Subject) -> AsyncIterator[None]:
    with subject.still():
        yield


@clause
async def test_c31_what_is_pending_is_listed_until_it_is_answered(subject: Subject) -> None:
    clerk = _Clerk(1000)
    async with subject.open([clerk.agent]) as backend, _still(subject):
        run = await backend.start(clerk.agent, "pay", run_id=subject.run_id())
        asked = await _pending(backend, run.id, subject)
        assert (asked.run_id, asked.function, asked.step, asked.tool) == (run.id, "c31-clerk", "request-pay", "pay")
        assert asked.arguments == {"amount": 1000}
        assert asked.expires_at is None
    async with subject.open([clerk.agent]) as backend, _still(subject):
        assert await _pending(backend, run.id, subject) == asked, "over a restart too"
        await backend.reject(asked, "too much", by="Zoe")
        run = await backend.run(run.id)
        assert _told((await run.result()).messages) == ["pay was not run: a person refused it: too much"]
        assert await backend.approvals(run=run.id) == []
    assert clerk.amounts == []


@clause
async def test_c31_a_tool_runs_with_the_arguments_that_a_person_wrote(subject: Subject) -> None:
    clerk = _Clerk(1000)
    async with subject.open([clerk.agent]) as backend, _still(subject):
        run = await backend.start(clerk.agent, "pay", run_id=subject.run_id())
        asked = await _pending(backend, run.id, subject)
        decision = await backend.approve(asked.id, by="Zoe", arguments={"amount": 10})
        (said,) = _told((await run.result()).messages)
        text = (await run.history()).to_jsonl()
    assert clerk.amounts == [10]
    assert said == 'A person changed the arguments: pay was run with {"amount": 10}\npaid 10'
    assert decision.by == "Zoe"
    assert "Zoe" in text, "it is recorded who decided"


@clause
async def test_c31_edited_arguments_that_do_not_fit_record_nothing(subject: Subject) -> None:
    clerk = _Clerk(1000)
    async with subject.open([clerk.agent]) as backend, _still(subject):
        run = await backend.start(clerk.agent, "pay", run_id=subject.run_id())
        asked = await _pending(backend, run.id, subject)
        for wrong in ({"amount": "much"}, {}, {"amount": 1, "now": True}):
            try:
                await backend.approve(asked, arguments=wrong)
            except SerializationError:
                continue
            raise AssertionError(f"{wrong} was taken")
        await backend.approve(asked, arguments={"amount": 10})
        await run.result()
    assert clerk.amounts == [10]


@clause
async def test_c31_of_two_answers_the_second_is_told_who_was_first(subject: Subject) -> None:
    clerk = _Clerk(1000)
    async with subject.open([clerk.agent]) as backend, _still(subject):
        run = await backend.start(clerk.agent, "pay", run_id=subject.run_id())
        asked = await _pending(backend, run.id, subject)
        answers = (backend.approve(asked, by="Ann"), backend.reject(asked, "no", by="Bob"))
        both = await asyncio.gather(*answers, return_exceptions=True)
        (first,) = [each for each in both if isinstance(each, ApprovalDecision)]
        (second,) = [each for each in both if not isinstance(each, ApprovalDecision)]
        assert isinstance(second, ApprovalNotPendingError)
        assert second.by == first.by, "it names who was first"
        result = await run.result()
        assert clerk.amounts == ([1000] if first.approved else [])
        assert _told(result.messages)[0].startswith("paid" if first.approved else "pay was not run")
        for late in (asked.id, "nobody::asked-this"):
            try:
                await backend.approve(late)
            except ApprovalNotPendingError:
                continue
            raise AssertionError("an answer to nothing pending was taken")


@clause
async def test_c31_whether_a_person_is_asked_is_decided_once(subject: Subject) -> None:
    await _decided_once(subject, _Clerk(1, 1000))


@clause
async def test_c31_whether_a_person_is_asked_about_a_tool_of_a_toolset_is_decided_once(subject: Subject) -> None:
    await _decided_once(subject, _Clerk(1, 1000, listed=True))


async def _decided_once(subject: Subject, clerk: _Clerk) -> None:
    assert await subject.crash(clerk.agent, data="pay", where=at("after_commit", "tool-pay"))
    async with subject.open([clerk.agent]) as backend, _still(subject):
        run = await backend.run(subject.run_id())
        asked = await _pending(backend, run.id, subject)
        await backend.approve(asked)
        await run.result()
        assert len(_told((await run.result()).messages)) == 2
    assert clerk.judged == [1, 1000]
    assert clerk.amounts == [1, 1000]
