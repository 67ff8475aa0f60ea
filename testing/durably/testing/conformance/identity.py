"""C01 and C02: what a step, a child, an event and an effect are called."""

from __future__ import annotations

import asyncio
from typing import Any

from durably.core import Context, Event, current_step, function
from durably.testing.conformance.subject import Subject, at, keys
from durably.testing.conformance.suite import clause


async def _echo(value: Any) -> Any:
    return value


@clause
async def test_c01_repeated_ids_are_numbered_in_program_order(subject: Subject) -> None:
    @function("thinking")
    async def thinking(ctx: Context[None]) -> list[int]:
        return [await ctx.step.run("think" if n != 1 else "look", _echo, n) for n in range(4)]

    result, history = await subject.run(thinking)
    assert result == [0, 1, 2, 3]
    assert keys(history) == ["think", "look", "think:1", "think:2"]


@clause
async def test_c01_keys_are_the_same_after_a_crash(subject: Subject) -> None:
    @function("thinking")
    async def thinking(ctx: Context[None]) -> list[int]:
        return [await ctx.step.run("think", _echo, n) for n in range(4)]

    assert await subject.crash(thinking, where=at("after_commit", "think:1"))
    assert await subject.crash(thinking, where=at("after_effect", "think:2"))
    result, history = await subject.run(thinking)
    assert result == [0, 1, 2, 3]
    assert keys(history) == ["think", "think:1", "think:2", "think:3"]


@clause
async def test_c01_branches_number_their_own_steps(subject: Subject) -> None:
    pace: dict[str, int] = {}

    async def slow(name: str, number: int) -> str:
        for _ in range(pace[name]):
            await asyncio.sleep(0)
        return f"{name}{number}"

    @function("branches")
    async def branches(ctx: Context[None]) -> list[list[str]]:
        async def branch(name: str) -> list[str]:
            return [await ctx.step.run("work", slow, name, number) for number in range(3)]

        return [*await ctx.step.gather(lambda: branch("left"), lambda: branch("right"))]

    seen = []
    for number, (left, right) in enumerate([(9, 0), (0, 9)]):
        pace.update(left=left, right=right)
        result, history = await subject.run(branches, number=number)
        assert result == [["left0", "left1", "left2"], ["right0", "right1", "right2"]]
        seen.append({record.key: record.value for record in history.steps()})
    assert seen[0] == seen[1]
    assert len(seen[0]) == 6, "each step of a branch has a key of its own"


@clause
async def test_c02_every_execution_of_a_step_has_one_idempotency_key(subject: Subject) -> None:
    seen: dict[tuple[str, str], list[str]] = {}

    async def charge() -> None:
        info = current_step()
        executions = seen.setdefault((info.run_id, info.key), [])
        executions.append(info.idempotency_key)
        if len(executions) == 1:
            raise ConnectionError("the bank hung up")

    @function("pay", retries=1)
    async def pay(ctx: Context[None]) -> None:
        await ctx.step.run("charge", charge)
        await ctx.step.run("charge", charge)

    assert await subject.crash(pay, where=at("after_effect", "charge"))
    await subject.run(pay)
    await subject.run(pay, number=1)
    first = seen[subject.run_id(), "charge"]
    assert len(first) == 3, "one failed, one was cut off, one counted"
    assert all(len(set(executions)) == 1 for executions in seen.values())
    assert len({executions[0] for executions in seen.values()}) == 4, "two steps of two runs are four effects"


@clause
async def test_c02_ids_of_children_and_events_outlive_crashes(subject: Subject) -> None:
    children: set[str] = set()
    told: list[str | None] = []

    @function("child")
    async def child(ctx: Context[None]) -> str:
        children.add(ctx.run_id)
        return await ctx.step.run("work", _echo, "done")

    @function("listener", triggers=["c02/told"])
    async def listener(ctx: Context[Any]) -> None:
        told.append(ctx.event.id)

    @function("parent", retries=1)
    async def parent(ctx: Context[None]) -> list[str]:
        await ctx.step.invoke("call", child)
        ids = await ctx.step.send_event("tell", Event("c02/told", 1), Event("c02/told", 2))
        if ctx.attempt == 1:
            raise ConnectionError("again, from the records")
        return ids

    everything = (parent, child, listener)
    assert await subject.crash(*everything, where=at("child_started", "call"))
    # A child on a server may have gone on without its parent: then the run ends here, with nothing left to crash.
    if await subject.crash(*everything, where=at("before_body", "work")):
        assert await subject.crash(*everything, where=at("after_send", "tell"))
    result, _ = await subject.run(*everything)
    async with subject.open(everything):
        await subject.until(lambda: len(set(told)) == 2)
    assert len(children) == 1
    assert set(result) == set(told)
    other, _ = await subject.run(*everything, number=1)
    assert len({*result, *other}) == 4
    assert len(children) == 2
