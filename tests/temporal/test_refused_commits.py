"""A server that refuses what a worker reports: once, and it is reported again; for good, and it is as after a crash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import Client

from durably.backends.temporal import TemporalBackend
from durably.core import Context, Event, current_step, function
from durably.core.ids import new_id
from tests.temporal.refusing_link import INVALID_ARGUMENT, UNAVAILABLE, RefusingLink

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]

COMMITS = ("RespondActivityTaskCompleted", "RespondActivityTaskFailed", "RespondWorkflowTaskCompleted")

executions: Counter[tuple[str, str]] = Counter()
"""How often each body ran, by its run and its step's key."""

attempts: dict[str, list[int]] = {}
"""The numbers of its executions, by its idempotency key."""


async def effect(name: str) -> str:
    step = current_step()
    executions[step.run_id, step.key] += 1
    attempts.setdefault(step.idempotency_key, []).append(step.attempt)
    if name == "fails" and step.attempt == 1:
        raise ConnectionError("once")
    return name


@function("refused-child")
async def child(ctx: Context[None]) -> str:
    return await ctx.step.run("inner", effect, "inner")


@function("refused-main", retries=1)
async def main(ctx: Context[None]) -> list[Any]:
    step = ctx.step

    async def closure() -> str:
        return await effect("closure")

    first = await step.run("first", effect, "first")
    failed = await step.run("fails", effect, "fails")
    local = await step.run("closure", closure)
    both = await step.gather(lambda: step.run("left", effect, "left"), lambda: step.run("right", effect, "right"))
    event, _ = await step.gather(
        lambda: step.wait_for_event("wait", "refused/told", match={"run": ctx.run_id}, timeout=60),
        lambda: step.send_event("tell", Event("refused/told", {"run": ctx.run_id})),
    )
    await step.sleep("nap", 0.01)
    return [first, failed, local, *both, event is not None, await step.invoke("call", child)]


RESULT = ["first", "fails", "closure", "left", "right", True, "inner"]


async def run_refused(address: str, refuses: Callable[[str], int | None]) -> tuple[list[Any], list[str]]:
    """Run it with a worker of whose reports some are refused; its result, and those."""
    executions.clear()
    attempts.clear()
    async with RefusingLink(address, refuses).running() as link:
        client = await Client.connect(link.address)
        queue = f"refused-{new_id()}"
        backend = TemporalBackend(client, functions=[main, child], task_queue=queue, heartbeat=timedelta(seconds=1))
        async with backend:
            result = await backend.invoke(main)
        return result, link.refused


@pytest.mark.parametrize("method", COMMITS)
async def test_each_commit_is_refused_once_and_changes_nothing(temporal_address: str, method: str) -> None:
    count = 0

    def every_other(name: str) -> int | None:
        nonlocal count
        if name != method:
            return None
        count += 1
        return UNAVAILABLE if count % 2 else None

    result, refused = await run_refused(temporal_address, every_other)
    assert result == RESULT
    assert len(refused) >= (1 if method == COMMITS[1] else 5)
    assert {key: ran for (_, key), ran in executions.items() if ran > 1} == {"fails": 2}, "no body runs again for that"


async def test_a_commit_that_is_refused_for_good_is_made_by_the_next_attempt(temporal_address: str) -> None:
    seen: list[str] = []

    def first(name: str) -> int | None:
        if name != COMMITS[0]:
            return None
        seen.append(name)
        return INVALID_ARGUMENT if len(seen) == 1 else None

    result, refused = await run_refused(temporal_address, first)
    assert (result, len(refused)) == (RESULT, 1)
    ran_again = {key: ran for (_, key), ran in executions.items() if ran > 1}
    assert ran_again == {"first": 2, "fails": 2}, "the engine cannot know that the body had its effect"
    assert all(numbers == [1, 2][: len(numbers)] for numbers in attempts.values()), "under the same idempotency key"
