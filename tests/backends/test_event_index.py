"""An event is offered to the waits that it may end, and to no others: the index finds what a scan would find."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.backends import MemoryBackend
from durably.backends.memory import MemoryJournal
from durably.backends.replay.clock import VirtualClock
from durably.backends.replay.event_index import WaitIndex
from durably.backends.replay.events import EventWaiter, EventWaiters
from durably.backends.replay.journal_types import Received
from durably.backends.replay.scheduler import Scheduler
from durably.core import Event
from durably.core.events import json_key, matches, same_json
from tests.benchmarks.entries import calls_in

MANY = 10_000


class Colour(StrEnum):
    RED = "red"


PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([0.0, -0.0, 1.0, 1.5, 2.0**53, 2**53, 2**53 + 1, 1e300, 10**300]),
    st.sampled_from(["", "a", "1", "true", "red"]),
)
JSON = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("abc"), inner, max_size=2)),
    max_leaves=5,
)
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        Decimal("1.5"),
        Decimal(1),
        Colour.RED,
        {1},
        frozenset(),
        (1, True),
        float("nan"),
        b"a",
        object(),
        {1: "a"},
        1 + 0j,
    ]
)
VALUES = st.one_of(JSON, JSON, ODD, st.lists(ODD, max_size=2), st.dictionaries(st.sampled_from("ab"), ODD, max_size=1))
PATHS = st.sampled_from(["a", "b", "a.b", "data.a", "a.b.c", ""])


@dataclass(eq=False)
class Wait:
    name: str
    match: dict[str, Any] = field(default_factory=dict)


WAITS = st.lists(
    st.builds(Wait, st.sampled_from(["one", "two"]), st.dictionaries(PATHS, VALUES, max_size=3)), max_size=8
)


@given(VALUES, VALUES)
def test_values_that_are_the_same_json_have_the_same_key(one: Any, other: Any) -> None:
    keys = json_key(one), json_key(other)
    if same_json(one, other) and None not in keys:
        assert keys[0] == keys[1]
        assert hash(keys[0]) == hash(keys[1])


@given(JSON)
def test_what_was_read_from_json_has_a_key(value: Any) -> None:
    assert json_key(value) is not None


@given(WAITS, st.sets(st.integers(0, 7)), st.lists(st.tuples(st.sampled_from(["one", "two"]), VALUES), max_size=5))
def test_it_finds_what_a_scan_finds_in_the_same_order(
    waits: list[Wait], gone: set[int], events: list[tuple[str, Any]]
) -> None:
    index: WaitIndex[Wait] = WaitIndex()
    for wait in [*waits, *waits]:  # twice: the second time it is there
        index.add(wait)
    for number in gone & set(range(len(waits))):
        index.discard(waits[number])
        index.discard(waits[number])
    left = [wait for number, wait in enumerate(waits) if number not in gone]
    assert list(index) == left
    assert len(index) == len(left)
    assert set(index.names) == {wait.name for wait in left}
    wanted = [value for wait in left for value in (wait.match, *({path: value} for path, value in wait.match.items()))]
    data = [*events, *((wait.name, nested(wait.match)) for wait in left), *(("one", value) for value in wanted)]
    for name, value in data:
        event = Event.model_construct(name=name, data=value)
        scanned = [wait for wait in left if wait.name == name and matches(event, wait.match)]
        assert [wait for wait in index.find(event) if matches(event, wait.match)] == scanned


def nested(match: dict[str, Any]) -> dict[str, Any]:
    """Data that has the values of a match at its paths, as far as they are side by side."""
    data: dict[str, Any] = {}
    for path, value in match.items():
        *parents, last = path.removeprefix("data.").split(".")
        place = data
        for part in parents:
            inner = place.setdefault(part, {})
            place = inner if isinstance(inner, dict) else {}
        place[last] = deepcopy(value)
    return data


OTHERS: dict[str, Callable[[int], tuple[str, dict[str, Any]]]] = {
    "names": lambda number: (f"other-{number}", {"id": 7}),
    "values": lambda number: ("paid", {"id": f"order-{number}"}),
    "nested values": lambda number: ("paid", {"order.id": {"number": [number]}}),
    "values beside a common one": lambda number: ("paid", {"tenant": "acme", "id": -number}),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("others", OTHERS.values(), ids=OTHERS)
async def test_ten_thousand_other_waits_cost_a_delivery_nothing(
    others: Callable[[int], tuple[str, dict[str, Any]]],
) -> None:
    event = Event("paid", {"id": 7, "tenant": "acme", "order": {"id": {"number": [-1]}}}, id="event")

    def cost(count: int) -> tuple[int, int]:
        events = EventWaiters(MemoryJournal(), Scheduler(VirtualClock()))
        mine = EventWaiter("mine", "wait", "paid", {"id": 7, "tenant": "acme"}, 0, None)
        for number in range(count):
            events.begin(EventWaiter(f"run-{number}", "wait", *others(number + 1), 0, None))
        events.begin(mine)
        calls = calls_in(lambda: events.deliver([Received(1, event, 1.0)]))
        assert mine.event is event
        return calls, len(events.waiting)

    assert cost(MANY) == (cost(1)[0], MANY)


@pytest.mark.asyncio
async def test_a_wait_that_was_kept_gets_the_first_event_that_came_meanwhile() -> None:
    journal = MemoryJournal()
    events = EventWaiters(journal, Scheduler(VirtualClock()))
    waiter = events.begin(EventWaiter("run", "wait", "go", {}, 0, None))
    waiter.future = asyncio.get_running_loop().create_future()
    events.keep(waiter)
    for number in (1, 2):
        received = journal.log(Event("go", number, id=str(number)), 1.0)
        assert received is not None
        events.deliver([received])
    assert events.begin(EventWaiter("run", "wait", "go", {}, 0, None)) is waiter
    assert waiter.event is not None
    assert waiter.event.data == 1
    assert len(events.waiting) == 0


@pytest.mark.asyncio
async def test_a_wait_of_other_code_is_not_taken_for_one_that_was_kept() -> None:
    journal = MemoryJournal()
    events = EventWaiters(journal, Scheduler(VirtualClock()))
    for match in ({"a": 1}, {"a": True}, {}):
        events.keep(events.begin(EventWaiter("run", "wait", "go", match, 0, None)))
        other = EventWaiter("run", "wait", "go", {"a": 2}, 0, None)
        assert events.begin(other) is other
        events.forget("run")
        assert list(events.waiting) == [other]
        events.waiting.discard(other)


@pytest.mark.asyncio
async def test_what_another_process_received_before_is_told_before() -> None:
    journal = MemoryJournal()
    events = EventWaiters(journal, Scheduler(VirtualClock()))
    waiter = events.begin(EventWaiter("run", "wait", "go", {}, 0, None))
    journal.log(Event("other", 0, id="0"), 1.0)
    journal.log(Event("go", 1, id="1"), 1.0)  # by another process: nobody is told
    received = journal.log(Event("go", 2, id="2"), 1.0)
    assert received is not None
    events.deliver([received])
    assert waiter.event is not None
    assert waiter.event.data == 1


@pytest.mark.asyncio
async def test_a_run_that_has_ended_leaves_no_wait_behind() -> None:
    async with MemoryBackend([], max_resting=0) as backend:
        events = backend._worker.host.events
        events.keep(events.begin(EventWaiter("run", "wait", "go", {}, 0, None)))
        events.forget("run")
        assert len(events.waiting) == 0
        assert events._kept == {}
