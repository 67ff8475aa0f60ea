"""A step that waits is woken for its own event, whenever that comes, and for the first one."""

from __future__ import annotations

from typing import Any

import pytest

from durably.backends.temporal.event_inbox import EventInbox
from durably.core import APPROVAL_GIVEN, Event

pytestmark = pytest.mark.asyncio

FIRST, SECOND = [{"name": "go", "data": n} for n in (1, 2)]


@pytest.mark.parametrize("early", [True, False])
async def test_the_first_event_wakes_the_step_it_is_for_and_no_other(early: bool) -> None:
    inbox = EventInbox()
    if early:
        inbox.deliver("a", FIRST)
    arrival, other = inbox.arrival("a"), inbox.arrival("b")
    assert arrival.done() is early
    inbox.deliver("a", FIRST)
    inbox.deliver("a", SECOND)
    assert arrival.done()
    assert not other.done()
    assert inbox.came == {"a": FIRST}


@pytest.mark.parametrize("forget", [True, False])
async def test_an_event_for_a_step_that_has_given_up_wakes_nobody(forget: bool) -> None:
    inbox = EventInbox()
    arrival = inbox.arrival("a")
    arrival.cancel()
    if forget:
        inbox.forget("a")
    inbox.deliver("a", FIRST)
    assert arrival.cancelled()


async def test_an_answer_that_comes_to_the_run_itself_wakes_the_step_that_asked() -> None:
    inbox = EventInbox()
    match: dict[str, Any] = {"approval": "run-1/ask"}
    inbox.expect("ask", APPROVAL_GIVEN, match, since=1.0)
    arrival = inbox.arrival("ask")
    answer = Event(APPROVAL_GIVEN, match, id="1").model_dump(mode="json")
    assert inbox.offer(answer, before=0.5) == []
    assert not arrival.done()
    assert inbox.offer(answer, before=None) == ["ask"]
    assert arrival.done()
    assert inbox.came == {"ask": answer}
