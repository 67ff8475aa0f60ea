"""What a process has to say to a hub while a signal is under way goes with the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably.backends.temporal.outbox import MOST, SIZE, Outbox

pytestmark = pytest.mark.asyncio


class Hub:
    """Takes signals, each in a turn of the loop."""

    def __init__(self) -> None:
        self.signals: list[list[Any]] = []
        self.under_way = 0

    async def take(self, messages: Sequence[Any]) -> None:
        self.under_way += 1
        assert self.under_way == 1, "one at a time, so their order is kept"
        await asyncio.sleep(0)
        self.under_way -= 1
        if "lost" in messages:
            raise ConnectionError("no answer")
        self.signals.append(list(messages))


async def test_one_message_alone_goes_at_once() -> None:
    hub = Hub()
    outbox = Outbox(hub.take)
    for n in range(3):
        await outbox.add(n)
    assert hub.signals == [[0], [1], [2]]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(["", "x" * (SIZE // 3), "x" * SIZE]), max_size=8), st.integers(0, 2 * MOST))
async def test_many_go_in_their_order_and_no_signal_is_too_large(large: list[str], small: int) -> None:
    hub = Hub()
    outbox = Outbox(hub.take)
    messages = [*large, *range(small)]
    await asyncio.gather(*map(outbox.add, messages))
    assert [message for signal in hub.signals for message in signal] == messages
    assert all(len(signal) <= MOST for signal in hub.signals)
    assert all(sum(len(str(each)) for each in signal) <= SIZE or len(signal) == 1 for signal in hub.signals)
    assert len(hub.signals) <= len(large) + small // MOST + 2, "as few as take them"


async def test_an_error_reaches_those_whose_signal_it_was_and_no_others() -> None:
    hub = Hub()
    outbox = Outbox(hub.take)
    first = asyncio.ensure_future(outbox.add("lost"))
    await asyncio.sleep(0)
    given_up, last = asyncio.ensure_future(outbox.add("again")), asyncio.ensure_future(outbox.add("last"))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(ConnectionError):
        await first
    await last
    assert hub.signals == [["again", "last"]], "what nobody waits for any more is said all the same"
