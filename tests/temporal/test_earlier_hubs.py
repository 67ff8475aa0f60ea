"""Runs in flight under the hubs of version 0.1.0, of which there was one for each event name, are taken over."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowExecutionStatus

from durably.backends.temporal import TemporalBackend, worker
from durably.backends.temporal.earlier_hub import HUB, EventHub, hub_id
from durably.backends.temporal.event_facts import EventFacts
from durably.backends.temporal.payloads import WAIT
from durably.core import Context, Event, Run, function
from durably.core.ids import new_id
from tests.temporal.conftest import OpenTemporal
from tests.temporal.test_code_change import OPTIONS

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]


@workflow.defn(name=HUB)
class HubOfBefore(EventHub):
    """A hub as version 0.1.0 ran it."""

    @workflow.run
    async def run(self, state: dict[str, Any]) -> None:
        await self._work()


class Before:
    """What a program of version 0.1.0 does.

    Args:
        client: The way to the server.
        queue: The task queue of the hubs.
    """

    def __init__(self, client: Client, queue: str) -> None:
        self._client = client
        self._queue = queue

    async def tell(self, name: str, signal: str, message: Mapping[str, Any]) -> None:
        """Signal the hub of an event name, which is started if it is not there."""
        await self._client.start_workflow(
            HUB,
            {},
            id=hub_id(self._queue, name),
            task_queue=self._queue,
            start_signal=signal,
            start_signal_args=[message],
        )

    async def send(self, event: Event) -> None:
        await self.tell(event.name, "publish", event.model_dump(mode="json"))

    async def wait(self, name: str, run_id: str, key: str, match: dict[str, Any]) -> None:
        await self.tell(name, "wait", {"run": run_id, "key": key, "match": match})

    def open(self, backend: TemporalBackend, monkeypatch: pytest.MonkeyPatch) -> TemporalBackend:
        """A backend whose worker works with hubs as that version did."""
        monkeypatch.setattr(worker, "EventHub", HubOfBefore)
        monkeypatch.setitem(backend._host.registry._system, WAIT, self.wait)
        return backend


@function("taken")
async def taken(ctx: Context[str]) -> list[Any]:
    """Waits under the hub of before, then as it is done now; or its time is up."""
    first = await ctx.step.wait_for_event("one", ctx.input, match={"run": ctx.run_id}, timeout=5)
    again = await ctx.step.wait_for_event("two", ctx.input, match={"run": ctx.run_id}, timeout=0.5)
    return [each and each.data["n"] for each in (first, again)]


async def until(run: Run[Any], key: str) -> None:
    while not any(each.key == key for each in await run.history()):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def until_ended(client: Client, hub: str) -> None:
    while (await client.get_workflow_handle(hub).describe()).status is WorkflowExecutionStatus.RUNNING:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def test_who_waits_under_an_earlier_hub_is_told_once(
    open_temporal: OpenTemporal, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"taken/{new_id()}"
    backend = open_temporal(taken, **OPTIONS)
    before = Before(backend.client, backend.task_queue)
    with monkeypatch.context() as patch:
        async with before.open(backend, patch):
            runs = [await backend.start(taken, name) for _ in range(3)]
            for run in runs:
                await until(run, "one")
    hub = hub_id(backend.task_queue, name)
    async with open_temporal(taken, **OPTIONS) as now:
        early, late, never = [await now.run(run.id) for run in runs]
        await now.send(Event(name, {"run": early.id, "n": 1}))
        await before.send(Event(name, {"run": late.id, "n": 2}, id=f"{name}-2"))
        assert [await early.result(), await late.result()] == [[1, None], [2, None]]
        assert await never.result() == [None, None]
        await until_ended(now.client, hub)
        histories = [await now.client.get_workflow_handle(run.id).fetch_history() for run in (early, late, never)]
    told = [sum(e.HasField("workflow_execution_signaled_event_attributes") for e in each.events) for each in histories]
    assert told == [1, 1, 0]


async def test_what_programs_of_before_send_and_subscribe_is_handed_on(
    open_temporal: OpenTemporal, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"handed/{new_id()}"
    heard: list[int] = []

    @function("hears", triggers=[name])
    async def hears(ctx: Context[dict[str, Any]]) -> None:
        await ctx.step.run("note", lambda: heard.append(ctx.input["n"]))

    backend = open_temporal(taken, hears, **OPTIONS)
    before = Before(backend.client, backend.task_queue)
    with monkeypatch.context() as patch:
        async with before.open(backend, patch):
            await before.tell(name, "subscribe", {"foreign": "elsewhere"})
            await before.send(Event(name, {"n": 0}, id=f"{name}-0"))
            while not heard:
                await backend.send(Event(name, {"n": 1}, id=f"{name}-1"))
                await asyncio.sleep(0.05)
    async with open_temporal(taken, hears, **OPTIONS) as now:
        run = await now.start(taken, name)
        await until(run, "one")
        for number in (1, 2, 3):
            await before.send(Event(name, {"run": run.id if number == 3 else "", "n": number}, id=f"{name}-{number}"))
        assert await run.result() == [3, None]
        await until_ended(now.client, hub_id(now.task_queue, name))
        facts = await EventFacts(now.client, now.task_queue).read(name)
    assert sorted(heard) == [1, 2, 3]
    assert facts.triggers == {"foreign": "elsewhere", "hears": now.task_queue}
