"""The rules that decide when a run begins, beside models of them, with arrivals and restarts at any moment."""

from __future__ import annotations

import asyncio
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.memory import MemoryJournal
from durably.backends.replay.backend import ReplayBackend
from durably.backends.replay.clock import VirtualClock
from durably.core import Context, Event, Function, Singleton, function
from durably.core.errors import Signal
from durably.core.flow import Batch, Debounce, RateLimit, Throttle

BEGAN = 1767225600.0

Open = Callable[[list[Function[Any, Any]], VirtualClock], ReplayBackend]
Started = list[tuple[float, list[int]]]
"""When runs began, in seconds, and with the numbers of which events."""


class Gone(Signal):
    """The process is gone."""


@dataclass(frozen=True)
class Arrival:
    """An event: when it comes, of which key, and what happens to the worker just before."""

    at: float
    key: int
    before: str


@st.composite
def arrivals(draw: st.DrawFn) -> list[Arrival]:
    gaps = draw(st.lists(st.integers(0, 9), min_size=1, max_size=12))
    before = st.sampled_from(["", "", "", "restart", "crash"])
    return [Arrival(float(at), draw(st.integers(1, 2)), draw(before)) for at in accumulate(gaps)]


async def play(make: Open, events: list[Arrival], naps: float = 0.0, **options: Any) -> Started:
    """What an engine does with events that come at these moments."""
    seen: dict[str, tuple[float, list[int]]] = {}
    clock = VirtualClock(BEGAN)

    async def note(run_id: str, data: Any) -> None:
        batch = data if isinstance(data, list) else [data]
        seen.setdefault(run_id, (clock.now() - BEGAN, sorted(each["n"] for each in batch)))

    @function("ruled", triggers=["came"], **options)
    async def ruled(ctx: Context[Any]) -> None:
        await ctx.step.run("note", note, ctx.run_id, ctx.input)
        if naps:
            await ctx.step.sleep("nap", naps)

    @function("until")
    async def until(ctx: Context[float]) -> None:
        await ctx.step.sleep_until("moment", BEGAN + ctx.input)

    backend = await make([ruled, until], clock).__aenter__()
    for n, event in enumerate(events):
        await backend.invoke(until, event.at)
        if event.before:
            if event.before == "crash":
                backend.crash(Gone())
            await backend.__aexit__()
            backend = await make([ruled, until], clock).__aenter__()
        await backend.send(Event("came", {"key": event.key, "n": n}))
    await backend.invoke(until, events[-1].at + 1000)
    await backend.__aexit__()
    return sorted(seen.values(), key=lambda run: run[1])


def by_key(events: list[Arrival]) -> list[list[tuple[int, float]]]:
    """The numbers and moments of the events of each key."""
    found: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for n, event in enumerate(events):
        found[event.key].append((n, event.at))
    return list(found.values())


def debounced(events: list[Arrival], period: float, timeout: float) -> Started:
    started: Started = []
    for mine in by_key(events):
        since = due = -1.0
        last = -1
        for n, at in mine:
            if last >= 0 and at >= due:
                started.append((due, [last]))
                last = -1
            since = at if last < 0 else since
            last, due = n, min(at + period, since + timeout)
        started.append((due, [last]))
    return started


def throttled(events: list[Arrival], interval: int, at_once: int) -> Started:
    """A bucket of tokens: full at first, one more for each interval, each run takes one."""
    started: Started = []
    for mine in by_key(events):
        given_at: list[float] = []
        for n, at in mine:
            moment = at
            while not _has_token(given_at, moment, interval, at_once):
                moment += 1
            given_at.append(moment)
            started.append((moment, [n]))
    return started


def _has_token(given_at: list[float], moment: float, interval: int, at_once: int) -> bool:
    """Whether in no span up to now more runs began than the bucket held and got meanwhile."""
    if given_at and moment < given_at[-1]:
        return False
    together = [*given_at, moment]
    return all(
        len(together) - first <= at_once + (moment - together[first]) // interval for first in range(len(together))
    )


def limited(events: list[Arrival], limit: int, period: float) -> Started:
    started: Started = []
    for mine in by_key(events):
        kept: list[float] = []
        for n, at in mine:
            if len([each for each in kept if each > at - period]) < limit:
                kept.append(at)
                started.append((at, [n]))
    return started


def batched(events: list[Arrival], size: int, timeout: float) -> Started:
    started: Started = []
    for mine in by_key(events):
        batch: list[int] = []
        due = 0.0
        for n, at in mine:
            if batch and at >= due:
                started.append((due, batch))
                batch = []
            if not batch:
                due = at + timeout
            batch = [*batch, n]
            if len(batch) == size:
                started.append((at, batch))
                batch = []
        if batch:
            started.append((due, batch))
    return started


def queued(events: list[Arrival], naps: float) -> Started:
    started: Started = []
    for mine in by_key(events):
        free = 0.0
        for n, at in mine:
            begins = max(at, free)
            started.append((begins, [n]))
            free = begins + naps
    return started


RULES: dict[str, tuple[dict[str, Any], Callable[[list[Arrival]], Started]]] = {
    "debounce": ({"debounce": Debounce(period=5, timeout=12, key="key")}, lambda events: debounced(events, 5, 12)),
    "throttle": ({"throttle": Throttle(limit=2, period=8, burst=1, key="key")}, lambda events: throttled(events, 4, 3)),
    "rate_limit": ({"rate_limit": RateLimit(limit=2, period=7, key="key")}, lambda events: limited(events, 2, 7)),
    "batch": ({"batch": Batch(max_size=3, timeout=6, key="key")}, lambda events: batched(events, 3, 6)),
    "singleton": ({"singleton": Singleton("key", mode="queue"), "naps": 7.0}, lambda events: queued(events, 7)),
}


@pytest.mark.parametrize("rule", RULES)
@given(events=arrivals())
@settings(max_examples=60, deadline=None)
def test_memory_does_what_the_model_does(rule: str, events: list[Arrival]) -> None:
    options, model = RULES[rule]
    journal = MemoryJournal()
    found = asyncio.run(
        play(lambda served, clock: MemoryBackend(served, journal=journal, clock=clock), events, **options)
    )
    assert found == sorted(model(events), key=lambda run: run[1])


@pytest.mark.parametrize("rule", RULES)
@given(events=arrivals())
@settings(max_examples=12, deadline=None)
def test_sqlite_does_what_the_model_does(rule: str, events: list[Arrival]) -> None:
    options, model = RULES[rule]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "runs.db"
        found = asyncio.run(play(lambda served, clock: SQLiteBackend(path, served, clock=clock), events, **options))
    assert found == sorted(model(events), key=lambda run: run[1])
