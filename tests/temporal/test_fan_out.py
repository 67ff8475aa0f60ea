"""Many branches of one run begin in lots, one in each workflow task. Larger with ``DURABLY_LONG=1``."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from temporalio.api.history.v1 import HistoryEvent
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.client import WorkflowHistory

from durably.backends.temporal import TemporalBackend, pace, workflow_runner
from durably.backends.temporal.pace import PACED, WOKEN
from durably.backends.temporal.steps import TemporalSteps
from durably.core import Context, Event, InvokeError, function
from durably.core.ids import new_id
from tests.temporal.conftest import OpenTemporal
from tests.temporal.test_before import cut, open_now

ALL = bool(os.environ.get("DURABLY_LONG"))
OPTIONS: dict[str, Any] = {"heartbeat": timedelta(seconds=60)}
"""A worker that has much to do is not to be taken for dead."""

BRANCHES, CHILDREN, LOT = (1_000, 1_000, pace.AT_ONCE) if ALL else (120, 20, 50)

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(3_000 if ALL else 120)]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lot that is as small as the load."""
    monkeypatch.setattr(pace, "AT_ONCE", LOT)


def double(number: int) -> int:
    return 2 * number


@function("leaf")
async def leaf(ctx: Context[int]) -> int:
    return ctx.input


@function("fan")
async def fan(ctx: Context[list[int]]) -> list[Any]:
    """So many steps side by side, then so many children."""
    step = ctx.step
    branches, children = ctx.input
    doubling = [lambda number=n: step.run("double", double, number) for n in range(branches)]
    calling = [lambda number=n: step.invoke("leaf", leaf, number) for n in range(children)]
    doubled, called = await step.gather(*doubling), await step.gather(*calling)
    return [sum(doubled), sum(called)]


@function("answered")
async def answered(ctx: Context[int]) -> list[Any]:
    """The first branch sends what the last one waits for; those between wait for what does not come."""
    step, name = ctx.step, f"fan/{ctx.run_id}"
    ears = [partial(step.wait_for_event, "ear", name, match={"n": n}, timeout=0.2) for n in range(ctx.input - 2)]
    last = partial(step.wait_for_event, "ear", name, match={"n": -1})
    tell = partial(step.send_event, "tell", Event(name, {"n": -1}))
    branches: list[Callable[[], Awaitable[Any]]] = [tell, *ears, last]
    sent, *heard = await step.gather(*branches)
    return [len(sent), *(event and event.data["n"] for event in heard)]


async def history_of(backend: TemporalBackend, run_id: str) -> WorkflowHistory:
    return await backend.client.get_workflow_handle(run_id).fetch_history()


def begun_in(history: WorkflowHistory) -> Counter[int]:
    """How many activities and children began in each workflow task."""
    begun: Counter[int] = Counter()
    for event in history.events:
        for kind in ("activity_task_scheduled", "start_child_workflow_execution_initiated"):
            if event.HasField(f"{kind}_event_attributes"):  # type: ignore[arg-type]
                begun[getattr(event, f"{kind}_event_attributes").workflow_task_completed_event_id] += 1
    return begun


def of_kind(history: WorkflowHistory, kind: str) -> list[HistoryEvent]:
    return [event for event in history.events if event.HasField(f"{kind}_event_attributes")]  # type: ignore[arg-type]


@pytest.mark.parametrize(("sizes", "cached"), [((BRANCHES, CHILDREN), 1_000), ((60, 25), 0)], ids=["cached", "evicted"])
async def test_no_task_begins_more_than_a_lot(open_temporal: OpenTemporal, sizes: tuple[int, int], cached: int) -> None:
    branches, children = sizes
    async with open_temporal(fan, leaf, worker_options={"max_cached_workflows": cached}, **OPTIONS) as backend:
        run = await backend.start(fan, [branches, children])
        assert await run.result() == [branches * (branches - 1), children * (children - 1) // 2]
        history = await history_of(backend, run.id)
    begun = begun_in(history)
    assert begun.total() >= branches + children
    assert max(begun.values()) <= LOT + 1, "and the activity that completes the task"


async def test_a_wait_in_the_last_branch_is_known_before_the_first_sends_its_event(open_temporal: OpenTemporal) -> None:
    async with open_temporal(answered, **OPTIONS) as backend:
        run = await backend.start(answered, 3 * LOT)
        assert await run.result() == [1, *[None] * (3 * LOT - 2), -1]
        history = await history_of(backend, run.id)
        waits = [each.key for each in await run.history() if each.kind == "wait_for_event"]
    assert Counter(waits) == {f"gather[{n}]/ear": 2 for n in range(1, 3 * LOT)}, "each has begun, and ended"
    scheduled = of_kind(history, "activity_task_scheduled")
    assert len(scheduled) < LOT, "they are registered together"


@pytest.mark.parametrize("patch", [None, PACED, WOKEN])
async def test_a_run_in_flight_is_taken_up_at_each_of_its_tasks(
    open_temporal: OpenTemporal, temporal_address: str, monkeypatch: pytest.MonkeyPatch, patch: str | None
) -> None:
    """Begun under each version: all branches at once, in lots, and each woken for its own event."""
    monkeypatch.setattr(pace, "AT_ONCE", 10)
    with monkeypatch.context() as before:
        before.setattr(pace, "PATCHES", (patch,))
        if patch is None:
            before.setattr(pace, "SEVERAL", sys.maxsize)
        async with open_temporal(fan, leaf, answered, **OPTIONS) as backend:
            runs = [await backend.start(fan, [25, 22]), await backend.start(answered, 25)]
            for run in runs:
                await run.result()
            histories = [await history_of(backend, run.id) for run in runs]
    for history in histories:
        markers = str(of_kind(history, "marker_recorded"))
        assert [each for each in (PACED, WOKEN) if each in markers] == ([patch] if patch else [])
    async with open_now(temporal_address, [fan, leaf, answered]) as now:
        for history in histories:
            for piece in cut(history):
                await now.replay(piece)
            await now.replay(history)


async def test_a_replay_costs_each_branch_the_same_however_many_there_are(
    open_temporal: OpenTemporal, temporal_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_temporal(fan, leaf, **OPTIONS) as backend:
        histories = []
        for size in (50, 150):
            run = await backend.start(fan, [size, 0])
            await run.result()
            histories.append(await history_of(backend, run.id))
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    activate = workflow_runner._CheckedInstance.activate

    def counted(self: Any, act: WorkflowActivation) -> Any:
        sys.setprofile(count)
        try:
            return activate(self, act)
        finally:
            sys.setprofile(None)

    monkeypatch.setattr(workflow_runner._CheckedInstance, "activate", counted)
    costs = []
    async with open_now(temporal_address, [fan, leaf]) as now:
        for history in histories:
            calls = 0
            await now.replay(history)
            costs.append(calls)
    assert 0 < costs[1] < 3.3 * costs[0], costs


async def test_one_branch_too_many_is_refused_before_anything_is_begun(open_temporal: OpenTemporal) -> None:
    limit = TemporalSteps.most_branches or 0
    async with open_temporal(fan, leaf, **OPTIONS) as backend:
        run = await backend.start(fan, [limit + 1, 0], run_id=new_id())
        with pytest.raises(InvokeError, match=rf"{limit + 1:,}.*{limit:,}") as refused:
            await run.result()
        history = await history_of(backend, run.id)
    assert refused.value.error_type == "TooManyStepsError"
    assert begun_in(history).total() == 0
