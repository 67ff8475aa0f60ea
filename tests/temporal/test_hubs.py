"""Hubs of waiters under load: many signals, many waiters, many senders. Larger with ``DURABLY_LONG=1``."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from durably.backends.temporal import TemporalBackend, hub_client, hub_names, wait_hub
from durably.backends.temporal.hub_names import WAIT_HUB, hub_of_match, queue_of_hubs
from durably.backends.temporal.payloads import DELIVER
from durably.backends.temporal.wait_hub import WaitHub
from durably.core import Context, Event, Run, function
from durably.core.ids import new_id
from tests.temporal.conftest import OpenTemporal

log = logging.getLogger(__name__)

ALL = bool(os.environ.get("DURABLY_LONG"))
SENDERS = 200
PROCESSES = 40
"""How many processes they would be: what one has to say to a hub goes together."""

OPTIONS: dict[str, Any] = {"heartbeat": timedelta(seconds=60), "max_runs": 8, "max_steps": 32}
"""A worker that has much to do is not to be taken for dead, nor to take up more than it gets done in time."""

SIGNALS, CROWDS, EACH = (20_000, 200, 100) if ALL else (1_200, 6, 40)
"""How many signals come; how many runs wait, and each of them for how many events at once."""

WAITERS = CROWDS * EACH

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(3_000 if ALL else 120)]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that are as small as the load."""
    if not ALL:
        monkeypatch.setattr(wait_hub, "LONG", 300)
        monkeypatch.setattr(hub_client, "LONG", 300)
        monkeypatch.setattr(wait_hub, "TOLD_AT_ONCE", 3)


@function("listener")
async def listener(ctx: Context[str]) -> list[Any]:
    first = await ctx.step.wait_for_event("ear", ctx.input)
    again = await ctx.step.wait_for_event("ear", ctx.input, timeout=0.5)
    return [each and each.data for each in (first, again)]


@function("crowd")
async def crowd(ctx: Context[dict[str, Any]]) -> list[Any]:
    """Waits for many events at once."""
    waits = [partial(ctx.step.wait_for_event, "ear", ctx.input["name"], match=match) for match in ctx.input["matches"]]
    return [event and event.data for event in await ctx.step.gather(*waits)]


async def start(backend: TemporalBackend, name: str, matches: list[dict[str, Any]], each: int = EACH) -> list[Run[Any]]:
    """Runs that wait, each for so many of the matches."""
    inputs = [{"name": name, "matches": matches[place : place + each]} for place in range(0, len(matches), each)]
    runs = await in_turn([backend.start(crowd, given) for given in inputs])
    for run in runs:
        await until_waiting(run, each)
    return runs


async def until_waiting(run: Run[Any], count: int) -> None:
    while len([each for each in await run.history() if each.kind == "wait_for_event"]) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


def check_tasks(events: list[HistoryEvent]) -> None:
    """Check that no task of a history has failed, unless the machine was too busy to do it within two seconds."""
    failed = [event.workflow_task_failed_event_attributes for event in events]
    whys = [each.failure.message or str(each) for each in failed if each.ByteSize()]
    assert all("[TMPRL1101]" in why for why in whys), whys


async def check_hubs(backend: TemporalBackend) -> int:
    """Check that no hub has had more than one may; how many there have been."""
    queue = queue_of_hubs(backend.task_queue)
    found = 0
    async for hub in backend.client.list_workflows(f"WorkflowType = '{WAIT_HUB}' AND TaskQueue = '{queue}'"):
        handle = backend.client.get_workflow_handle(hub.id, run_id=hub.run_id)
        events = [event async for event in handle.fetch_history_events()]
        assert len(events) < 10_000, "Temporal refuses more signals"
        assert events[0].ByteSize() < 2 * wait_hub.HELD + 10_000, "it goes on with a bounded piece"
        check_tasks(events)
        found += 1
    return found


async def hub_events(client: Client, hub: str) -> int:
    """How many events the histories of a hub and its parts have, once none is added any more."""
    ids = [hub, *(f"{hub}/{part}" for part in range(wait_hub.PARTS))]
    counts = [-1]
    while counts[-1:] * 6 != counts[-6:]:
        await asyncio.sleep(0.1)
        counts.append(sum(await asyncio.gather(*(events_of(client, each) for each in ids))))
    return counts[-1]


async def events_of(client: Client, workflow_id: str) -> int:
    """How many events the history of a workflow has, if it is there."""
    try:
        return (await client.get_workflow_handle(workflow_id).describe()).history_length
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return 0


async def told(client: Client, run: Run[Any]) -> int:
    """How often a run was told of an event."""
    history = await client.get_workflow_handle(run.id).fetch_history()
    return len([e for e in history.events if e.workflow_execution_signaled_event_attributes.signal_name == DELIVER])


def offers_in(event: HistoryEvent) -> int:
    """Of how many events a hub is told by an event of its history."""
    signal = event.workflow_execution_signaled_event_attributes
    return len(json.loads(signal.input.payloads[0].data)) if signal.signal_name == "offer" else 0


def tells_in(events: list[HistoryEvent]) -> dict[str, int]:
    """How often a hub told runs in a history, by its commands and by activities."""
    return {
        "commands": sum(e.HasField("signal_external_workflow_execution_initiated_event_attributes") for e in events),
        "activities": sum(e.HasField("marker_recorded_event_attributes") for e in events),
    }


async def in_turn(work: list[Any]) -> list[Any]:
    """The results of work that is done by so many at once as there are senders."""
    turn = asyncio.Semaphore(SENDERS)

    async def one(each: Any) -> Any:
        async with turn:
            return await each

    return await asyncio.gather(*map(one, work))


async def histories(client: Client, hub: str, first: str | None) -> AsyncIterator[list[HistoryEvent]]:
    """The histories of a hub, from one on."""
    history = first
    while history:
        events = [event async for event in client.get_workflow_handle(hub, run_id=history).fetch_history_events()]
        yield events
        history = events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id


async def test_a_flood_of_signals_is_slowed_down_and_nothing_is_lost(open_temporal: OpenTemporal) -> None:
    name = f"flood/{new_id()}"
    async with open_temporal(listener, **OPTIONS) as backend:
        await backend.send(Event(name, "early", id=f"{name}-early"))
        run = await backend.start(listener, name)
        await until_waiting(run, 1)
        hub = hub_of_match(backend.task_queue, name, {})
        first = (await backend.client.get_workflow_handle(hub).describe()).run_id
        senders = [open_temporal() for _ in range(PROCESSES)]
        early = Event(name, "again", id=f"{name}-early")
        await in_turn([senders[n % PROCESSES].send(early) for n in range(SIGNALS)])
        await backend.send(Event(name, "now"))
        assert await run.result() == ["now", None], "the event that came again is not for who has waited since"
        found = [events async for events in histories(backend.client, hub, first)]
    came = sum(offers_in(event) for events in found for event in events)
    assert came >= SIGNALS, "all of them came"
    assert max(map(len, found)) < 10_000, "Temporal refuses more signals in one history"
    assert len(found) > 1, "it went on in fresh histories"
    for events in found:
        check_tasks(events)


async def test_each_of_many_waiters_gets_what_it_waits_for(open_temporal: OpenTemporal) -> None:
    name = f"many/{new_id()}"
    async with open_temporal(crowd, **OPTIONS) as backend:
        log.info("%d waiters", WAITERS)
        runs = await start(backend, name, [{"n": n} for n in range(WAITERS)])
        log.info("are registered")
        assert await check_hubs(backend) <= hub_names.HUBS, "however many wait, they share these"
        await in_turn([backend.send(Event(name, {"n": n, "of": n % 7})) for n in range(WAITERS)])
        log.info("are sent what they wait for")
        heard = [event for run in runs for event in await run.result()]
        log.info("have it")
        assert heard == [{"n": n, "of": n % 7} for n in range(WAITERS)]
        assert [await told(backend.client, run) for run in runs] == [EACH] * CROWDS
        await check_hubs(backend)


@pytest.mark.parametrize("same", [False, True], ids=["each for another value", "all for one value"])
async def test_what_a_hub_does_not_hold_its_parts_do(
    open_temporal: OpenTemporal, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    monkeypatch.setattr(hub_names, "HUBS", 1)
    monkeypatch.setattr(wait_hub, "HELD", 1_000)
    monkeypatch.setattr(wait_hub, "TOLD_AT_ONCE", 3)
    name = f"parts/{new_id()}"
    async with open_temporal(crowd, **OPTIONS) as backend:
        matches = [{"n": 0 if same else n} for n in range(30)]
        runs = await in_turn([backend.start(crowd, {"name": name, "matches": [each]}) for each in matches])
        for run in runs:
            await until_waiting(run, 1)
        for n in range(1 if same else 30):
            await backend.send(Event(name, {"n": n}))
        assert [await run.result() for run in runs] == [[each] for each in matches]
        assert [await told(backend.client, run) for run in runs] == [1] * 30
        assert await check_hubs(backend) > 5, "one hub, and its parts"


@pytest.mark.parametrize(("held", "cost"), [(wait_hub.HELD, 5), (16_000, 14)], ids=["in hubs", "in their parts"])
async def test_what_a_delivery_costs_does_not_grow_with_those_who_wait(
    open_temporal: OpenTemporal, monkeypatch: pytest.MonkeyPatch, held: int, cost: int
) -> None:
    monkeypatch.setattr(hub_names, "HUBS", 1)
    monkeypatch.setattr(wait_hub, "HELD", held)
    begun = 0
    begin = WaitHub.__init__

    def count(self: WaitHub) -> None:
        nonlocal begun
        begun += 1
        begin(self)

    monkeypatch.setattr(WaitHub, "__init__", count)
    costs = []
    for waiters in (200, 800):  # so many that no part runs out of them
        name = f"cost/{new_id()}"
        async with open_temporal(crowd, **OPTIONS) as backend:
            hub = hub_of_match(backend.task_queue, name, {})
            [run] = await start(backend, name, [{"n": n} for n in range(waiters)], each=waiters)
            before, begun = await hub_events(backend.client, hub), 0
            for n in range(10):
                await backend.send(Event(name, {"n": n}))
                while await told(backend.client, run) <= n:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            costs.append(await hub_events(backend.client, hub) - before)
            assert begun <= 2, "no history of a hub is replayed, but for one that a busy machine has lost"
            await run.cancel()
    assert max(costs) <= 10 * cost, "fewer where two events share a task"


async def test_a_hub_that_tells_runs_by_commands_goes_on_to_tell_them_by_an_activity(
    open_temporal: OpenTemporal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hubs began without `BEGIN` in a version before it. Replayed at each task, one is true to its history."""
    monkeypatch.setattr(hub_names, "HUBS", 1)
    monkeypatch.setattr(hub_client, "BEGIN", {})
    for module in (wait_hub, hub_client):
        monkeypatch.setattr(module, "LONG", 60)
    name = f"commands/{new_id()}"
    async with open_temporal(crowd, worker_options={"max_cached_workflows": 0}, **OPTIONS) as backend:
        hub = hub_of_match(backend.task_queue, name, {})
        runs = await start(backend, name, [{"n": n} for n in range(40)], each=20)
        first = (await backend.client.get_workflow_handle(hub).describe()).run_id
        for n in range(40):
            await backend.send(Event(name, {"n": n}))
        assert [event["n"] for run in runs for event in await run.result()] == [*range(40)]
        assert [await told(backend.client, run) for run in runs] == [20, 20]
        by_command, *by_activity = [tells_in(events) async for events in histories(backend.client, hub, first)]
    assert by_command["commands"] > 0
    assert by_command["activities"] == 0
    assert sum(each["activities"] for each in by_activity) > 0
    assert sum(each["commands"] for each in by_activity) == 0


async def test_one_event_is_for_many_waiters(open_temporal: OpenTemporal) -> None:
    name = f"all/{new_id()}"
    async with open_temporal(crowd, **OPTIONS) as backend:
        runs = await start(backend, name, [{"go": True}] * WAITERS)
        await backend.send(Event(name, {"go": 1}))
        await backend.send(Event(name, {"go": True, "n": 1}))
        assert [await run.result() for run in runs] == [[{"go": True, "n": 1}] * EACH] * CROWDS
        assert [await told(backend.client, run) for run in runs] == [EACH] * CROWDS
