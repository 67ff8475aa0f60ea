"""Single words of clauses: every condition, to the last digit, of one function alone, once and for all."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from durably.core import (
    Agent,
    AgentInput,
    ApprovalNotPendingError,
    Backend,
    Context,
    Event,
    NonRetriableError,
    RetryPolicy,
    RunStatus,
    SerializationError,
    Singleton,
    function,
    tool,
)
from durably.core.messages import Message, assistant, user
from durably.core.model import ModelRequest
from durably.core.secrets import MASK
from durably.core.sessions import MemorySessions
from durably.testing.conformance.subject import Subject, at, heard
from durably.testing.conformance.suite import clause
from durably.testing.models.scripted import ScriptedModel, call

# -- numbers and order

NUMBERS: list[Any] = [
    *(0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 1e16, 123456789.12345678),
    *(2**53 + 1, -(2**63), 10**40, 0, True),
]
"""Numbers that a shorter form, a float for an integer or another sign would change."""


class _Money(BaseModel):
    model_config = ConfigDict(validate_by_name=True)

    amount: Decimal = Field(alias="betrag")
    rates: list[float]


def _money() -> _Money:
    return _Money(amount=Decimal("12.3400"), rates=[0.1 + 0.2, 1e-7])


def _ordered() -> dict[str, Any]:
    return {"z": 1, "a": {"y": [3, 1, 2], "b": None}, "10": 0, "9": 0}


def _shown(value: Any) -> str:
    """All of a value: the sign of a zero, the order of keys, the zeros at the end of a decimal."""
    return repr(value)


async def _echo(value: Any) -> Any:
    return value


@clause
async def test_c04_numbers_and_order_are_exact_to_the_last_digit(subject: Subject) -> None:
    passes: list[list[str]] = []

    @function("child")
    async def child(ctx: Context[Any]) -> Any:
        return ctx.input

    @function("exact")
    async def exact(ctx: Context[Any]) -> Any:
        values = [
            ctx.input,
            await ctx.step.run("numbers", _echo, NUMBERS),
            await ctx.step.run("order", _ordered),
            await ctx.step.run("money", _money),
            await ctx.step.invoke("call", child, {"numbers": NUMBERS, "order": _ordered()}),
        ]
        passes.append([_shown(value) for value in values])
        await ctx.step.run("last", len, "x")
        return [NUMBERS, _ordered()]

    data = {"numbers": NUMBERS, "order": _ordered()}
    assert await subject.crash(exact, child, data=data, where=at("before_body", "last"))
    result, history = await subject.run(exact, child, data=data)
    wanted = [_shown(each) for each in (data, NUMBERS, _ordered(), _money(), data)]
    assert len(passes) > 1
    assert passes == [wanted] * len(passes)
    assert _shown(result) == _shown([NUMBERS, _ordered()])
    kept = next(record for record in history if record.key == "numbers" and record.final)
    assert _shown(json.loads(kept.output or "")) == _shown(NUMBERS)


@clause
async def test_c17_the_data_of_an_event_is_exact_to_the_last_digit(subject: Subject) -> None:
    got: list[str] = []

    @function("listener", triggers=["c17/exact"])
    async def listener(ctx: Context[Any]) -> None:
        got.append(_shown(ctx.input))

    @function("teller")
    async def teller(ctx: Context[None]) -> None:
        await ctx.step.send_event("tell", Event("c17/exact", {"numbers": NUMBERS, "order": _ordered()}))

    async with subject.open([teller, listener]) as backend:
        await backend.invoke(teller)
        await subject.until(lambda: bool(got))
    assert set(got) == {_shown({"numbers": NUMBERS, "order": _ordered()})}


# -- every condition of a match


@clause
async def test_c20_every_condition_of_a_match_must_hold(subject: Subject) -> None:
    registered = asyncio.Event()
    match = {"order.id": 7, "order.kind": "refund", "by": "ann"}

    @function("waiter")
    async def waiter(ctx: Context[None]) -> Any:
        async def tell() -> None:
            registered.set()

        event, _ = await ctx.step.gather(
            lambda: ctx.step.wait_for_event("reply", "c20/all", match=match), lambda: ctx.step.run("tell", tell)
        )
        return event and event.data["number"]

    order = {"id": 7, "kind": "refund"}
    async with subject.open([waiter]) as backend:
        run = await backend.start(waiter)
        await registered.wait()
        await backend.send(Event("c20/all", {"number": 1, "order": {**order, "id": 8}, "by": "ann"}))
        await backend.send(Event("c20/all", {"number": 2, "order": {**order, "kind": "sale"}, "by": "ann"}))
        await backend.send(Event("c20/all", {"number": 3, "order": order, "by": "bob"}))
        await backend.send(Event("c20/all", {"number": 4, "order": order}))
        await backend.send(Event("c20/all", {"number": 5, "order": order, "by": "ann"}))
        assert await run.result() == 5


# -- what an end is


@clause
async def test_c21_no_end_is_changed_by_cancelling_later(subject: Subject) -> None:
    @function("ending", retries=0)
    async def ending(ctx: Context[str]) -> str:
        await ctx.step.run("work", len, "x")
        if ctx.input == "fail":
            raise NonRetriableError("as asked")
        if ctx.input == "wait":
            await ctx.step.sleep("nap", 10 * subject.unit)
        return ctx.input

    ends = {"done": RunStatus.COMPLETED, "fail": RunStatus.FAILED, "wait": RunStatus.CANCELLED}
    async with subject.open([ending]) as backend:
        for number, (data, status) in enumerate(ends.items()):
            run = await backend.start(ending, data, run_id=subject.run_id(number))
            if data == "wait":
                await run.cancel()
            await subject.until_ended(run)
            before = await run.history()
            await run.cancel()
            await run.refresh()
            assert run.status is status, data
            assert await run.history() == before, data
    async with subject.open([ending]) as backend:
        for number, (data, status) in enumerate(ends.items()):
            run = await backend.run(subject.run_id(number))
            await run.cancel()
            assert run.status is status, data
            assert (run.view.error or {}).get("type") == ("NonRetriableError" if data == "fail" else None), data


# -- what a key belongs to


@clause
async def test_c22_a_key_belongs_to_its_function(subject: Subject) -> None:
    ended: list[str] = []

    async def note(name: str) -> None:
        ended.append(name)

    def alone(name: str) -> Any:
        @function(name, singleton=Singleton("user", mode="skip"))
        async def one(ctx: Context[dict[str, str]]) -> None:
            await ctx.step.sleep("nap", subject.unit / 2)
            await ctx.step.run("note", note, name)

        return one

    first, second = alone("first"), alone("second")
    async with subject.open([first, second]) as backend:
        runs = [await backend.start(each, {"user": "ann"}) for each in (first, second)]
        for run in runs:
            await subject.until_ended(run)
        assert [run.status for run in runs] == [RunStatus.COMPLETED] * 2
    assert sorted(ended) == ["first", "second"]


@clause
async def test_c02_two_runs_share_no_key_and_no_child(subject: Subject) -> None:
    children: list[str] = []

    @function("child")
    async def child(ctx: Context[str]) -> str:
        children.append(ctx.run_id)
        return ctx.input

    @function("caller")
    async def caller(ctx: Context[str]) -> str:
        return await ctx.step.invoke("call", child, ctx.input)

    for number, name in enumerate(("ann", "bob")):
        result, _ = await subject.run(caller, child, data=name, number=number)
        assert result == name
    assert len(set(children)) == 2


# -- secrets of attempts that are tried again

_SECRET = "sk-live-2171717171"


@clause
async def test_c24_no_secret_is_in_an_attempt_that_is_tried_again(subject: Subject) -> None:
    tries: list[int] = []

    async def body() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise PermissionError(f"the key {_SECRET} is not allowed")
        return "done"

    @function("leaky", retries=2, retry_policy=RetryPolicy(initial=subject.unit / 8, jitter=0))
    async def leaky(ctx: Context[None]) -> str:
        said = await ctx.step.run("work", body, retries=2)
        if ctx.attempt == 1:
            raise ConnectionError(f"the function knows {_SECRET} too")
        return said

    with heard() as lines:
        result, history = await subject.run(leaky, secrets=[_SECRET])
    assert result == "done"
    failed = [record for record in history if record.status == "retrying"]
    assert [record.key for record in failed] == ["work", "work", ""]
    assert all(record.error is not None and MASK in json.dumps(record.error) for record in failed)
    for where, text in (
        ("a history", history.to_jsonl()),
        ("a log line", "\n".join(lines)),
        ("the storage", (subject.storage() or b"").decode(errors="replace")),
    ):
        assert _SECRET not in text, f"the secret is in {where}"


# -- long sessions

TURNS = 10_000


@clause
async def test_c06_a_session_of_ten_thousand_turns_goes_on_after_a_crash(subject: Subject) -> None:
    sessions = MemorySessions()
    said: list[Message] = []
    for turn in range(TURNS // 2):
        said += [user(f"question {turn}"), assistant(f"answer {turn}")]
    await sessions.append("long", said, key="before")
    seen: list[int] = []

    def answer(request: ModelRequest) -> str:
        seen.append(len(request.messages))
        return "the end"

    agent = Agent("talker", model=ScriptedModel(answer), instructions="Talk.", sessions=sessions)
    data = AgentInput(message="and now?", session_key="long")
    assert await subject.crash(agent, data=data, where=at("after_commit", "think"))
    result, history = await subject.run(agent, data=data)
    assert result.text == "the end"
    assert seen == [TURNS + 1]
    assert len(history.to_jsonl()) < 20_000, "a run does not repeat the session that it has read"
    assert len(await sessions.load("long")) == TURNS + 2


@clause
async def test_c13_poison_that_a_body_returns_can_be_caught_and_the_run_goes_on(subject: Subject) -> None:
    """What cannot be kept fails its step; the code that catches it goes on, and sees the same on replay."""
    poison: list[Any] = [object(), float("nan"), "\ud800"]
    caught: list[list[str]] = []

    @function("poisoned")
    async def poisoned(ctx: Context[None]) -> int:
        names: list[str] = []
        for number in range(len(poison)):
            try:
                await ctx.step.run("get", poison.__getitem__, number)
            except SerializationError as error:
                names.append(str(error))
        caught.append(names)
        return await ctx.step.run("last", len, names)

    assert await subject.crash(poisoned, where=at("before_body", "last"))
    result, _ = await subject.run(poisoned)
    assert result == len(poison)
    assert len(caught) > 1
    assert caught == [caught[0]] * len(caught)
    assert ["'get'" in each or f"'get:{number}'" in each for number, each in enumerate(caught[0])] == [True] * 3


# -- who was first, and when


@clause
async def test_c31_the_second_answer_is_told_when_the_first_one_came(subject: Subject) -> None:
    @tool(requires_approval=True)
    async def pay(amount: int) -> str:
        """Pay."""
        return f"paid {amount}"

    model = ScriptedModel(call("pay", amount=7), "done")
    agent = Agent("c31-teller", model=model, instructions="", tools=[pay])
    async with subject.open([agent]) as backend:
        run = await backend.start(agent, "pay", run_id=subject.run_id())
        with subject.still():
            await _answer_twice(subject, backend, run.id)
        assert (await run.result()).text == "done"


async def _answer_twice(subject: Subject, backend: Backend, run_id: str) -> None:
    found = await backend.approvals(run=run_id)
    while not found:
        await asyncio.sleep(min(subject.unit / 100, 0.01))
        found = await backend.approvals(run=run_id)
    before = subject.now(backend)
    await backend.approve(found[0].id, by="ann")
    try:
        await backend.reject(found[0].id, "no", by="bob")
    except ApprovalNotPendingError as error:
        assert error.by == "ann"
        assert error.at is not None
        assert before - 1 <= error.at <= subject.now(backend) + 1
    else:
        raise AssertionError("the second answer had to be refused")
